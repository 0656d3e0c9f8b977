"""zarr of both versions, as zarr-python and TensorStore write it, and as no one should."""

from __future__ import annotations

import json
import os
import random
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numcodecs
import numpy as np
import pytest
import tensorstore
import zarr

from diffai_stream.errors import DiffaiError, FormatError, TensorError
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.plan.sources import Source
from diffai_stream.storage.zarr.metadata import parse_array
from diffai_stream.storage.zarr.unpack import zstd_bound
from tests.arrays import plain_arrays
from tests.equality import differences

RANDOM = np.random.default_rng(11)
WIDE = RANDOM.integers(0, 9, size=(500, 77)).astype("f4")
DEEP = RANDOM.integers(0, 9, size=(3, 14, 15, 6)).astype("f4")
V2 = {
    "plain": {"compressors": None},
    "blosc": {},
    "zlib": {"compressors": numcodecs.Zlib()},
    "gzip": {"compressors": numcodecs.GZip()},
    "bz2": {"compressors": numcodecs.BZ2()},
    "lzma": {"compressors": numcodecs.LZMA()},
    "zstd": {"compressors": numcodecs.Zstd()},
    "lz4": {"compressors": numcodecs.LZ4()},
    "delta": {"compressors": numcodecs.Zstd(), "filters": [numcodecs.Delta("f4")]},
    "shuffle": {"compressors": numcodecs.Zlib(), "filters": [numcodecs.Shuffle(4)]},
    "columns": {"order": "F"},
    "columns_plain": {"order": "F", "compressors": None},
}
V3 = {
    "plain": {"compressors": None},
    "zstd": {},
    "gzip": {"compressors": zarr.codecs.GzipCodec()},
    "blosc": {"compressors": zarr.codecs.BloscCodec()},
    "summed": {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
    "transposed": {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
    "transposed_plain": {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))], "compressors": None},
    "big_endian": {"serializer": zarr.codecs.BytesCodec(endian="big")},
    "v2_keys": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
}


def write(path, version: int, arrays: dict, chunks=None, **how):
    group = zarr.open_group(path, mode="w", zarr_format=version)
    for name, array in arrays.items():
        group.create_array(name.replace(".", "/"), data=array, chunks=chunks or array.shape or "auto", **how)
    return path


@pytest.mark.parametrize("chunks", [(64, 77), (64, 20), (500, 77), (600, 100), (500, 3)], ids=str)
@pytest.mark.parametrize(("version", "kind"), [*((2, kind) for kind in V2), *((3, kind) for kind in V3)], ids=str)
def test_every_codec_in_every_cut(version, kind, chunks, tmp_path):
    write(tmp_path / "w.zarr", version, {"a.w": WIDE}, chunks, **(V2 if version == 2 else V3)[kind])
    assert differences(tmp_path / "w.zarr", {"a.w": WIDE}, tmp_path, chunk_size=1 << 16) == []


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("how", [{}, {"compressors": None}], ids=["packed", "plain"])
def test_every_element_type(version, how, tmp_path):
    arrays = {**plain_arrays(), "scalar": np.array(2.5), "empty": np.zeros((0, 4), "f4")}
    write(tmp_path / "w.zarr", version, arrays, **how)
    found = open_checkpoint(str(tmp_path / "w.zarr"))
    assert (found.format, found.container, found.errors, found.oddities) == ("zarr", "directory", (), ())
    assert differences(tmp_path / "w.zarr", arrays, tmp_path) == []


@pytest.mark.parametrize("shards", [(256, 80), (64, 40), (512, 80)], ids=str)
@pytest.mark.parametrize("how", [{}, {"compressors": None}], ids=["packed", "plain"])
def test_shards(shards, how, tmp_path):
    write(tmp_path / "w.zarr", 3, {"w": WIDE}, (64, 40), shards=shards, **how)
    write(tmp_path / "d.zarr", 3, {"w": DEEP}, (1, 7, 15, 3), shards=(2, 14, 15, 6), **how)
    assert differences(tmp_path / "w.zarr", {"w": WIDE}, tmp_path, chunk_size=1 << 16) == []
    assert differences(tmp_path / "d.zarr", {"w": DEEP}, tmp_path) == []


@pytest.mark.parametrize(("version", "how"), [(2, {}), (3, {}), (3, {"shards": (40, 20)}), (3, {"compressors": None})], ids=str)
@pytest.mark.parametrize("fill", [0, 2.5, "NaN"])
def test_chunks_that_were_never_written(version, how, fill, tmp_path):
    value = float(fill)
    array = zarr.open_group(tmp_path / "w.zarr", mode="w", zarr_format=version).create_array(
        "w", shape=(100, 40), chunks=(10, 20), dtype="f4", fill_value=value, **how
    )
    array[33:35, 5:8] = 1
    expected = np.full((100, 40), value, "f4")
    expected[33:35, 5:8] = 1
    assert differences(tmp_path / "w.zarr", {"w": expected}, tmp_path) == []


@pytest.mark.parametrize(
    ("driver", "dtype"),
    [
        *(("zarr", kind) for kind in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float32")),
        ("zarr3", "bfloat16"),
        ("zarr3", "float16"),
    ],
)
@pytest.mark.parametrize("compressor", [None, "zstd"])
def test_tensorstore_writes_types_that_zarr_has_not(driver, dtype, compressor, tmp_path):
    if driver == "zarr":
        metadata = {"chunks": [7, 30], "compressor": compressor and {"id": compressor, "level": 1}}
    else:
        codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, *([{"name": "zstd"}] if compressor else [])]
        metadata = {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [7, 30]}}, "codecs": codecs}
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{tmp_path}/w.zarr/w/"}, "metadata": metadata}
    kind = tensorstore.dtype(dtype).numpy_dtype
    values = RANDOM.normal(size=(40, 30)).astype(kind)
    values[14:21] = 3
    array = tensorstore.open(spec, create=True, dtype=dtype, shape=[40, 30], fill_value=kind.type(3)).result()
    array[...] = values
    (tmp_path / "w.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    name = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float32": "F32", "float16": "F16"}[dtype]
    expected = {"w": (name, (40, 30), values.tobytes())}
    found = differences(tmp_path / "w.zarr", expected, tmp_path)
    assert found == [] or (dtype.startswith("float8") and "fill value" in found[0])


def words(path) -> dict[str, set[str]]:
    return {
        e.name: {x.codec.partition(":")[0] for x in e.components["data"].extents} for e in open_checkpoint(str(path)).tensors
    }


@pytest.mark.parametrize("version", [2, 3])
def test_what_is_mapped(version, tmp_path):
    write(tmp_path / "rows", version, {"w": WIDE}, (64, 77), compressors=None)
    write(tmp_path / "tiles", version, {"w": WIDE}, (64, 20), compressors=None)
    write(tmp_path / "packed", version, {"w": WIDE}, (64, 77), compressors=numcodecs.Zlib() if version == 2 else "auto")
    assert [words(tmp_path / name)["w"] for name in ("rows", "tiles", "packed")] == [{""}, {"zarr"}, {"zarr"}]


def test_ranges_by_many_threads_are_those_of_the_array(tmp_path):
    write(tmp_path / "w.zarr", 3, {"a": WIDE, "b": WIDE + 1}, (64, 20), shards=(128, 40))
    found, draw = open_checkpoint(str(tmp_path / "w.zarr")), random.Random(12)
    flats = {"a": WIDE.reshape(-1), "b": WIDE.reshape(-1) + 1}

    def right(entry, start, stop):
        raw = Source(entry, found.stamps, "auto").read(start, stop)
        return np.array_equal(raw.view("f4"), flats[entry.name][start:stop])

    asked = [(draw.choice(found.tensors), *sorted((draw.randrange(38_500), draw.randrange(38_500)))) for _ in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda one: right(*one), asked))


def test_a_hard_link_of_the_metadata_does_not_make_the_chunks_equal(tmp_path):
    for name, value in (("old", WIDE), ("new", WIDE + 1)):
        write(tmp_path / name, 3, {"w": value}, (64, 20))
    os.remove(tmp_path / "new/w/zarr.json")
    os.link(tmp_path / "old/w/zarr.json", tmp_path / "new/w/zarr.json")
    assert differences(tmp_path / "new", {"w": WIDE}, tmp_path) == ["w: ('changed', [500, 77])"]


METADATA = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [4],
    "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4]}},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": 0,
    "codecs": ["bytes"],
}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"shape": [-1]}, "no shape"),
        ({"shape": [2**40, 2**40]}, "larger than any"),
        ({"shape": [4, 4]}, "dimensions"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0]}}}, "no shape"),
        ({"chunk_grid": {"name": "rectangular"}}, "one shape"),
        ({"data_type": "string"}, "no number"),
        ({"codecs": ["bytes", {"name": "pickle"}]}, "not on the list"),
        ({"codecs": ["vlen-utf8"]}, "not read"),
        ({"codecs": []}, "never give bytes"),
        ({"chunk_key_encoding": {"name": "default", "configuration": {"separator": "../"}}}, "between the numbers"),
        ({"shape": [2**50]}, "cannot hold"),
        ({"zarr_format": 4}, "version 3"),
        ({"codecs": None}, "not complete"),
    ],
)
def test_metadata_that_is_refused(change, word, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w/zarr.json").write_text(json.dumps({**METADATA, **change}))
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    (error,) = open_checkpoint(str(tmp_path)).errors
    assert (error.tensor, word in error.message) == ("w", True), error.message


def test_a_codec_that_unpickles_is_never_called(tmp_path):
    (tmp_path / ".zarray").write_text(
        json.dumps(
            {
                **{
                    "zarr_format": 2,
                    "shape": [1],
                    "chunks": [1],
                    "dtype": "<f4",
                    "order": "C",
                    "fill_value": 0,
                    "compressor": None,
                },
                "filters": [{"id": "pickle"}],
            }
        )
    )
    (error,) = open_checkpoint(str(tmp_path)).errors
    assert "not on the list" in error.message


@pytest.mark.parametrize(
    ("codec", "raw", "word"),
    [
        ("gzip", zlib.compress(bytes(1 << 26), wbits=31), "instead of 400"),
        ("zstd", numcodecs.Zstd().encode(bytes(1 << 26)), "claim"),
        ("blosc", struct.pack("<4B3I", 2, 1, 1, 1, 1 << 30, 1 << 20, 32) + bytes(16), "claim"),
        ("zstd", b"\x28\xb5\x2f\xfd\x00\x58" + b"\xfa\xff\x1f\x00" * 40 + b"\xfb\xff\x1f\x00", "claim"),
        ("zstd", b"rubbish", "no Zstandard"),
        ("gzip", b"rubbish", "damaged"),
        ("blosc", b"rubbish", "no whole"),
    ],
    ids=["gzip bomb", "zstd bomb", "blosc bomb", "zstd runs", "no zstd", "no gzip", "no blosc"],
)
def test_bombs_and_rubbish_end_at_what_a_chunk_can_hold(codec, raw, word, tmp_path):
    codecs = ["bytes", {"name": codec, "configuration": {"level": 1}}]
    grid = {"name": "regular", "configuration": {"chunk_shape": [100]}}
    (tmp_path / "zarr.json").write_text(json.dumps({**METADATA, "shape": [1000], "chunk_grid": grid, "codecs": codecs}))
    (tmp_path / "c").mkdir()
    (tmp_path / "c/0").write_bytes(raw[:4000])
    (entry,) = open_checkpoint(str(tmp_path)).tensors
    with pytest.raises(TensorError, match=word):
        Source(entry, {}, "auto").read(0, 4)


@pytest.mark.parametrize(
    ("how", "place", "word"),
    [
        ({"compressors": [zarr.codecs.Crc32cCodec()]}, 40, r"the chunk at \[0, 0\]: the checksum of the chunk is not"),
        ({"compressors": None, "shards": (128, 80)}, -30, "the checksum of the index of the shard c/0/0 is not"),
    ],
    ids=["chunk", "index of a shard"],
)
def test_a_checksum_that_is_not_that_of_the_bytes_is_an_error(how, place, word, tmp_path):
    write(tmp_path / "w.zarr", 3, {"w": WIDE}, (64, 40), **how)
    path = tmp_path / "w.zarr/w/c/0/0"
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    (entry,) = open_checkpoint(str(tmp_path / "w.zarr")).tensors
    with pytest.raises(TensorError, match=word) as caught:
        Source(entry, {}, "auto").read(0, 4)
    assert caught.value.path == str(tmp_path / "w.zarr/w/zarr.json")


def test_chunks_that_are_no_files_or_of_another_size(tmp_path):
    grid = {"name": "regular", "configuration": {"chunk_shape": [100]}}
    for name in ("pipe", "short"):
        (tmp_path / name / "c").mkdir(parents=True)
        (tmp_path / name / "zarr.json").write_text(json.dumps({**METADATA, "shape": [200], "chunk_grid": grid}))
    os.mkfifo(tmp_path / "pipe/c/0")
    (tmp_path / "short/c/1").write_bytes(bytes(399))
    (tmp_path / ".zgroup").write_text("{}")
    assert all("a chunk takes 400" in error.message for error in open_checkpoint(str(tmp_path)).errors)


def test_links_that_form_a_loop_are_walked_once(tmp_path):
    write(tmp_path / "w.zarr", 3, {"a": WIDE})
    (tmp_path / "w.zarr/again").symlink_to(tmp_path / "w.zarr")
    found = open_checkpoint(str(tmp_path / "w.zarr"))
    assert [entry.name for entry in found.tensors] == ["a"]
    assert [oddity.code for oddity in found.oddities] == ["not_walked"]


def test_an_empty_group_is_an_error(tmp_path):
    zarr.open_group(tmp_path / "w.zarr", mode="w")
    with pytest.raises(FormatError, match="no arrays"):
        open_checkpoint(str(tmp_path / "w.zarr"))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "0x7fc00001", 1.5, -0.0])
def test_fill_values(value):
    expected = {"0x7fc00001": struct.pack("<I", 0x7FC00001)}.get(value)
    array = parse_array(json.dumps({**METADATA, "fill_value": value}).encode(), 3)
    assert array.fill == (expected or (bytes(4) if value == 0 else struct.pack("<f", float(value))))


def test_bfloat16_fill_values_are_rounded_to_even():
    for value in (1.5, 3.14159, -2.71828, 1e-3):
        array = parse_array(json.dumps({**METADATA, "data_type": "bfloat16", "fill_value": value}).encode(), 3)
        assert array.fill == np.array(value, ml_dtypes.bfloat16).tobytes()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, 1 << 20])
def test_the_bound_of_zstd_holds(size):
    raw = numcodecs.Zstd().encode(RANDOM.integers(0, 9, size).astype("u1")) if size else numcodecs.Zstd().encode(b"")
    assert zstd_bound(bytes(raw)) == size


@pytest.mark.parametrize("how", [{}, {"shards": (128, 40)}, {"compressors": None}], ids=str)
def test_mutated_stores_end_cleanly(how, tmp_path):
    write(tmp_path / "w.zarr", 3, {"w": WIDE}, (64, 20), **how)
    draw, begin, files = random.Random(13), time.perf_counter(), [p for p in (tmp_path / "w.zarr").rglob("*") if p.is_file()]
    read = 0
    for _ in range(300):
        path = draw.choice(files)
        source = path.read_bytes()
        raw = bytearray(source)
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(raw))
            if draw.random() < 0.7:
                raw[place] = draw.randrange(256)
            else:
                del raw[max(place, 1) :]
        path.write_bytes(raw)
        try:
            found = open_checkpoint(str(tmp_path / "w.zarr"))
            for entry in found.tensors:
                read += Source(entry, found.stamps, "auto").read(0, min(entry.numel, 40_000)).size > 0
        except DiffaiError:
            pass
        path.write_bytes(source)
    assert read > 50
    assert time.perf_counter() - begin < 60
