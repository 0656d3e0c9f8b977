"""Whatever reads a remote checkpoint reads the object: no reader can see the empty files that stand for objects."""

import json
import os

import numpy as np
import pytest

from diffai_stream import inspect, open_checkpoint
from diffai_stream.errors import CheckpointError, DiffaiError, UsageError
from diffai_stream.formats.catalogue import FORMATS
from diffai_stream.formats.inert import open_regular, read_exactly
from diffai_stream.storage.codecs import CODECS
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.files import FILES
from diffai_stream.storage.read_ahead import Piece, fetch
from diffai_stream.storage.remote import mirror, objects
from diffai_stream.storage.windows import read_window
from tests.gguf_files import f32, key, text, u16, write_gguf
from tests.quantized_files import LAYOUTS
from tests.remote.pairs import COSTS, moved, records

WITHOUT_BYTES = ("constant", "fill")


def figures(path):
    return [{k: v for k, v in record.items() if k not in COSTS} for record in inspect(str(path), stats=True, workers=2)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=list(LAYOUTS))
def test_quantized_layouts_are_decoded_as_on_disk(layout, web, tmp_path):
    files, address = web
    path = LAYOUTS[layout].write(tmp_path / "m")
    files.folder("m", path)
    assert json.dumps(figures(f"{address}/m")) == json.dumps(moved(figures(path), [path], [f"{address}/m"]))


def split(folder):
    random = np.random.default_rng(3)
    for number in range(3):
        keys = [u16("split.no", number), u16("split.count", 3), key("general.name", 8, text("x" * 300_000))]
        tensors = {f"blk.{number}.ffn_up.weight": f32(random.standard_normal((64, 96)))}
        write_gguf(folder / f"m-{number + 1:05}-of-00003.gguf", tensors, keys)
    return folder


def test_split_gguf_models(web, tmp_path):
    files, address = web
    files.folder("m", split(tmp_path))
    for name in ("m-00001-of-00003.gguf", "m-00002-of-00003.gguf"):
        found = moved(figures(tmp_path / name), [tmp_path], [f"{address}/m"])
        assert figures(f"{address}/m/{name}") == found


def test_a_missing_part_is_told(web, tmp_path):
    files, address = web
    files.folder("m", split(tmp_path))
    del files.content["/m/m-00002-of-00003.gguf"]
    (error,) = open_checkpoint(f"{address}/m/m-00001-of-00003.gguf").errors
    assert error.path == f"{address}/m/m-00002-of-00003.gguf"


def test_a_vocabulary_within_is_read(web, tmp_path):
    files, address = web
    random = np.random.default_rng(4)
    tokens = key(
        "tokenizer.ggml.tokens", 9, b"\x08\0\0\0" + (40).to_bytes(8, "little") + b"".join(text(f"t{n}") for n in range(40))
    )
    paths = [tmp_path / "old.gguf", tmp_path / "new.gguf"]
    for path in paths:
        write_gguf(path, {"token_embd.weight": f32(random.standard_normal((40, 64)))}, [tokens])
    files.folder("g", tmp_path)
    addresses = [f"{address}/g/{path.name}" for path in paths]
    assert records(*addresses, all_analyses=True) == moved(records(*paths, all_analyses=True), paths, addresses)


@pytest.fixture
def opened(served):
    """A checkpoint at an address."""
    return open_checkpoint(served[0])


def test_the_files_that_stand_for_objects_hold_nothing(opened):
    stand_in = mirror.local(opened.path)
    assert os.path.getsize(stand_in) == 0
    assert stand_in != opened.path


@pytest.mark.parametrize("use", ["fileno", "read", "readall", "tell"])
def test_an_open_object_has_no_descriptor(use, opened):
    with pytest.raises(UsageError, match="download it first"), open_regular(mirror.local(opened.path)) as (file, _):
        getattr(file, use)()


def test_an_open_object_ends_where_it_ends(opened):
    with open_regular(opened.path) as (file, stamp):
        assert stamp == next(iter(opened.stamps.values()))
        assert len(read_exactly(file, stamp.nbytes - 10, 10, "")) == 10
        with pytest.raises(CheckpointError, match="ends 5 bytes too early"):
            read_exactly(file, stamp.nbytes - 10, 15, "")


@pytest.mark.parametrize("word", sorted(CODECS.keys() - {*WITHOUT_BYTES}))
def test_no_codec_reads_around(word, opened):
    arguments = {
        "boxes": json.dumps({"itemsize": 1, "shape": [8], "files": [[opened.path, 9, 9]], "boxes": [[0, 0, [0], [8]]]}),
        "deflate": "0:8",
        "within": "0:8:8",
    }
    codec = f"{word}:{arguments.get(word, '1:8:1:deflate:0:8')}"
    with pytest.raises((DiffaiError, ValueError, IndexError)):
        read_window(Extent(opened.path, 0, 8, codec), 0, 8, None)


def test_an_address_is_no_path(opened):
    with pytest.raises(OSError, match="No such file"):
        FILES.duplicate(opened.path)
    with pytest.raises(OSError, match="No such file"):
        FileStamp.of(opened.path)
    fetch(Piece(opened.path, 0, 8))  # never fails, does nothing


def test_formats_that_are_not_read_remotely_are_refused_before_they_are_asked(web):
    heads = {"a.onnx": b"\x08\x07" * 50, "a.npy": b"\x93NUMPY" + bytes(100), "a.pkl": b"\x80\x04" + bytes(100)}
    files, address = web
    for name, head in heads.items():
        files.content[f"/{name}"] = head
        with pytest.raises(UsageError, match=r"Hugging Face directory.*are\); download it first"):
            open_checkpoint(f"{address}/{name}")
    assert {row.name for row in FORMATS.values() if row.remote} == {"huggingface", "safetensors", "gguf"}


def test_an_object_of_another_process_is_not_read():
    with pytest.raises(CheckpointError, match="another process"):
        read_window(Extent("http://host/none", 0, 8), 0, 8, None)
    assert objects.found("http://host/none") is None
