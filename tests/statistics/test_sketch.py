"""Count-sketches against an independent sum in NumPy, and what they promise: cosines within their standard error."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.sketch import WIDTH, Product, Sketch, cosine_of, sketch_of
from diffai_stream.testing.statistics import StatisticLaws, leaf_tiles

MASK = (1 << 64) - 1
SHAPES = ((), (1,), (0,), (0, 4), (5, 3), (64, 64), (4097,), (3, 50_001), (300, 512), (67, 1001))


class TestSketchLaws(StatisticLaws):
    statistics = (Sketch(View.OLD), Sketch(View.NEW), Sketch(View.DELTA))
    shapes = SHAPES


def finalized(view, old, new):
    encoding = ENCODINGS["F32" if old.dtype == np.float32 else "F64"]
    raw = [np.frombuffer(side.tobytes(), np.uint8) for side in (old, new)]
    statistic = Sketch(view)
    return statistic.finalize(StatisticLaws.state(statistic, leaf_tiles(*raw, (encoding, encoding), old.shape)))


def mixed(number, seed):
    z = (number + 1) * seed & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def expected(values):
    """Element by element, with Python's own integers."""
    sums = np.zeros(min(WIDTH, values.size))
    for index, value in enumerate(values.reshape(-1).astype(np.float64).tolist()):
        block, inside = divmod(index, WIDTH)
        turn = mixed(block, 0xD1B54A32D192ED03) % WIDTH if block else 0
        place = ((inside // 64 * 64 + turn) % WIDTH + inside % 64) % WIDTH
        sums[place] += -value if mixed(index // 64, 0x9E3779B97F4A7C15) >> index % 64 & 1 else value
    return sums


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_python(shape, dtype):
    random = np.random.default_rng(0)
    old, new = (random.normal(size=shape).astype(dtype) for _ in "ab")
    for view, values in ((View.OLD, old), (View.NEW, new), (View.DELTA, new - old)):
        found = finalized(view, old, new)
        np.testing.assert_allclose(found["sketch"], expected(np.asarray(values)), rtol=1e-6, atol=1e-6)
        assert found["is_exact"] == (values.size <= WIDTH)


def test_what_is_not_finite_counts_as_zero():
    old, new = np.ones(5000, np.float32), np.full(5000, 3, np.float32)
    old[[1, 4500]], new[2] = (np.nan, np.inf), -np.inf
    delta = np.full(5000, 2.0)
    delta[[1, 2, 4500]] = 0
    np.testing.assert_array_equal(finalized(View.DELTA, old, new)["sketch"], expected(delta).astype(np.float32))


def test_small_tensors_are_exact():
    random = np.random.default_rng(1)
    x, y = (random.normal(size=(64, 64)).astype(np.float32) for _ in "ab")
    inner = sum((finalized(View.OLD, side, side)["sketch"].astype(np.float64) for side in (x, y)), start=np.zeros(WIDTH))
    a, b = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
    assert (inner @ inner) == pytest.approx((a + b) @ (a + b), rel=1e-9)


def planted(kind, cosine, random, shape=(96, 1024)):
    """Two tensors with a known angle: plain noise, noise with outlier columns, a low-rank pattern."""
    x, z = random.normal(size=shape), random.normal(size=shape)
    if kind == "outliers":
        scale = np.ones(shape[1])
        scale[[7, 71, 519]] = 60
        x, z = x * scale, z * scale
    if kind == "low rank":
        x, z = (random.normal(size=(shape[0], 2)) @ random.normal(size=(2, shape[1])) for _ in "ab")
    z = z - x * (x.ravel() @ z.ravel()) / (x.ravel() @ x.ravel())
    y = cosine * x / np.linalg.norm(x) + sqrt(1 - cosine**2) * z / np.linalg.norm(z)
    return x, y


def estimate(x, y):
    sketches = [finalized(View.NEW, side, side)["sketch"] for side in (x, y)]
    return cosine_of([Product(*sketches, x.size <= WIDTH, float(np.linalg.norm(x)), float(np.linalg.norm(y)))])


@pytest.mark.parametrize("cosine", [-0.9, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["plain", "outliers", "low rank"])
def test_cosines_lie_within_their_standard_error(kind, cosine):
    """Fifty pairs: the mean error is 0 and its spread is as promised, also where energy lies in few columns."""
    random = np.random.default_rng(3)
    found = [estimate(*planted(kind, cosine, random)) for _ in range(50)]
    errors = np.array([(e.cosine - cosine) / e.standard_error for e in found])
    assert found[0].standard_error == pytest.approx(sqrt((1 + cosine**2) / WIDTH), rel=0.05)
    assert abs(errors.mean()) < 4 / sqrt(50) or cosine == 1.0  # cut at 1
    assert np.sqrt((errors**2).mean()) < 1.5


def test_of_many_parts_the_error_is_less():
    random = np.random.default_rng(4)
    pairs = [planted("plain", 0.3, random, (64, 256)) for _ in range(16)]
    sketches = [[finalized(View.NEW, side, side)["sketch"] for side in pair] for pair in pairs]
    norms = [[float(np.linalg.norm(side)) for side in pair] for pair in pairs]
    one = [Product(*s, False, *n) for s, n in zip(sketches, norms, strict=True)]
    dots = sum(float(x.ravel() @ y.ravel()) for x, y in pairs)
    truth = dots / sqrt(sum(n[0] ** 2 for n in norms) * sum(n[1] ** 2 for n in norms))
    found = cosine_of(one)
    assert found.standard_error < cosine_of(one[:1]).standard_error / 3
    assert abs(found.cosine - truth) < 4 * found.standard_error


def test_nothing_has_no_angle():
    zero = np.zeros(10, np.float32)
    assert cosine_of([Product(zero, zero, True, 0.0, 1.0)]) == (None, None)
    assert cosine_of([]) == (None, None)


def test_the_right_view_is_found():
    extras = {Sketch(View.OLD): {"sketch": 1}, Sketch(View.DELTA): {"sketch": 2}}
    assert sketch_of(extras, View.DELTA) == {"sketch": 2}
    assert sketch_of(extras, View.NEW) is None
