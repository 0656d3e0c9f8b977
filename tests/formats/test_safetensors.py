"""Our header reader against the library, over drawn, hostile and mutated files."""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import DiffaiError, FormatError, TensorError
from diffai_stream.formats import safetensors as reader
from diffai_stream.formats.base import Checkpoint
from tests.assets_hostile import HOSTILE
from tests.checkpoints import read_extents, write_raw_safetensors, write_safetensors

DTYPES = sorted(reader._BITS)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@st.composite
def checkpoints(draw: st.DrawFn) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    drawn = {}
    for name in draw(st.lists(NAMES, max_size=6, unique=True)):
        dtype, shape = draw(st.sampled_from(DTYPES)), tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
        if np.prod(shape, dtype=int) * ENCODINGS[dtype].bits % 8:
            shape = (*shape, 8)
        nbytes = int(np.prod(shape, dtype=int)) * ENCODINGS[dtype].bits // 8
        drawn[name] = (dtype, shape, random.Random(nbytes).randbytes(nbytes))
    drawn.pop("__metadata__", None)
    return drawn


def by_library(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]] | None:
    """What the reference reader makes of a file; None when it refuses it."""
    try:
        found = safetensors.deserialize(path.read_bytes())
    except Exception:
        return None
    return {name: (item["dtype"], tuple(item["shape"]), bytes(item["data"])) for name, item in found}


def ours(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {entry.name: (entry.encoding, entry.shape, read_extents(entry)) for entry in reader.index(str(path)).tensors}


@settings(deadline=None, max_examples=150)
@given(checkpoints(), st.booleans())
def test_reads_what_the_library_reads(drawn, aligned):
    with tempfile.TemporaryDirectory() as folder:
        path = write_safetensors(Path(folder) / "x.safetensors", drawn, aligned=aligned)
        found = reader.index(str(path))
        assert found.errors == ()
        assert {oddity.code for oddity in found.oddities} <= (set() if aligned else {"unaligned"}) | {"unaligned"}
        assert ours(path) == drawn
        library = by_library(path)
        assert library is not None
        assert {name: value[1:] for name, value in library.items()} == {name: value[1:] for name, value in drawn.items()}


def test_reads_files_written_by_the_library(tmp_path):
    arrays = {
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float16),
        "half": np.arange(12, dtype=np.float16).reshape(3, 4),
        "brain": np.arange(6).astype(ml_dtypes.bfloat16),
        "long": np.arange(3, dtype=np.int64),
        "flag": np.array([True, False]),
        "complex": np.array([1 + 2j], np.complex64),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "m.safetensors", {"format": "np", "note": "x"})
    found = reader.index(str(tmp_path / "m.safetensors"))
    assert (found.errors, found.oddities, found.format, found.container) == ((), (), "safetensors", "file")
    assert found.metadata == {"format": "np", "note": "x"}
    assert {entry.name: read_extents(entry) for entry in found.tensors} == {name: a.tobytes() for name, a in arrays.items()}
    assert {entry.name: entry.shape for entry in found.tensors} == {name: a.shape for name, a in arrays.items()}
    offsets = [entry.components["data"].extents[0].offset for entry in found.tensors]
    assert offsets == sorted(offsets)
    (stamp,) = found.stamps.values()
    assert stamp.nbytes == (tmp_path / "m.safetensors").stat().st_size
    assert {entry.components["data"].extents[0].path for entry in found.tensors} == set(found.stamps)


def test_every_dtype_of_the_library_is_known():
    bits = {name: ENCODINGS[name].bits for name in DTYPES}
    assert len(bits) == 22
    assert (bits["F4"], bits["F6_E2M3"], bits["BF16"], bits["C64"]) == (4, 6, 16, 64)


def test_probe():
    assert reader.probe("x", b'\x40\0\0\0\0\0\0\0{"a"')
    assert reader.probe("x", b'\x40\0\0\0\0\0\0\0  {"a"')
    assert reader.probe("x", b'\x20\0\0\0\0\0\0\0{"a"')
    assert not reader.probe("x", b"        {}")
    assert not reader.probe("x.safetensors", b'{"weight_map": {"a": 1}}')
    assert not reader.probe("x", b"\x93NUMPY\x01\x00")


def test_tied_names_are_aliases(tmp_path):
    array = np.zeros(4, np.float32)
    metadata = {"lm_head.weight": "wte.weight", "a": "nowhere", "wte.weight": "wte.weight", "format": "pt"}
    path = write_safetensors(tmp_path / "m.safetensors", {"wte.weight": array}, metadata)
    assert reader.index(str(path)).aliases == {"lm_head.weight": "wte.weight"}


def test_message_names_file_tensor_and_offset(tmp_path):
    (error,) = reader.index(str(HOSTILE["dtype_unknown"](tmp_path))).errors
    assert isinstance(error, TensorError)
    assert (error.path, error.tensor) == (str(tmp_path / "model.safetensors"), "b")
    assert error.offset == (tmp_path / "model.safetensors").stat().st_size - 24
    assert "F2_E1M0" in error.message


def test_truncation_leaves_the_rest_readable(tmp_path):
    found = reader.index(str(HOSTILE["data_cut_off"](tmp_path)))
    assert [entry.name for entry in found.tensors] == ["a", "b"]
    assert [error.tensor for error in found.errors] == ["c", "d"]


@pytest.mark.parametrize("end", [2**40, 70])
def test_one_bad_offset_costs_one_tensor(end, tmp_path):
    sizes = {"dtype": "U8", "shape": [24]}
    header = {"a": {**sizes, "data_offsets": [0, end]}} | {
        name: {**sizes, "data_offsets": [24 * number, 24 * number + 24]} for number, name in enumerate("bcd", 1)
    }
    found = reader.index(str(write_raw_safetensors(tmp_path / "m.safetensors", header, bytes(96))))
    assert [entry.name for entry in found.tensors] == ["b", "c", "d"]
    assert [error.tensor for error in found.errors] == ["a"]


def test_repeated_oddities_are_counted(tmp_path):
    header = {f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": [2 * i, 2 * i + 1]} for i in range(1000)}
    found = reader.index(str(write_raw_safetensors(tmp_path / "m.safetensors", header, bytes(1999))))
    (gap,) = [oddity for oddity in found.oddities if oddity.code == "gap"]
    assert "998 more" in gap.message
    assert gap.tensor == "t1"


def test_names_stay_as_they_are(tmp_path):
    found = reader.index(str(HOSTILE["control_characters"](tmp_path)))
    assert found.tensors[0].name == "\x1b[2J\r\nevil\0"
    assert found.metadata == {"\x1b]0;x\x07": "\x9b"}


@pytest.mark.parametrize(
    "flaw", [name for name in HOSTILE if name.startswith(("header", "offsets", "shape", "dtype", "size", "bits"))]
)
def test_what_the_library_refuses_is_reported(flaw, tmp_path):
    path = HOSTILE[flaw](tmp_path)
    assert by_library(path) is None
    found = outcome(path)
    assert found.path == str(path) if isinstance(found, FormatError) else found.errors


def outcome(path: Path) -> Checkpoint | FormatError:
    try:
        return reader.index(str(path))
    except FormatError as error:
        return error


@pytest.mark.parametrize("depth", [*range(100, 1000, 20), *range(920, 1010, 2), 5000])
def test_nesting_near_the_parser_limit_ends_cleanly(depth, tmp_path):
    deep = "[" * depth + "]" * depth
    places = {
        "entry": f'{{"a":{deep}}}',
        "shape": f'{{"a":{{"dtype":"F32","shape":{deep},"data_offsets":[0,0]}}}}',
        "dim": f'{{"a":{{"dtype":"F32","shape":[{deep}],"data_offsets":[0,0]}}}}',
        "dtype": f'{{"a":{{"dtype":{deep},"shape":[],"data_offsets":[0,0]}}}}',
        "offsets": f'{{"a":{{"dtype":"F32","shape":[],"data_offsets":{deep}}}}}',
        "metadata": f'{{"__metadata__":{{"k":{deep}}}}}',
        "twice": f'{{"a":{{"data_offsets":{deep}}},"a":{{"data_offsets":{deep}}}}}',
    }
    for name, text in places.items():
        found = outcome(write_raw_safetensors(tmp_path / name, text))
        assert isinstance(found, FormatError) or found.errors or found.oddities


def mutate(source: bytes, draw: random.Random) -> bytes:
    """A file with some bytes flipped, cut, doubled or exchanged; mostly near the front, where the structure is."""
    raw = bytearray(source)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        place = draw.randrange(len(raw)) if draw.random() < 0.5 else draw.randrange(min(len(raw), 400))
        kind = draw.randrange(5)
        if kind == 0:
            raw[place] = draw.randrange(256)
        elif kind == 1:
            raw[place] = draw.choice(b'{}[]",:0123456789ef-\\ ')
        elif kind == 2:
            del raw[place : place + draw.randint(1, 20)]
        elif kind == 3:
            raw[place:place] = raw[place : place + draw.randint(1, 40)]
        else:
            del raw[max(place, 1) :]
        if not raw:
            break
    return bytes(raw)


def repaired(raw: bytes, draw: random.Random) -> bytes:
    """The file with its length field set right half of the time, so that mutations reach the fields inside."""
    end = raw.rfind(b"}") + 1
    if draw.random() < 0.5 or end <= 8:
        return raw
    return (end - 8).to_bytes(8, "little") + raw[8:]


def test_mutated_files_agree_with_the_library(tmp_path):
    """What the library accepts is read alike and without error; what it refuses is never read in silence."""
    draw, path = random.Random(7), tmp_path / "x.safetensors"
    array = np.arange(4, dtype=np.float32)
    tensors = {"w": array, "ü/b": array.astype(np.float16), "empty": array[:0], "q": ("F4", (2, 4), b"\x12\x34\x56\x78")}
    source = write_safetensors(path, tensors, {"format": "pt", "k": "v"}).read_bytes()
    accepted = 0
    for number in range(1500):
        path.write_bytes(repaired(mutate(source, draw), draw))
        start, library = time.perf_counter(), by_library(path)
        try:
            found = reader.index(str(path))
        except DiffaiError:
            assert library is None, number
            continue
        assert time.perf_counter() - start < 2
        if library is None:
            assert found.errors or found.oddities, (number, path.read_bytes())
            continue
        accepted += 1
        assert found.errors == (), (number, path.read_bytes())
        assert {name: value[1:] for name, value in ours(path).items()} == {name: value[1:] for name, value in library.items()}
    assert accepted > 10


def test_50_000_tensors(tmp_path, capsys):
    header = {
        f"model.layers.{i // 9}.mlp.{i}.weight": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [i * 64, i * 64 + 64]}
        for i in range(50_000)
    }
    text = json.dumps(header, separators=(",", ":"))
    path = write_raw_safetensors(tmp_path / "big.safetensors", text + " " * (-len(text) % 8), bytes(64 * 50_000))
    start = time.perf_counter()
    found = reader.index(str(path))
    with capsys.disabled():
        print(f"\n50,000 tensors indexed in {time.perf_counter() - start:.3f} s")
    assert len(found.tensors) == 50_000
    assert (found.errors, found.oddities) == ((), ())
