"""Entries read through strides, regions and decoders, against NumPy."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffai_stream.encodings import catalogue
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import TensorError
from diffai_stream.formats.base import Component, Region, TensorEntry
from diffai_stream.plan.sources import Source, check_size, scanned_encoding
from diffai_stream.storage.extent import Extent

SHAPE = (6, 4, 10)


def stored_entry(path, values: np.ndarray, encoding: str, **more) -> TensorEntry:
    path.write_bytes(values.tobytes())
    extent = Extent(str(path), 0, values.nbytes)
    return TensorEntry("t", values.shape, encoding, {"data": Component((extent,), encoding, values.shape)}, **more)


def numbers(entry: TensorEntry, start: int, stop: int) -> np.ndarray:
    raw = Source(entry, {}, "auto").read(start, stop)
    assert not raw.flags.writeable
    return raw.view({"F32": np.float32, "F64": np.float64, "BF16": ml_dtypes.bfloat16}[scanned_encoding(entry).name])


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def test_a_region_is_a_view_of_the_stored_tensor(tmp_path, values):
    entry = stored_entry(tmp_path / "x", values, "F32")
    view = values[1:5, ::2].transpose(2, 0, 1)
    region = Region(SHAPE, view.shape, (1, 40, 20), 40)
    seen = entry._replace(shape=view.shape, region=region)
    check_size(seen)
    assert np.array_equal(numbers(seen, 7, 60), view.reshape(-1)[7:60])
    assert seen.stored_nbytes == values.nbytes * view.size // values.size


@pytest.mark.parametrize(
    ("dtype", "encoding", "scanned"), [("f4", "F32", "F32"), ("f8", "F64", "F64"), ("bf16", "BF16", "F32")]
)
def test_an_offset_is_added_before_the_scan(tmp_path, values, dtype, encoding, scanned):
    kept = values.astype(ml_dtypes.bfloat16 if dtype == "bf16" else dtype)
    entry = stored_entry(tmp_path / "x", kept, encoding)._replace(region=Region(SHAPE, SHAPE, (40, 10, 1), 0, -1.0))
    assert scanned_encoding(entry).name == scanned
    wide = kept.astype(np.float64 if encoding == "F64" else np.float32)
    assert np.array_equal(numbers(entry, 3, 99), (wide - wide.dtype.type(1)).reshape(-1)[3:99])


def test_strides_then_region(tmp_path, values):
    """A column-major array of which one row is compared."""
    entry = stored_entry(tmp_path / "x", np.asfortranarray(values).T, "F32")
    component = entry.components["data"]._replace(shape=SHAPE, strides=(1, 6, 24))
    entry = entry._replace(shape=SHAPE, components={"data": component})
    assert np.array_equal(numbers(entry, 11, 200), values.reshape(-1)[11:200])
    row = entry._replace(shape=(4, 10), region=Region(SHAPE, (4, 10), (10, 1), 2 * 40))
    assert np.array_equal(numbers(row, 0, 40), values[2].reshape(-1))


class Halves:
    """A quantized encoding for tests: int8 codes, one float32 scale for 8 codes."""

    block = 8

    def __init__(self, entry, read):
        self.read, self.asked = read, []

    def decode(self, start: int, stop: int) -> np.ndarray:
        assert start % 8 == 0
        self.asked.append((start, stop))
        codes = self.read("data", start, stop).view(np.int8).astype(np.float32)
        scales = self.read("scales", start // 8 * 4, -(-stop // 8) * 4).copy().view(np.float32)
        return codes * np.repeat(scales, 8)[: codes.size]


@pytest.fixture
def quantized(tmp_path, monkeypatch):
    row = replace(ENCODINGS["I8"], name="HALVES", family="quantized", pattern_bits=0, kind=ENCODINGS["F32"].kind)
    monkeypatch.setitem(catalogue.ENCODINGS, "HALVES", replace(row, decoder=f"{__name__}:Halves"))
    codes = np.random.default_rng(1).integers(-127, 127, SHAPE).astype(np.int8)
    scales = np.linspace(0.5, 2, 30).astype(np.float32)
    entry = stored_entry(tmp_path / "codes", codes, "HALVES")
    (tmp_path / "scales").write_bytes(scales.tobytes())
    component = Component((Extent(str(tmp_path / "scales"), 0, scales.nbytes),), "F32", (30,))
    return entry._replace(components={**entry.components, "scales": component}), codes * np.repeat(scales, 8).reshape(SHAPE)


def test_quantized_values_are_scanned_as_float32(quantized, monkeypatch):
    entry, values = quantized
    monkeypatch.setattr(ENCODINGS["HALVES"].__class__, "open_decoder", lambda self, e, read: Halves(e, read))
    assert scanned_encoding(entry).name == "F32"
    check_size(entry)
    assert np.array_equal(numbers(entry, 5, 203), values.reshape(-1)[5:203].astype(np.float32))
    view = entry._replace(shape=(10, 4), region=Region(SHAPE, (10, 4), (1, 10), 80))
    assert np.array_equal(numbers(view, 1, 39), values[2].T.reshape(-1)[1:39].astype(np.float32))
    assert entry.stored_nbytes == 240 + 120


@given(st.integers(0, 29), st.integers(0, 29))
def test_packed_codes_may_be_cut_anywhere(tmp_path_factory, a, b):
    path = tmp_path_factory.mktemp("packed") / "x"
    codes = np.random.default_rng(2).integers(0, 16, 30).astype(np.uint8)
    path.write_bytes((codes[::2] | codes[1::2] << 4).tobytes())
    entry = TensorEntry("t", (30,), "F4", {"data": Component((Extent(str(path), 0, 15),), "F4", (30,))})
    start, stop = sorted((a, b))
    assert np.array_equal(Source(entry, {}, "auto").read(start, stop), codes[start:stop])


def test_too_few_bytes_for_the_strides_are_refused(tmp_path, values):
    entry = stored_entry(tmp_path / "x", values, "F32")
    component = entry.components["data"]._replace(strides=(40, 10, 2))
    with pytest.raises(TensorError, match="need"):
        check_size(entry._replace(components={"data": component}))
