"""LevelDB tables, written by an independent writer: found whole, or told where they are damaged."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.errors import FormatError
from diffai_stream.formats.leveldb_table import Table
from diffai_stream.storage.crc32c import crc32c
from tests import messages
from tests.messages import table


def read(raw: bytes) -> dict[bytes, bytes]:
    descriptor = os.memfd_create("table")
    with io.FileIO(descriptor, "rb") as file:
        os.write(descriptor, raw)
        return {item.key: raw[item.offset : item.offset + item.nbytes] for item in Table(file, len(raw), "table").items()}


@settings(deadline=None)
@given(st.dictionaries(st.binary(max_size=30), st.binary(max_size=60), max_size=40), st.integers(1, 50))
def test_what_is_written_is_found(items, per_block):
    assert read(table(items, per_block)) == items


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_checksums(raw):
    assert crc32c(raw) == messages.crc32c(raw)


def test_the_checksum_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283


ITEMS = {b"": b"\x08\x01", **{f"layer/{number}".encode(): bytes([number] * 5) for number in range(9)}}
RAW = table(ITEMS)


@settings(deadline=None)
@given(st.integers(0, len(RAW) - 1), st.integers(0, 255))
def test_one_byte_changed_is_told_or_harmless(at, byte):
    changed = RAW[:at] + bytes([byte]) + RAW[at + 1 :]
    try:
        found = read(changed)
    except FormatError:
        return
    assert found == ITEMS


@settings(deadline=None)
@given(st.integers(0, len(RAW) - 1))
def test_every_truncation_is_told(nbytes):
    with pytest.raises(FormatError):
        read(RAW[:nbytes])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "too few"),
        (bytes(100), "does not end as a table"),
        (table(ITEMS, kind=1), "compressed"),
        (bytes([RAW[0] ^ 1]) + RAW[1:], "checksum"),
        ((b"\xff" * 9 + b"\x7f") * 4 + RAW[-8:], "cannot lie in"),
        (b"\x80" * 40 + RAW[-8:], "varint"),
    ],
)
def test_refusals(raw, message):
    with pytest.raises(FormatError, match=message):
        read(raw)
