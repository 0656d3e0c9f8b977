"""Extents that are decoded: byte order, data spilled to disk, and what is said when that cannot be done."""

from __future__ import annotations

import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from diffai_stream.errors import TensorError
from diffai_stream.storage import spill
from diffai_stream.storage.codecs import CODECS, reader
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.spill import spilled
from diffai_stream.storage.swap import swapped
from diffai_stream.storage.windows import read_window

NUMBERS = np.random.default_rng(1).integers(0, 255, 240_000, np.uint8)


def deflated(folder, skip=7):
    """A spilled extent of NUMBERS, after some bytes that are not part of it."""
    stream = zlib.compressobj(wbits=-15)
    raw = stream.compress(bytes(skip) + NUMBERS.tobytes()) + stream.flush()
    (folder / "x").write_bytes(b"head" + raw + b"tail")
    return spilled(Extent(str(folder / "x"), 4, NUMBERS.size, f"deflate:{skip}:{len(raw)}"))


@pytest.mark.parametrize("word", CODECS)
def test_every_codec_has_a_reader(word):
    assert callable(reader(word))


def test_an_unknown_codec_is_named(tmp_path):
    with pytest.raises(TensorError, match="'lzw' is not known"):
        read_window(Extent(str(tmp_path), 0, 4, "lzw:1"), 0, 4, None)


@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_swapped_numbers_are_read_from_any_byte(itemsize, tmp_path):
    (tmp_path / "x").write_bytes(b"odd" + NUMBERS.view(f"<u{itemsize}").astype(f">u{itemsize}").tobytes())
    extent = swapped(Extent(str(tmp_path / "x"), 3, NUMBERS.size), itemsize)
    for start, stop in ((0, NUMBERS.size), (itemsize, 3 * itemsize), (5, 11), (0, 0)):
        assert np.array_equal(read_window(extent, start, stop, None), NUMBERS[start:stop])


def test_single_bytes_have_no_order():
    assert swapped(Extent("x", 0, 4), 1).codec == ""


def test_spilled_data_is_read_anywhere_by_many_threads_and_inflated_once(tmp_path, monkeypatch):
    extent, calls = deflated(tmp_path), []
    fill = spill._filled
    monkeypatch.setattr(spill, "_filled", lambda extent: calls.append(extent) or fill(extent))
    ranges = [(start, start + 10_000) for start in range(0, 230_000, 999)]
    with ThreadPoolExecutor(4) as pool:
        pieces = list(pool.map(lambda ends: read_window(extent, *ends, None), ranges))
    assert all(np.array_equal(piece, NUMBERS[a:b]) for piece, (a, b) in zip(pieces, ranges, strict=True))
    assert len(calls) == 1


def test_few_spilled_files_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "KEPT_FILES", 2)
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        assert np.array_equal(read_window(deflated(tmp_path / str(number)), 3, 9, None), NUMBERS[3:9])
    assert len(spill._files) == 2


def test_swapped_spilled_data(tmp_path):
    values = NUMBERS.view(">u4")[100:200].astype("<u4").view(np.uint8)
    assert np.array_equal(read_window(swapped(deflated(tmp_path), 4), 400, 800, None), values)


def test_a_file_written_anew_is_inflated_anew(tmp_path):
    extent = deflated(tmp_path)
    read_window(extent, 0, 8, None)
    stream = zlib.compressobj(level=0, wbits=-15)
    raw = stream.compress(bytes(7 + NUMBERS.size)) + stream.flush()
    (tmp_path / "x").write_bytes(b"head" + raw)
    again = extent._replace(codec=f"spill:deflate:7:{len(raw)}")
    assert not read_window(again, 0, 8, None).any()


def test_a_full_disk_is_an_error_with_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1000))
    with pytest.raises(TensorError, match=r"240000 bytes of temporary space.*has 1000; set TMPDIR"):
        read_window(deflated(tmp_path), 0, 8, None)


@pytest.mark.parametrize("flaw", ["cut", "garbled"])
def test_damaged_data_is_an_error_each_time_it_is_read(flaw, tmp_path):
    extent = deflated(tmp_path)
    raw = bytearray((tmp_path / "x").read_bytes())
    if flaw == "cut":
        del raw[1000:]
    else:
        raw[4:40] = b"\xff" * 36
    (tmp_path / "x").write_bytes(raw)
    for _ in range(2):
        with pytest.raises(TensorError) as caught:
            read_window(extent, 0, 8, None)
        assert caught.value.path == str(tmp_path / "x")


def test_a_stream_that_is_asked_for_out_of_order_is_spilled(tmp_path):
    extent = deflated(tmp_path)
    stream = extent._replace(codec=extent.codec.removeprefix("spill:"))
    for start, stop in ((200_000, 200_009), (5, 11)):
        assert np.array_equal(read_window(stream, start, stop, None), NUMBERS[start:stop])
