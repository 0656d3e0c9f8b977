"""Numbers as protobuf stores them: packed and unpacked varints, records with keys, one number repeated."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.errors import TensorError
from diffai_stream.storage import varints
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.fill import filled
from diffai_stream.storage.records import of_records
from diffai_stream.storage.varints import count_varints, decoded, packed
from diffai_stream.storage.windows import read_window
from tests.messages import FIXED32, VARINT, key, varint


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(varints, "BLOCK_NBYTES", 23)


def stored(folder, values, dtype, step=1, before=b""):
    raw = b"".join(before + varint(int(value)) for value in values)
    (folder / "x").write_bytes(b"head" + raw + b"\x01\x02")
    nbytes = len(values) * np.dtype(dtype).itemsize
    return packed(str(folder / "x"), 4, len(raw), dtype, nbytes, step)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_decoding(numbers):
    raw = np.frombuffer(b"".join(map(varint, numbers)), np.uint8)
    assert decoded(raw).tolist() == numbers


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("step", [1, 2])
def test_any_range_across_blocks(tmp_path, small_blocks, dtype, step):
    limits = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(limits.min, limits.max, 200, dtype, endpoint=True)
    values[:3] = limits.min, limits.max, 0
    extent = stored(tmp_path, values, dtype, step, key(5, VARINT) if step == 2 else b"")
    raw = values.view(np.uint8)
    for start, stop in ((0, raw.size), (0, 1), (17, 40), (raw.size - 3, raw.size), (9, 9)):
        assert np.array_equal(read_window(extent, start, stop, None), raw[start:stop])
    assert count_varints(extent.path, 4, int(extent.codec.split(":")[1])) == 200 * step


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 61])
def test_codes_of_six_bits(tmp_path, small_blocks, count):
    codes = np.random.default_rng(count).integers(0, 64, count)
    bits = "".join(f"{code:06b}"[::-1] for code in codes)
    meant = [int(bits[at : at + 8].ljust(8, "0")[::-1], 2) for at in range(0, len(bits), 8)]
    extent = stored(tmp_path, codes, "u1")
    extent = packed(extent.path, 4, count, "u6", len(meant))
    for start, stop in ((0, len(meant)), (len(meant) - 1, len(meant)), (len(meant) // 2, len(meant))):
        assert read_window(extent, start, stop, None).tolist() == meant[start:stop]


def test_too_few_values(tmp_path):
    extent = stored(tmp_path, [1, 2, 3], "i4")
    with pytest.raises(TensorError, match="3 values are stored where 4"):
        read_window(extent._replace(nbytes=16), 0, 16, None)


@pytest.mark.parametrize("raw", [b"\x01\xff", b"\x01" + b"\xff" * 11 + b"\x01", b"\x01" + b"\x80" * 100_000])
def test_damage_is_told_with_its_place(tmp_path, raw):
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(TensorError, match="cut off or has more than 10") as caught:
        read_window(packed(str(tmp_path / "x"), 0, len(raw), "i4", 4), 0, 4, None)
    assert caught.value.offset == 1


def test_a_changed_file_is_counted_anew(tmp_path):
    assert read_window(stored(tmp_path, [300] * 9, "i4"), 32, 36, None).view(np.int32) == 300
    extent = stored(tmp_path, [5] * 18, "i4")
    os.utime(tmp_path / "x", ns=(1, 1))
    assert read_window(extent, 0, 72, None).view(np.int32).tolist() == [5] * 18


def test_records_with_keys(tmp_path):
    values = np.arange(10, dtype=np.float32)
    (tmp_path / "x").write_bytes(b"odd" + b"".join(key(7, FIXED32) + value.tobytes() for value in values))
    extent, raw = of_records(str(tmp_path / "x"), 3, 10, 5, 4), values.view(np.uint8)
    for start, stop in ((0, 40), (3, 9), (36, 40)):
        assert np.array_equal(read_window(extent, start, stop, None), raw[start:stop])
    with pytest.raises(TensorError, match="ends at byte 53"):
        read_window(extent._replace(nbytes=44), 40, 44, None)


def test_one_number_repeated(tmp_path):
    (tmp_path / "x").write_bytes(b"odd!\x01\x02\x03\x04" + varint(7) + varint(300))
    meant = bytes([1, 2, 3, 4] * 5)
    extent = filled(Extent(str(tmp_path / "x"), 0, 8), 4, 20)
    for start, stop in ((0, 20), (3, 9), (19, 20), (4, 4)):
        assert read_window(extent, start, stop, None).tobytes() == meant[start:stop]
    below = filled(packed(str(tmp_path / "x"), 8, 3, "u2", 4), 2, 2**40)
    assert read_window(below, 2**40 - 4, 2**40, None).view(np.uint16).tolist() == [300, 300]
    assert not read_window(filled(Extent(str(tmp_path / "x"), 3, 0), 4, 100), 50, 100, None).any()
