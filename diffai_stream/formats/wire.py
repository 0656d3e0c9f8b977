"""The wire format of protobuf, walked without a schema: where each field lies, its bytes never copied.

Encoding: protobuf.dev, "Encoding". A message is a run of fields; a key (varint: number << 3 | wire type) stands before each.
The file is read through one small buffer, so that a field of gigabytes costs as much as one of bytes. Damage does not end
the walk: a length that reaches past the end of its message is cut there, the damage is kept for the caller, and all that
lies before it is still found, which is how most of a truncated file is still compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import FileIO

from diffai_stream.errors import FormatError
from diffai_stream.formats.inert import read_exactly

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 8_000_000  # a graph of 50,000 nodes has half a million
MAX_DEPTH = 64  # of messages in messages, counted by those who descend
MAX_TEXT_NBYTES = 1 << 16
BUFFER_NBYTES = 1 << 16
_TOLD = 8
_LONGEST = 20  # bytes of a key and a varint
_FIXED_NBYTES = {FIXED32: 4, FIXED64: 8}
_CUT_OFF = "the bytes end within a varint"
_MASK = (1 << 64) - 1

Field = tuple[int, int, int, int]
"""number, wire type, offset in the file, and the value of a varint or else the number of bytes from that offset on."""


class Wire:
    """One file of messages: `fields` walks one of them, `damage` is what could not be walked."""

    def __init__(self, file: FileIO, nbytes: int, path: str, max_fields: int = MAX_FIELDS) -> None:
        self.path, self.nbytes = path, nbytes
        self._file = file
        self._buffer, self._base = b"", 0
        self.end = 0  # of the field that was walked last
        self._max_fields = self._left = max_fields
        self._damage: list[FormatError] = []
        self._untold = 0

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """The fields of the message in bytes [start, stop), in order, up to the first damage."""
        position = start
        while position < stop:
            self._left -= 1
            if self._left < 0:
                if self._left == -1:
                    self.fail(f"more than {self._max_fields} fields are not plausible: the rest is not read", position)
                return
            if not self._base <= position <= self._base + len(self._buffer) - _LONGEST:
                self._fill(position)
            buffer, at = self._buffer, position - self._base
            try:
                key, at = (buffer[at], at + 1) if buffer[at] < 0x80 else varint(buffer, at)
                wire, place = key & 7, at
                if wire == BYTES:
                    value, place = (buffer[at], at + 1) if buffer[at] < 0x80 else varint(buffer, at)
                    end = place + value
                elif wire == VARINT:
                    value, end = varint(buffer, at)
                elif wire in _FIXED_NBYTES:
                    value = _FIXED_NBYTES[wire]
                    end = at + value
                else:
                    key = 0
            except (ValueError, IndexError) as error:
                self.fail(str(error) if isinstance(error, ValueError) else _CUT_OFF, position)
                return
            number = key >> 3
            if not 0 < number < 1 << 29:
                self.fail("no field begins here", position)
                return
            place, end = place + self._base, end + self._base
            if end > stop:
                what = "file" if stop >= self.nbytes else "message"
                self.fail(
                    f"field {number} claims {end - place} bytes, its {what} ends {end - stop} bytes before that", position
                )
                if wire != BYTES:
                    return
                value, end = max(0, stop - place), stop
            self.end = position = end
            yield number, wire, place, value

    def read(self, offset: int, nbytes: int) -> bytes:
        """Bytes of the file; only for small pieces. Raises FormatError when the file is shorter."""
        at = offset - self._base
        if at >= 0 and at + nbytes <= len(self._buffer):
            return self._buffer[at : at + nbytes]
        return read_exactly(self._file, offset, nbytes, self.path)

    def text(self, offset: int, nbytes: int) -> str:
        """A string field; what is not UTF-8 is escaped. Raises ValueError for one of more than 64 KiB."""
        if nbytes > MAX_TEXT_NBYTES:
            raise ValueError(f"a text of {nbytes} bytes at offset {offset} is not plausible (at most {MAX_TEXT_NBYTES})")
        return self.read(offset, nbytes).decode("utf-8", "backslashreplace")

    def integers(self, field: Field, limit: int) -> list[int]:
        """The values of a repeated integer field, packed or not, signed, at most `limit` + 1. Raises ValueError if damaged."""
        _, wire, offset, value = field
        if wire == VARINT:
            return [signed(value)]
        if wire != BYTES:
            raise ValueError(f"integers at offset {offset} are of wire type {wire}")
        raw, at, found = self.read(offset, min(value, 10 * (limit + 1))), 0, list[int]()
        while at < len(raw) and len(found) <= limit:
            number, at = varint(raw, at)
            found.append(signed(number))
        return found

    def last(self, start: int, stop: int) -> dict[int, Field]:
        """The fields of a message by number, the last of each: how protobuf reads what is not repeated."""
        return {field[0]: field for field in self.fields(start, stop)}

    def fail(self, message: str, offset: int) -> None:
        """Keep damage at an offset; after the first few it is only counted."""
        if len(self._damage) < _TOLD:
            self._damage.append(FormatError(message, path=self.path, offset=offset))
        else:
            self._untold += 1

    def damage(self) -> list[FormatError]:
        """What was damaged, in the order it was met."""
        if self._untold:
            return [*self._damage, FormatError(f"{self._untold} more places are damaged", path=self.path)]
        return list(self._damage)

    def _fill(self, position: int) -> None:
        self._base = position
        self._buffer = read_exactly(self._file, position, min(BUFFER_NBYTES, self.nbytes - position), self.path)


def varint(raw: bytes, at: int) -> tuple[int, int]:
    """The varint at a place, 64 bits, and the place after it. Raises ValueError when it is longer than 10 bytes or cut off."""
    try:
        byte = raw[at]
        if byte < 0x80:
            return byte, at + 1
        value, shift = byte & 0x7F, 7
        for place in range(at + 1, at + 10):
            byte = raw[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & _MASK, place + 1
            shift += 7
    except IndexError:
        raise ValueError(_CUT_OFF) from None
    raise ValueError("a varint of more than 10 bytes")


def signed(value: int) -> int:
    """A 64-bit varint as an int32 or int64 field means it: negative numbers are in two's complement."""
    return value - (1 << 64) if value >> 63 else value
