"""Pickles that want to do harm, or cost without end: nothing they name is ever run, nothing grows beyond the file."""

from __future__ import annotations

import contextlib
import json
import pickle
import random
import resource
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffai_stream.errors import DiffaiError, FormatError
from diffai_stream.formats.catalogue import open_checkpoint
from tests.formats.pickle_bytes import (
    APPEND,
    BUILD,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_TUPLE,
    MARK,
    NONE,
    PROTO,
    REDUCE,
    SETITEM,
    STOP,
    TUPLE,
    TUPLE1,
    TUPLE2,
    called,
    integer,
    mapping,
    name,
    pickle_of,
    tensor,
    text,
    write_archive,
)

DATA = np.arange(6, dtype=np.float32)
GOOD = tensor("0", (2, 3))
ARRAY = pickle.dumps(DATA, protocol=4)[2:-1].replace(pickle.dumps(DATA, protocol=4)[2:11], b"", 1)
SENTINEL = "sentinel"


class Runs:
    """Pickled for real: loading it would create a file."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def touching(path: Path) -> str:
    return f"touch {path}"


def evil(sentinel: Path) -> dict[str, bytes]:
    """Values that run a command when they are unpickled, by the trick they use."""
    command, code = touching(sentinel), f"open({str(sentinel)!r}, 'w')"
    system = name("posix", "system")
    nested = pickle.dumps(Runs(command), protocol=2)
    return {
        "os_system": called("os", "system", text(command)),
        "posix_system": system + text(command) + TUPLE1 + REDUCE,
        "eval": called("builtins", "eval", text(code)),
        "python_2_eval": called("__builtin__", "eval", text(code)),
        "build": name("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE + called("os", "system", text(command)) + BUILD,
        "inst": MARK + text(command) + b"iposix\nsystem\n",
        "obj": MARK + system + text(command) + b"o",
        "newobj": name("subprocess", "Popen") + text(command) + TUPLE1 + b"\x81",
        "newobj_ex": name("subprocess", "Popen") + EMPTY_TUPLE + mapping({"args": text(command)}) + b"\x92",
        "stack_global": text("posix") + text("system") + b"\x93" + text(command) + TUPLE1 + REDUCE,
        "by_attribute": called("builtins", "getattr", called("importlib", "import_module", text("os")), text("system"))
        + text(command)
        + TUPLE1
        + REDUCE,
        "popped": system + text(command) + TUPLE1 + REDUCE + b"0" + NONE,
        "within_a_key": EMPTY_DICT + called("os", "system", text(command)) + NONE + SETITEM,
        "pickle_in_pickle": called("pickle", "loads", b"B" + struct.pack("<I", len(nested)) + nested),
        "dill": called("dill._dill", "_create_function", called("dill._dill", "_create_code", text(code))),
        "numpy_runstring": called("numpy.testing._private.utils", "runstring", text(code), EMPTY_DICT),
        "torch_hub": called("torch.hub", "load", text(str(sentinel.parent)), text("model")),
        "rebuild_with_a_callable": called("torch._tensor", "_rebuild_from_type_v2", system, NONE, text(command) + TUPLE1, NONE),
        "extension_code": b"\x82\x01" + text(command) + TUPLE1 + REDUCE,
        "persistent_id": called("os", "system", text(command)) + b"Q",
        "sklearn_lookalike": called("sklearn.os", "system", text(command)),
        "dotted_name": called("torch", "nn.modules.os.system", text(command)),
    }


TRICKS = list(evil(Path("x")))


@pytest.mark.parametrize("container", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("trick", TRICKS)
def test_nothing_is_run_and_the_tensors_are_read(trick, container, tmp_path):
    sentinel = tmp_path / SENTINEL
    good = ARRAY if container == "plain" else GOOD
    value = pickle_of(mapping({"bad": evil(sentinel)[trick], "w": good}))
    path = WRITERS[container](tmp_path / "m.pkl", value, {"0": DATA.tobytes()})
    found = open_checkpoint(str(path))
    before = set(sys.modules)
    assert open_checkpoint(str(path)).tensors == found.tensors
    assert not sentinel.exists()
    assert set(sys.modules) == before
    assert [entry.name for entry in found.tensors] == ["w"]
    assert found.unsafe_globals


def write_plain(path: Path, value: bytes, storages: dict[str, bytes]) -> Path:
    path.write_bytes(value)
    return path


def write_legacy(path: Path, value: bytes, storages: dict[str, bytes]) -> Path:
    """The older layout around a pickle; the elements are float32."""
    head = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    tail = pickle.dumps(list(storages), protocol=2)
    raw = b"".join(struct.pack("<q", len(data) // 4) + data for data in storages.values())
    path.write_bytes(head + value + tail + raw)
    return path


WRITERS = {"zip": write_archive, "legacy": write_legacy, "plain": write_plain}


def memo(number: int) -> bytes:
    return b"q" + bytes([number])


def recalled(number: int) -> bytes:
    return b"h" + bytes([number])


def laughs(depth: int) -> bytes:
    """A tuple of two of a tuple of two of ...: 2^depth leaves in 4 * depth bytes."""
    levels = b"".join(recalled(n) + recalled(n) + TUPLE2 + memo(n + 1) for n in range(depth))
    return text("lol") + TUPLE1 + memo(0) + levels


COSTLY = {
    "billion_laughs": lambda: mapping({"bad": laughs(200), "w": GOOD}),
    "billion_laughs_as_a_key": lambda: EMPTY_DICT + MARK + laughs(200) + NONE + b"u",
    "billion_laughs_to_a_dict": lambda: called("collections", "OrderedDict", laughs(200)),
    "deep_tuples": lambda: NONE + TUPLE1 * 1_000_000,
    "deep_lists": lambda: (EMPTY_LIST + MARK) * 300_000 + NONE + b"e" * 300_000,
    "deep_dicts": lambda: (EMPTY_DICT + text("k")) * 200_000 + NONE + SETITEM * 200_000,
    "deep_instances": lambda: name("a", "b") + memo(0) + NONE + (TUPLE1 + recalled(0) + b"2" + b"0") * 10 + STOP,
    "itself_in_itself": lambda: EMPTY_LIST + memo(0) + recalled(0) + APPEND,
    "a_list_of_itself": lambda: EMPTY_LIST + memo(0) + MARK + recalled(0) * 200_000 + b"e",
    "copies_of_a_list": lambda: (
        EMPTY_LIST
        + memo(0)
        + MARK
        + NONE * 100_000
        + b"e"
        + MARK
        + (name("collections", "OrderedDict") + recalled(0) + TUPLE1 + REDUCE) * 2000
        + TUPLE
    ),
    "empty_containers_without_end": lambda: MARK + EMPTY_DICT * 12_000_000 + TUPLE,
    "marks_without_end": lambda: MARK * 12_000_000,
    "memo_at_4_billion": lambda: NONE + b"r" + b"\xff" * 4,
    "colliding_keys": lambda: (
        EMPTY_DICT
        + MARK
        + b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + NONE for n in range(100_000))
        + b"u"
    ),
    "numbers_of_a_million_digits": lambda: MARK + b"I" + b"9" * 500_000 + b"\n" + TUPLE,
    "long_of_a_megabyte": lambda: b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20),
}


@pytest.mark.parametrize("bomb", COSTLY)
def test_bombs_end_soon(bomb, tmp_path):
    path = write_archive(tmp_path / "m.pt", pickle_of(COSTLY[bomb]()), {"0": DATA.tobytes()})
    started = time.perf_counter()
    with contextlib.suppress(FormatError):
        open_checkpoint(str(path))
    assert time.perf_counter() - started < 20


CLAIMS = {
    "text": b"X" + struct.pack("<I", 10**9),
    "text_8": b"\x8d" + struct.pack("<Q", 10**18),
    "bytes": b"B" + struct.pack("<I", 10**9),
    "bytes_8": b"\x8e" + struct.pack("<Q", 10**18),
    "bytearray": b"\x96" + struct.pack("<Q", 10**12),
    "string": b"T" + struct.pack("<i", 10**9),
    "negative_string": b"T" + struct.pack("<i", -5),
    "long": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "negative_long": b"\x8b" + struct.pack("<i", -1),
    "line": b"S'" + b"x" * 100,
    "buffer": b"\x97",
    "unknown": b"\xff",
    "protocol_9": b"\x80\x09",
    "empty_stack": b"R",
    "no_mark": b"t",
    "unknown_memo": b"h\x07",
    "nothing": b"",
    "odd_items": EMPTY_DICT + MARK + NONE + b"u",
    "build_on_nothing": NONE + BUILD,
    "frame_beyond": b"\x95" + struct.pack("<Q", 10**15),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_lengths_and_nonsense_are_refused(claim, tmp_path):
    raw = PROTO + CLAIMS[claim] + (b"" if claim in ("line", "frame_beyond") else STOP)
    path = write_archive(tmp_path / "m.pt", raw, {"0": DATA.tobytes()})
    with pytest.raises(FormatError, match="pickle cannot be read") as caught:
        open_checkpoint(str(path))
    assert caught.value.offset is not None


BAD_TENSORS = {
    "reaches_beyond": tensor("0", (100, 100)),
    "no_such_storage": tensor("9", (2, 3)),
    "key_is_a_path": tensor("../../etc/passwd", (2, 3)),
    "negative_size": tensor("0", (-2, 3)),
    "size_overflows": tensor("0", (2**31 - 1,) * 3),
    "unknown_storage_class": tensor("0", (2, 3), storage="EvilStorage"),
    "arguments_missing": called("torch._utils", "_rebuild_tensor_v2", NONE),
    "arguments_of_other_kinds": called("torch._utils", "_rebuild_tensor_v2", *[text("x")] * 6),
    "too_many_arguments": called("torch._utils", "_rebuild_parameter"),
    "wrapped_nonsense": called("torch._utils", "_rebuild_wrapper_subclass", *[NONE] * 8),
}


@pytest.mark.parametrize("flaw", BAD_TENSORS)
def test_a_bad_tensor_costs_no_other(flaw, tmp_path):
    value = pickle_of(mapping({"bad": BAD_TENSORS[flaw], "w": GOOD}))
    found = open_checkpoint(str(write_archive(tmp_path / "m.pt", value, {"0": DATA.tobytes()})))
    assert [entry.name for entry in found.tensors] == ["w"]
    assert [error.tensor for error in found.errors] == ["bad"]
    assert "\n" not in str(found.errors[0])


def test_memory_stays_in_proportion_to_the_file(tmp_path):
    """A compressed archive of 60 KB whose pickle makes 60 million lists, read in a process of its own."""
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle_of(MARK + EMPTY_LIST * 60_000_000 + TUPLE))
    code = (
        "import sys\n"
        "from diffai_stream.formats.catalogue import open_checkpoint\n"
        "try: open_checkpoint(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    kind, peak = done.stdout.split()
    assert kind == "FormatError"
    assert int(peak) < 600_000


def test_a_pickle_that_inflates_beyond_reason_is_refused(tmp_path):
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as member:
        for _ in range(70):
            member.write(NONE * (1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError, match="plausible"):
        open_checkpoint(str(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_mutated_pickles_end_cleanly(tmp_path):
    source = bytearray(pickle_of(mapping({"a": GOOD, "n": integer(5), "w": tensor("1", (6,))})))
    draw = random.Random(11)
    for _ in range(1500):
        raw = bytearray(source)
        for _ in range(draw.randint(1, 4)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
        path = write_archive(tmp_path / "m.pt", bytes(raw), {"0": DATA.tobytes(), "1": DATA.tobytes()})
        try:
            found = open_checkpoint(str(path))
        except DiffaiError:
            continue
        for entry in found.tensors:
            extent = entry.components["data"].extents[0]
            assert 0 <= extent.offset <= extent.offset + extent.nbytes <= path.stat().st_size
        json.dumps([*found.unsafe_globals, *(str(error) for error in found.errors)]).encode("utf-8")
