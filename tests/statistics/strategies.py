"""Arrays as raw bytes of every encoding, hostile on purpose, and the ways to cut them into runs of leaves."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import strategies as st

from diffai_stream.encodings.base import Encoding
from diffai_stream.encodings.catalogue import ENCODINGS

CODES = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
REAL = [name for name, row in ENCODINGS.items() if row.components == 1 and not row.decoder]  # others are scanned decoded
FLOATS = [name for name in REAL if ENCODINGS[name].family == "float"]
MODES = ("any", "usual", "usual", "specials", "few", "constant", "zeros")


def specials(encoding: Encoding) -> np.ndarray:
    """Codes that have gone wrong before: ±0, smallest, largest, infinities, NaN of both signs, one.

    Of float64 none whose fourth powers overflow or vanish: the figures are float64 themselves.
    """
    width = encoding.bits
    half, mantissa = 1 << (width - 1), encoding.mantissa_bits
    infinity = ((1 << encoding.exponent_bits) - 1) << mantissa
    codes = [0, half, half - 1, (1 << width) - 1, infinity, infinity + 1, half | infinity]
    if encoding.name != "F64":
        codes += [1, 2, half + 1, infinity - 1, 1 << mantissa, (1 << mantissa) - 1]
    codes.append(((1 << max(encoding.exponent_bits - 1, 0)) - 1) << mantissa)
    return np.array([code & ((1 << width) - 1) for code in codes], CODES[encoding.itemsize])


def usual(encoding: Encoding, numel: int, rng: np.random.Generator) -> np.ndarray:
    """Codes of weights: normal around zero for floats, small integers otherwise."""
    if encoding.family != "float" or encoding.bits < 16:
        return rng.integers(0, min(1 << encoding.bits, 200), numel).astype(CODES[encoding.itemsize])
    values = rng.standard_normal(numel) * 10.0 ** rng.integers(-3, 3)
    if encoding.name == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype({8: np.float64, 4: np.float32, 2: np.float16}[encoding.itemsize]).view(CODES[encoding.itemsize])


def any_code(encoding: Encoding, numel: int, rng: np.random.Generator) -> np.ndarray:
    """Any pattern; of float64 only those whose fourth powers do not overflow or vanish."""
    codes = rng.integers(0, 1 << encoding.bits, numel, dtype=np.uint64)
    if encoding.name == "F64":
        codes = (codes & np.uint64(0x800F_FFFF_FFFF_FFFF)) | (
            rng.integers(1023 - 200, 1023 + 200, numel, dtype=np.uint64) << 52
        )
    return codes.astype(CODES[encoding.itemsize])


def codes_of(encoding: Encoding, numel: int, mode: str, seed: int) -> np.ndarray:
    """Codes of one mode, drawn with a seed."""
    rng = np.random.default_rng(seed)
    odd = specials(encoding)
    if mode == "any":
        return any_code(encoding, numel, rng)
    if mode == "zeros":
        return np.zeros(numel, odd.dtype)
    if mode == "specials":
        return rng.choice(odd, numel)
    codes = usual(encoding, numel, rng)
    if mode == "constant":
        codes[:] = codes[:1]
    if mode == "few":
        picked = rng.random(numel) < 0.01
        codes[picked] = rng.choice(odd, numel)[picked]
    return codes


def frozen(codes: np.ndarray) -> np.ndarray:
    """The bytes of codes, read-only as the kernels want them."""
    raw = np.ascontiguousarray(codes).view(np.uint8)
    raw.setflags(write=False)
    return raw


@st.composite
def raw_bytes(draw, encoding: Encoding, numel: int) -> np.ndarray:
    """Read-only bytes of `numel` elements of an encoding."""
    return frozen(codes_of(encoding, numel, draw(st.sampled_from(MODES)), draw(st.integers(0, 2**16))))


@st.composite
def partly_new(draw, encoding: Encoding, old: np.ndarray) -> np.ndarray:
    """A new side of the same encoding: equal, changed in places, or changed everywhere."""
    codes = old.view(CODES[encoding.itemsize]).copy()
    other = draw(raw_bytes(encoding, codes.size)).view(codes.dtype)
    share = draw(st.sampled_from([0.0, 0.001, 0.3, 1.0]))
    picked = np.random.default_rng(draw(st.integers(0, 2**16))).random(codes.size) < share
    codes[picked] = other[picked]
    return frozen(codes)


NUMELS = st.one_of(st.integers(0, 80), st.integers(0, 9000))


@st.composite
def pairs(draw, names=tuple(REAL), others=None, numels=NUMELS):
    """(old bytes, new bytes, encodings) of equal length."""
    old_encoding = ENCODINGS[draw(st.sampled_from(list(names)))]
    new_encoding = ENCODINGS[draw(st.sampled_from(list(others or names)))]
    numel = draw(numels)
    old = draw(raw_bytes(old_encoding, numel))
    new = draw(partly_new(old_encoding, old) if new_encoding is old_encoding else raw_bytes(new_encoding, numel))
    return old, new, (old_encoding, new_encoding)


@st.composite
def same_encoding_pairs(draw, names=tuple(FLOATS)):
    """(old bytes, new bytes, encoding)."""
    encoding = ENCODINGS[draw(st.sampled_from(list(names)))]
    old = draw(raw_bytes(encoding, draw(st.integers(0, 400))))
    return old, draw(partly_new(encoding, old)), encoding


@st.composite
def matrix_pairs(draw):
    """(old bytes, new bytes, encodings, shape) with two to three axes."""
    shape = (*tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=2))), draw(st.integers(1, 200)))
    old, new, encodings = draw(pairs(numels=st.just(prod(shape))))
    return old, new, encodings, shape


def cuts(numel: int, leaf: int, power: int) -> list[tuple[int, int]]:
    """[start, stop) of chunks of 2^power leaves."""
    step = leaf << power
    return [(start, min(start + step, numel)) for start in range(0, max(numel, 1), step)]
