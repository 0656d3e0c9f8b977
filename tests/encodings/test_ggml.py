"""Blocks of ggml against the gguf package: every type, all bit patterns, real values, any run of blocks."""

from __future__ import annotations

import sys
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.encodings.ggml import GGML, TYPES, GgmlType
from diffai_stream.errors import MissingExtraError, TensorError
from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.storage.extent import Extent

BLOCKED = [row for row in TYPES.values() if row.block > 1 and row.encoding]
KNOWN = [row for row in BLOCKED if row.name != "Q1_0"]  # the package knows its size only
WRITABLE = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")


def opened(kind: GgmlType, raw: np.ndarray, columns: int, nbytes: int | None = None) -> Any:
    """A decoder over the bytes of a matrix."""
    shape = (raw.size // kind.nbytes * kind.block // columns, columns)
    component = Component((Extent("x.gguf", 0, raw.size if nbytes is None else nbytes),), "U8", shape)
    entry = TensorEntry("w", shape, kind.encoding, {"data": component})
    return ENCODINGS[kind.encoding].open_decoder(entry, lambda name, start, stop: raw[start:stop])


def expected(kind: GgmlType, raw: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return dequantize(raw.reshape(-1, kind.nbytes), gguf.GGMLQuantizationType(kind.number)).reshape(-1)


def same_bits(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal bits; any NaN for a NaN."""
    assert found.dtype == wanted.dtype == np.float32
    differs = (found.view(np.uint32) != wanted.view(np.uint32)) & ~(np.isnan(found) & np.isnan(wanted))
    assert not differs.any(), (np.flatnonzero(differs)[:5], found[differs][:5], wanted[differs][:5])


def random_bytes(kind: GgmlType, blocks: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, blocks * kind.nbytes, dtype=np.uint8)


@pytest.mark.parametrize("kind", TYPES.values(), ids=lambda kind: kind.name)
def test_sizes_are_those_of_the_package(kind):
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind.number)] == (kind.block, kind.nbytes)
    assert gguf.GGMLQuantizationType(kind.number).name == kind.name


def test_every_type_of_the_package_is_known_or_told():
    numbers = {kind.value for kind in gguf.GGMLQuantizationType}
    assert numbers - TYPES.keys() == {9}  # Q8_1


@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: kind.name)
def test_all_bit_patterns(kind):
    raw = random_bytes(kind, 1500)
    found = opened(kind, raw, kind.block * 3).decode(0, 1500 * kind.block)
    same_bits(found, expected(kind, raw))
    assert kind.name in ("MXFP4", "NVFP4") or np.isnan(found).any()  # scales that are NaN or infinite are among them


@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: kind.name)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_run_of_blocks(kind, data):
    raw = random_bytes(kind, 70, data.draw(st.integers(0, 2**32)))
    start = data.draw(st.integers(0, 70))
    stop = data.draw(st.integers(start, 70))
    found = opened(kind, raw, kind.block * 7).decode(start * kind.block, stop * kind.block)
    same_bits(found, expected(kind, raw)[start * kind.block : stop * kind.block])


@pytest.mark.parametrize("name", WRITABLE)
def test_real_values(name):
    kind = next(row for row in KNOWN if row.name == name)
    values = np.random.default_rng(1).normal(0, 0.02, (64, 1024)).astype(np.float32)
    values[3], values[4, :5] = 0, 70_000  # a row of zeros, and a scale beyond half precision
    with np.errstate(all="ignore"):
        raw = quantize(values, gguf.GGMLQuantizationType[name]).reshape(-1)
    found = opened(kind, raw, 1024).decode(0, values.size)
    same_bits(found, expected(kind, raw))


def test_one_bit_codes():
    kind = next(row for row in BLOCKED if row.name == "Q1_0")
    signs = np.random.default_rng(2).integers(0, 2, (5, 128), dtype=np.uint8)
    scales = np.array([0.5, -2.0, 0.0, 65504.0, np.nan], np.float16)
    raw = np.concatenate([scales.view(np.uint8).reshape(5, 2), np.packbits(signs, axis=1, bitorder="little")], axis=1)
    found = opened(kind, raw.reshape(-1), 128).decode(0, 640).reshape(5, 128)
    same_bits(found, scales.astype(np.float32)[:, None] * (signs.astype(np.float32) * 2 - 1))


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ1_M"])
def test_lookup_types_say_what_to_install(name, monkeypatch):
    kind = next(row for row in KNOWN if row.name == name)
    decoder = opened(kind, random_bytes(kind, 4), kind.block)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'diffai-stream\[formats\]'") as caught:
        decoder.decode(0, kind.block)
    assert caught.value.tensor == "w"


def test_bytes_that_contradict_the_shape():
    kind = next(row for row in KNOWN if row.name == "Q8_0")
    raw = random_bytes(kind, 8)
    with pytest.raises(TensorError, match="holds 100 bytes"):
        opened(kind, raw, 64, nbytes=100)
    with pytest.raises(TensorError, match="no whole number of blocks"):
        opened(kind, raw, 8)
    with pytest.raises(TensorError, match="fewer bytes"):
        opened(kind, raw[:-1].copy(), 32, nbytes=7 * 34).decode(0, 256)


def test_rows_of_the_catalogue():
    assert {row.encoding for row in BLOCKED} == {row.name for row in GGML}
    for row in GGML:
        assert row.family == "quantized"
        assert row.decoder
        assert 1 <= row.bits <= 8
