"""Repeated numbers of a message as extents: packed in one field, in several, or with a key before each.

Writers pack them, parsers must take all three ("Packed Repeated Fields" of the encoding guide). Numbers of fixed size lie as
they do in memory; varints are decoded when they are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from diffai_stream.formats.wire import BYTES, FIXED32, FIXED64, VARINT, Field, Wire
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.records import of_records
from diffai_stream.storage.varints import SIXES, count_varints, packed

_MAX_RUNS = 1024
_COUNTED_NBYTES = 1 << 16
_SIZES = {FIXED32: 4, FIXED64: 8}


@dataclass
class _Run:
    """Values that lie end to end: packed in one field, or `count` fields with keys, from the first key on."""

    wire: int
    offset: int
    nbytes: int
    count: int = 0


@dataclass
class Values:
    """The values of one repeated field, as they are met."""

    runs: list[_Run] = field(default_factory=list)

    def add(self, wire: Wire, found: Field) -> None:
        """Take the field that `wire` has just given. Raises ValueError when the values are scattered."""
        number, form, offset, value = found
        start = offset if form == BYTES else offset - _key_nbytes(number, form)
        last = self.runs[-1] if self.runs else None
        if last and form != BYTES and last.wire == form and last.offset + last.nbytes == start:
            last.nbytes, last.count = wire.end - last.offset, last.count + 1
        elif len(self.runs) == _MAX_RUNS:
            raise ValueError(f"its values lie in more than {_MAX_RUNS} pieces")
        else:
            self.runs.append(_Run(form, start, wire.end - start if form != BYTES else value, int(form != BYTES)))

    def count(self, path: str, itemsize: int) -> int:
        """How many there are: numbers of `itemsize` bytes, or varints when that is 0. Raises TensorError for damaged ones."""
        total = 0
        for run in self.runs:
            if run.wire == BYTES:
                total += run.nbytes // itemsize if itemsize else count_varints(path, run.offset, run.nbytes)
            total += run.count
        return total

    def fixed(self, path: str, itemsize: int) -> tuple[Extent, ...]:
        """Extents of floats or doubles. Raises ValueError for other wire types."""
        extents = []
        for run in self.runs:
            if run.wire == BYTES and run.nbytes % itemsize == 0:
                extents.append(Extent(path, run.offset, run.nbytes))
            elif _SIZES.get(run.wire) == itemsize:
                extents.append(of_records(path, run.offset, run.count, run.nbytes // run.count, itemsize))
            else:
                raise ValueError(f"its values at offset {run.offset} are not numbers of {itemsize} bytes")
        return tuple(extents)

    def varints(self, path: str, dtype: str, count: int, nbytes: int) -> tuple[Extent, ...]:
        """Extents of integers as `dtype`: `count` values are due, which take `nbytes` bytes decoded.

        Those of a long and lone packed run are counted when they are read. Raises ValueError for other wire types and for
        runs that do not hold so many, TensorError for damaged ones.
        """
        if len(self.runs) == 1 and self.runs[0].wire == BYTES:
            run = self.runs[0]
            if not count <= run.nbytes <= 10 * count:
                raise ValueError(f"{count} values are due, which {run.nbytes} bytes of varints cannot be")
            if run.nbytes <= _COUNTED_NBYTES and (there := count_varints(path, run.offset, run.nbytes)) != count:
                raise ValueError(f"{count} values are due, {there} are there")
            return (packed(path, run.offset, run.nbytes, dtype, nbytes),)
        if dtype == SIXES:
            raise ValueError("its 6-bit values do not lie in one piece")
        return tuple(self._counted(path, run, dtype) for run in self.runs)

    def _counted(self, path: str, run: _Run, dtype: str) -> Extent:
        if run.wire not in (BYTES, VARINT):
            raise ValueError(f"its values at offset {run.offset} are no integers")
        keyed = run.wire == VARINT
        count = run.count if keyed else count_varints(path, run.offset, run.nbytes)
        return packed(path, run.offset, run.nbytes, dtype, count * np.dtype(dtype).itemsize, 2 if keyed else 1)


def _key_nbytes(number: int, form: int) -> int:
    return max(1, -(-(number << 3 | form).bit_length() // 7))
