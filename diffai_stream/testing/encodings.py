"""What every encoding keeps, as a class to inherit from in a test module that pytest runs:

    class TestLog8(EncodingContract):
        row = ENCODING

A quantized one (with a `decoder`) also gives `samples`: entries, the bytes of their components, and the values they stand for.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Encoding, Quantized
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.encodings.decode import decoded
from diffai_stream.testing.checkpoints import taking_part


class Sample(NamedTuple):
    """A stored tensor: its entry, the bytes of each component, and its values as float32 in C order."""

    entry: Quantized
    stored: Mapping[str, NDArray[np.uint8]]
    values: NDArray[np.float32]


class EncodingContract:
    """Checks for one row of the encodings."""

    row: ClassVar[Encoding]
    tolerance: ClassVar[float] = 0.0

    def samples(self) -> Iterable[Sample]:
        """Tensors of a quantized encoding; nothing for a plain one, whose codes are all tried."""
        return ()

    def test_the_row_is_sound(self) -> None:
        """Bits are positive, values have a range, and the row is the same on a worker."""
        row = self.row
        assert row.name
        assert row.bits > 0
        assert row.components in (1, 2)
        assert row.pattern_bits in (0, 8, 16)
        copy = pickle.loads(pickle.dumps(row))
        assert (copy.name, copy.bits, hash(copy)) == (row.name, row.bits, hash(row))
        np.testing.assert_array_equal(copy.table(), row.table())
        assert row.nbytes(0) == 0
        assert row.nbytes(8) == row.bits

    def test_it_can_be_looked_up(self) -> None:
        """The catalogue gives this row by its name."""
        with taking_part(ENCODINGS, self.row):
            assert ENCODINGS[self.row.name] == self.row

    def test_every_code_has_its_value(self) -> None:
        """Where codes are counted one by one, each decodes to the value it is counted as; finite ones are in the range."""
        if not self.row.pattern_bits:
            return
        codes = np.arange(1 << self.row.pattern_bits, dtype=np.uint16 if self.row.pattern_bits == 16 else np.uint8)
        values = decoded(codes.view(np.uint8), self.row, codes.size)
        with np.errstate(invalid="ignore"):  # signalling NaN patterns
            np.testing.assert_array_equal(values.astype(np.float64), self.row.pattern_values())
        finite = values[np.isfinite(values)].astype(np.float64)
        if self.row.max_finite:
            assert finite.max() == self.row.max_finite
            assert finite.min() >= self.row.min_finite

    def test_a_table_has_every_byte(self) -> None:
        """A table of values has 256 of them, float32; spread codes are bytes, one an element."""
        if self.row.values is not None:
            assert self.row.table().shape == (256,)
            assert self.row.table().dtype == np.float32
        if self.row.unpack is not None:
            for numel in (1, 7, 8, 33):
                raw = np.arange(self.row.nbytes(-(-numel // 24) * 24), dtype=np.uint8)
                spread = self.row.unpack(raw, numel)
                assert spread.dtype == np.uint8
                assert spread.shape == (numel,)
                assert int(spread.max(initial=0)) < 1 << self.row.bits

    def test_samples_decode_to_their_values(self) -> None:
        """A decoder gives the values, and any cut at its blocks the same bits; it reads nothing outside of a component."""
        samples = list(self.samples())
        assert bool(samples) == bool(self.row.decoder), "a quantized encoding needs samples, a plain one has none"
        for sample in samples:
            numel = prod(sample.entry.stored_shape)
            decoder = self.row.open_decoder(sample.entry, reader(sample.stored))
            whole = decoder.decode(0, numel)
            assert whole.dtype == np.float32
            assert whole.shape == (numel,)
            np.testing.assert_allclose(whole, sample.values.reshape(-1), rtol=self.tolerance, atol=0)
            for cut in range(0, numel + 1, decoder.block * max(1, numel // decoder.block // 7)):
                parts = [decoder.decode(0, cut), decoder.decode(cut, numel)]
                assert np.concatenate(parts).tobytes() == whole.tobytes(), cut


def reader(stored: Mapping[str, NDArray[np.uint8]]) -> Any:
    """Reads ranges of components, as the engine lets a decoder do; a range outside of one is an error of the decoder."""

    def read(component: str, start: int, stop: int) -> NDArray[np.uint8]:
        raw = stored[component]
        assert 0 <= start <= stop <= raw.size, f"{component}: {start} to {stop} of {raw.size} bytes"
        return raw[start:stop]

    return read
