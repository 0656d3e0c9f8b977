"""Seeded damage: what transport, bad writers and ill will do to bytes."""

from __future__ import annotations

import random
from collections.abc import Callable

INTERESTING = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**60,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
HEAD = 4096  # headers are where structure is: half of all damage is done there
Damage = Callable[[bytearray, random.Random], None]


def _place(raw: bytearray, rng: random.Random) -> int:
    limit = min(len(raw), HEAD) if rng.random() < 0.5 else len(raw)
    return rng.randrange(max(1, limit))


def flip(raw: bytearray, rng: random.Random) -> None:
    """Single bits."""
    for _ in range(rng.randint(1, 8)):
        raw[_place(raw, rng)] ^= 1 << rng.randrange(8)


def overwrite(raw: bytearray, rng: random.Random) -> None:
    """A few bytes by others."""
    at = _place(raw, rng)
    size = rng.randint(1, 16)
    raw[at : at + size] = rng.randbytes(min(size, len(raw) - at))


def integer(raw: bytearray, rng: random.Random) -> None:
    """An integer of any width by a large or odd one."""
    at, width = _place(raw, rng), rng.choice((1, 2, 4, 8))
    value = (rng.choice(INTERESTING) & ((1 << 8 * width) - 1)).to_bytes(width, rng.choice(("little", "big")))
    raw[at : at + width] = value[: len(raw) - at]


def truncate(raw: bytearray, rng: random.Random) -> None:
    """The end is missing."""
    del raw[_place(raw, rng) :]


def extend(raw: bytearray, rng: random.Random) -> None:
    """Something follows."""
    raw += rng.randbytes(rng.randint(1, 64))


def remove(raw: bytearray, rng: random.Random) -> None:
    """A piece is missing."""
    at = _place(raw, rng)
    del raw[at : at + rng.randint(1, 64)]


def repeat(raw: bytearray, rng: random.Random) -> None:
    """A piece twice."""
    at = _place(raw, rng)
    raw[at:at] = raw[at : at + rng.randint(1, 256)]


def splice(raw: bytearray, rng: random.Random) -> None:
    """A piece put where another was."""
    source, target, size = _place(raw, rng), _place(raw, rng), rng.randint(1, 64)
    raw[target : target + size] = raw[source : source + size]


def digits(raw: bytearray, rng: random.Random) -> None:
    """Digits of text by others: sizes and offsets of JSON headers."""
    places = [at for at, byte in enumerate(raw[:HEAD]) if 48 <= byte <= 57]
    for at in rng.sample(places, min(len(places), rng.randint(1, 4))):
        raw[at] = rng.choice(b"0123456789-e.")


KINDS: tuple[Damage, ...] = (flip, overwrite, integer, truncate, extend, remove, repeat, splice, digits)


def mutated(sound: bytes, seed: int | str) -> bytes:
    """The bytes after one to three kinds of damage; the same for the same seed."""
    rng, raw = random.Random(seed), bytearray(sound)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if raw:
            rng.choice(KINDS)(raw, rng)
    return bytes(raw)
