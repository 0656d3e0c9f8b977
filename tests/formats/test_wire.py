"""The wire scanner against google's own parser, and against bytes that nobody meant."""

from __future__ import annotations

import io
import os
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.formats.wire import BUFFER_NBYTES, BYTES, FIXED32, FIXED64, MAX_TEXT_NBYTES, VARINT, Wire, signed, varint
from tests import messages
from tests.messages import field, key


@contextmanager
def wire_of(raw: bytes, **options):
    descriptor = os.memfd_create("message")
    with io.FileIO(descriptor, "rb") as file:
        os.write(descriptor, raw)
        yield Wire(file, len(raw), "message", **options)


def walked(raw: bytes, **options):
    with wire_of(raw, **options) as wire:
        return list(wire.fields(0, len(raw))), wire.damage()


fields = st.one_of(
    st.tuples(st.integers(1, 2**29 - 1), st.just(VARINT), st.integers(0, 2**64 - 1)),
    st.tuples(st.integers(1, 2**29 - 1), st.just(BYTES), st.binary(max_size=300)),
    st.tuples(st.integers(1, 2**29 - 1), st.just(FIXED32), st.binary(min_size=4, max_size=4)),
    st.tuples(st.integers(1, 2**29 - 1), st.just(FIXED64), st.binary(min_size=8, max_size=8)),
)


def encoded(number, wire, value):
    if wire in (VARINT, BYTES):
        return field(number, value)
    return key(number, wire) + value


@settings(deadline=None)
@given(st.lists(fields, max_size=40))
def test_what_is_written_is_found(written):
    raw = b"".join(encoded(*one) for one in written)
    found, damage = walked(raw)
    assert not damage
    assert [(number, wire) for number, wire, _, _ in found] == [(number, wire) for number, wire, _ in written]
    for (_, wire, at, value), (_, _, meant) in zip(found, written, strict=True):
        assert value == meant if wire == VARINT else raw[at : at + value] == meant


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_both_ways(number):
    raw = messages.varint(number)
    value, end = varint(raw + b"\x01", 0)
    assert (signed(value), end) == (number, len(raw))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_walked_to_an_end(raw):
    found, damage = walked(raw)
    assert len(found) <= len(raw)
    assert len(damage) <= 1
    for _, wire, at, value in found:
        assert 0 <= at <= len(raw)
        assert wire == VARINT or at + value <= len(raw)


@pytest.mark.parametrize(
    ("raw", "offset", "message"),
    [
        (field(1, b"abc", length=10**9), 0, "claims 1000000000 bytes, its file ends 999999997 bytes before"),
        (field(1, 1) + key(2, BYTES) + b"\xff" * 12, 2, "more than 10 bytes"),
        (field(1, 1) + b"\x80", 2, "end within a varint"),
        (field(1, 1) + key(2, FIXED64) + b"abc", 2, "claims 8 bytes"),
        (field(1, 1) + key(2, 3), 2, "no field begins here"),
        (field(1, 1) + key(2, 7), 2, "no field begins here"),
        (b"\0\0", 0, "no field begins here"),
    ],
)
def test_damage_is_told_with_its_place(raw, offset, message):
    _, damage = walked(raw)
    assert [error.offset for error in damage] == [offset]
    assert message in damage[0].message


def test_a_length_that_lies_is_cut_at_the_end_of_its_message():
    inner = field(1, b"abc", length=10**9)
    raw = field(5, inner) + field(6, b"after")
    with wire_of(raw) as wire:
        (_, _, at, size), last = wire.fields(0, len(raw))
        (cut,) = wire.fields(at, at + size)
    assert raw[cut[2] : cut[2] + cut[3]] == b"abc"
    assert last[0] == 6
    assert "its message ends" in wire.damage()[0].message


def test_large_fields_are_not_read():
    raw = field(1, bytes(5 * BUFFER_NBYTES)) + field(2, 7) + field(3, bytes(5 * BUFFER_NBYTES)) + field(4, 8)
    with wire_of(raw) as wire:
        assert [number for number, *_ in wire.fields(0, len(raw))] == [1, 2, 3, 4]
        assert len(wire._buffer) <= BUFFER_NBYTES


def test_the_number_of_fields_is_bounded():
    found, damage = walked(field(1, 1) * 100, max_fields=10)
    assert len(found) == 10
    assert [error.offset for error in damage] == [20]
    assert "more than 10 fields" in damage[0].message


def test_damage_is_counted_after_the_first_few():
    with wire_of(b"\0\0") as wire:
        for _ in range(100):
            list(wire.fields(0, 2))
        assert len(wire.damage()) == 9
        assert "92 more" in wire.damage()[-1].message


def test_texts_and_numbers():
    raw = field(1, "name") + field(2, b"\xff") + messages.packed(3, [3, -1]) + field(3, 5)
    raw += field(4, b"x" * (MAX_TEXT_NBYTES + 1))
    with wire_of(raw) as wire:
        name, odd, run, one, long = wire.fields(0, len(raw))
        assert wire.text(*name[2:]) == "name"
        assert wire.text(*odd[2:]) == "\\xff"
        assert (wire.integers(run, 9), wire.integers(one, 9), wire.integers(run, 0)) == ([3, -1], [5], [3])
        with pytest.raises(ValueError, match="65537 bytes"):
            wire.text(*long[2:])
        assert wire.last(0, len(raw))[3] == one


def test_against_the_parser_of_google():
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    message = descriptor_pb2.FieldDescriptorProto(name="x", number=-5, label=2, json_name="é" * 200)
    message.options.deprecated = True
    raw = message.SerializeToString()
    with wire_of(raw) as wire:
        found = wire.last(0, len(raw))
        assert wire.text(*found[1][2:]) == "x"
        assert signed(found[3][3]) == -5
        assert wire.text(*found[10][2:]) == "é" * 200
        options = found[8]
        assert wire.last(options[2], options[2] + options[3])[3][3] == 1
