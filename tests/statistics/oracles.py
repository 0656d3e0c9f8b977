"""Definitions of records.md, straight in float64 and integers, one line each where possible."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, wasserstein_distance

from diffai_stream.encodings.base import Encoding

DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "BOOL": np.bool_},
    **{"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E8M0": ml_dtypes.float8_e8m0fnu},
    **{"F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz},
    **{"F6_E2M3": ml_dtypes.float6_e2m3fn, "F6_E3M2": ml_dtypes.float6_e3m2fn, "F4": ml_dtypes.float4_e2m1fn},
    **{"I4": ml_dtypes.int4, "U4": ml_dtypes.uint4, "I2": ml_dtypes.int2, "U2": ml_dtypes.uint2},
    **{f"{sign}{bits}": np.dtype(f"{'u' if sign == 'U' else ''}int{bits}") for sign in "IU" for bits in (8, 16, 32, 64)},
}


def stored(raw: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The bytes as the peers read them; any non-zero byte of a BOOL is true."""
    return raw != 0 if encoding.name == "BOOL" else raw.view(DTYPES[encoding.name])


def numbers(raw: np.ndarray, encoding: Encoding) -> np.ndarray:
    """float64 values."""
    with np.errstate(invalid="ignore"):
        return stored(raw, encoding).astype(np.float64)


def unequal(old: np.ndarray, new: np.ndarray, encodings: tuple[Encoding, Encoding]) -> np.ndarray:
    """Which decoded values differ: NaN equals NaN, 64-bit integers are compared as integers."""
    a, b = numbers(old, encodings[0]), numbers(new, encodings[1])
    if all(encoding.name in ("I64", "U64") for encoding in encodings):
        pairs = zip(stored(old, encodings[0]).tolist(), stored(new, encodings[1]).tolist(), strict=True)
        return np.array([x != y for x, y in pairs], bool)
    return (a != b) & ~(np.isnan(a) & np.isnan(b))


def side(values: np.ndarray) -> dict[str, float]:
    """Moments, range and counts of one side; sums by math.fsum."""
    x = values[np.isfinite(values)]
    found = {"n": x.size, "zero": int((x == 0).sum()), "nan": int(np.isnan(values).sum())}
    found |= {"posinf": int((values == np.inf).sum()), "neginf": int((values == -np.inf).sum())}
    found |= {"min": x.min() if x.size else np.inf, "max": x.max() if x.size else -np.inf}
    mean = math.fsum(x) / x.size if x.size else 0.0
    centred = x - mean
    found |= {"mean": mean, "rms": math.sqrt(math.fsum(x * x) / x.size) if x.size else 0.0}
    found |= {f"m{order}": math.fsum(centred**order) for order in (2, 3, 4)}
    return found | {"cubes": math.fsum(abs(centred) ** 3)}


def pair(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Sums, flips and the largest change over elements finite on both sides."""
    finite = np.isfinite(a) & np.isfinite(b)
    x, y = a[finite], b[finite]
    d = y - x
    flips = ((x < 0) & (y > 0)) | ((x > 0) & (y < 0))
    found = {"flips": int(flips.sum()), "dot": math.fsum(x * y), "old_squares": math.fsum(x * x)}
    found |= {"new_squares": math.fsum(y * y), "abs_sum": math.fsum(abs(d))}
    found["max_abs"] = abs(d).max() if d.size else -1.0
    distance = np.where(finite, abs(np.where(finite, b, 0) - np.where(finite, a, 0)), -1.0)
    found["max_index"] = int(np.argmax(distance)) if d.size and found["max_abs"] > 0 else -1
    return found


def row(a: np.ndarray, b: np.ndarray) -> list[float]:
    """The nine row sums."""
    finite = np.isfinite(a) & np.isfinite(b)
    x, y = a[finite], b[finite]
    sums = [math.fsum(p) for p in (x * x, y * y, (y - x) ** 2, x * y)]
    tops = [abs(s).max() if s.size else 0.0 for s in (x, y)]
    return [x.size, *sums, *tops, int((x == 0).sum()), int((y == 0).sum())]


def quantiles(values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Inverted CDF of the finite values."""
    return np.quantile(values[np.isfinite(values)], probabilities, method="inverted_cdf")


def distances(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Kolmogorov-Smirnov, Jensen-Shannon (base 2, square root) and Wasserstein-1 distance of the finite values."""
    x, y = a[np.isfinite(a)], b[np.isfinite(b)]
    atoms = np.unique(np.concatenate([x, y]))
    p, q = (np.bincount(np.searchsorted(atoms, s), minlength=atoms.size) / s.size for s in (x, y))
    return ks_2samp(x, y, method="asymp").statistic, jensenshannon(p, q, 2), wasserstein_distance(x, y)


def ulp_distances(old: np.ndarray, new: np.ndarray, encoding: Encoding) -> list[int]:
    """How many steps of the encoding lie between the values of two arrays of codes; pairs with NaN left out."""
    half = 1 << (encoding.bits - 1)
    nan = [np.isnan(numbers(codes.view(np.uint8), encoding)) for codes in (old, new)]
    ordered = [[-(code - half) if code >= half else code for code in codes.tolist()] for codes in (old, new)]
    return [abs(p - q) for p, q, skip in zip(*ordered, nan[0] | nan[1], strict=True) if not skip]
