"""What storing tensors in another encoding cost: casts told apart, scales fitted, thresholds judged."""

import math

import ml_dtypes
import numpy as np
import pytest

from diffai_stream.pipeline import compare
from tests.checkpoints import declared, write_safetensors
from tests.models import array_of, cast
from tests.validation import of_type, run, tensors

FLAG = {"analyses": ("quantization",)}
VALUES = np.random.default_rng(4).normal(0, 0.02, (96, 640)).astype(np.float32)


@pytest.fixture
def compared(tmp_path):
    def compare(old, new, **options):
        sides = []
        for name, side in (("old", old), ("new", new)):
            sides.append(
                write_safetensors(tmp_path / f"{name}.safetensors", side if isinstance(side, dict) else {"w.weight": side})
            )
        return run(*sides, **options)

    return compare


def tensor_finding(records):
    (found,) = [record for record in of_type(records, "quantization") if record["scope"] == "tensor"]
    return found


def relative(old, new):
    return float(np.linalg.norm(new.astype(np.float64) - old) / np.linalg.norm(old.astype(np.float64)))


@pytest.mark.parametrize("chunk_size", [1 << 16, 1 << 24])
@pytest.mark.parametrize("encoding", ["BF16", "F16", "F8_E4M3", "F8_E5M2"])
def test_rounding_to_nearest_is_recognised(compared, encoding, chunk_size):
    records = compared(VALUES, cast(VALUES, encoding), chunk_size=chunk_size)
    found = tensor_finding(records)
    assert found["cast"] == "rne"
    expected = relative(VALUES, array_of(cast(VALUES, encoding)))
    assert found["relative_l2"] == pytest.approx(expected, rel=1e-6)
    assert found["sqnr_db"] == pytest.approx(-20 * math.log10(expected), abs=1e-4)
    assert -(2.5 if encoding == "F8_E4M3" else 0.3) < found["sqnr_gap_db"] < 0.3  # unscaled E4M3 has subnormal numbers here
    assert (found["old_bits_per_weight"], found["scale_source"]) == (32.0, "none")
    assert found["compression_ratio"] == 32 / found["new_bits_per_weight"]
    rows = np.linalg.norm(VALUES, axis=1)
    assert 0 <= found["worst_row"] < len(rows)
    assert found["worst_row_relative_l2"] >= found["relative_l2"]


def test_truncation_is_recognised(compared):
    cut = (VALUES.view(np.uint32) >> 16).astype(np.uint16)
    found = tensor_finding(compared(VALUES, ("BF16", VALUES.shape, cut.tobytes())))
    assert found["cast"] == "truncated"
    assert found["sqnr_gap_db"] < -3


def test_an_exact_cast(compared):
    values = VALUES.astype(ml_dtypes.bfloat16)
    for old, new in ((values.astype(np.float32), values), (values, values.astype(np.float32))):
        records = compared(old, new)
        found = tensor_finding(records)
        assert (found["cast"], found["relative_l2"], found["sqnr_db"]) == ("exact", 0.0, None)
        assert tensors(records)["w.weight"]["status"] == "retyped"


def test_tolerated_is_not_exact(compared):
    records = compared(VALUES, cast(VALUES, "BF16"), epsilon=1.0)
    assert tensors(records)["w.weight"]["status"] == "retyped"
    assert tensor_finding(records)["cast"] == "rne"


def test_another_model_in_another_encoding_is_no_cast(compared):
    assert tensor_finding(compared(VALUES, cast(VALUES[::-1].copy(), "BF16")))["cast"] == "none"


def test_integers_are_judged_after_the_best_scale_of_each_row(compared):
    scales = np.abs(VALUES).max(axis=1, keepdims=True) / 127
    codes = np.rint(VALUES / scales)
    found = tensor_finding(compared(VALUES, cast(codes, "I8")))
    a, b = VALUES.astype(np.float64), codes
    best = (a * b).sum(1) / (b * b).sum(1)
    residual = a - best[:, None] * b
    by_row = np.linalg.norm(residual, axis=1) / np.linalg.norm(a, axis=1)
    assert found["scale_source"] == "fitted_row"
    assert found["relative_l2"] == pytest.approx(np.linalg.norm(residual) / np.linalg.norm(a), rel=1e-5)
    assert found["sqnr_db"] == pytest.approx(-20 * math.log10(found["relative_l2"]), abs=1e-9)
    assert found["worst_row"] == int(by_row.argmax())
    assert found["worst_row_relative_l2"] == pytest.approx(by_row.max(), rel=1e-5)
    assert found["new_bits_per_weight"] == 8.0
    assert not found["exceeds_threshold"]


def test_vectors_have_no_rows(compared):
    found = tensor_finding(compared(VALUES[0], cast(np.rint(VALUES[0] * 1000), "I8")))
    assert (found["worst_row"], found["scale_source"]) == (None, "none")


def test_rows_of_zeros(compared):
    found = tensor_finding(compared(np.zeros((4, 8), np.float32), cast(np.ones((4, 8)), "BF16")))
    assert (found["worst_row"], found["relative_l2"], found["sqnr_db"]) == (None, None, None)


def test_nothing_to_report_is_said_when_asked(compared):
    assert of_type(compared(VALUES, VALUES + 1), "skipped") == []
    (skipped,) = of_type(compared(VALUES, VALUES + 1, **FLAG), "skipped")
    assert (skipped["analysis"], skipped["subject"]) == ("quantization", "model")


@pytest.mark.parametrize(("threshold", "exceeds"), [(None, False), (0.001, True), (0.01, False), (0.0, True)])
def test_the_threshold(compared, threshold, exceeds):
    records = compared(VALUES, cast(VALUES, "BF16"), precision_loss_threshold=threshold)
    tensor, model = of_type(records, "quantization")
    assert (tensor["exceeds_threshold"], model["exceeds_threshold"]) == (exceeds, exceeds)
    assert tensor["severity"] == model["severity"] == ("warning" if exceeds else "info")
    assert tensor["threshold"] == (0.01 if threshold is None else threshold)


def test_the_model_record_ranks(compared):
    old = {f"w{i}.weight": VALUES for i in range(5)}
    new = {
        name: cast(VALUES, encoding) for name, encoding in zip(old, ("BF16", "F16", "F8_E4M3", "F8_E5M2", "F32"), strict=True)
    }
    records = compared(old, new, top=3)
    (model,) = [record for record in of_type(records, "quantization") if record["scope"] == "model"]
    assert (model["tensor_count"], model["exceeding_count"]) == (4, 2)
    assert [row["name"] for row in model["worst"]] == ["w3.weight", "w2.weight", "w0.weight"]
    assert records.index(model) > max(records.index(record) for record in of_type(records, "tensor"))


def test_cast_forensics(tmp_path):
    """A float32 file of bfloat16 values cast to half: what overflows, what is flushed, what is below the normal range."""
    old = np.array([[1.0, 1e6, -1e6, 1e-6, 1e-9, 0.5]], np.float32)
    old = ((old.view(np.uint32) >> 16) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        new = old.astype(np.float16)
    new[0, 3] = 0  # rounds to a subnormal number, which flushing to zero loses
    old_path = write_safetensors(tmp_path / "old.safetensors", {"w": np.repeat(old, 4, 0)})
    new_path = write_safetensors(tmp_path / "new.safetensors", {"w": np.repeat(new, 4, 0)})
    found = next(r for r in compare(str(old_path), str(new_path)) if r["type"] == "quantization")
    assert (found["old_is_bf16"], found["new_is_bf16"], found["cast"]) == (True, None, "none")
    assert (found["overflow_count"], found["flushed_count"], found["saturated_count"]) == (8, 4, 0)
    (back,) = [r for r in compare(str(new_path), str(old_path)) if r["type"] == "quantization" and r["scope"] == "tensor"]
    assert back["overflow_count"] is None
    assert back["new_is_bf16"] is True


def test_the_model_record_holds_the_totals(compared):
    old = {"a.weight": VALUES, "b.weight": 3 * VALUES[:10], "same.weight": VALUES[:4]}
    new = {**old, "a.weight": cast(VALUES, "F8_E4M3"), "b.weight": cast(3 * VALUES[:10], "BF16")}
    (model,) = [record for record in of_type(compared(old, new), "quantization") if record["scope"] == "model"]
    sides = [
        np.concatenate([array_of(declared(side[n])).astype(np.float64).ravel() for n in ("a.weight", "b.weight")])
        for side in (old, new)
    ]
    assert model["relative_l2"] == pytest.approx(relative(*sides), rel=1e-6)
    assert model["sqnr_db"] == pytest.approx(-20 * math.log10(relative(*sides)), abs=1e-5)
    stored = VALUES.size + 2 * VALUES[:10].size
    assert model["compression_ratio"] == pytest.approx(4 * sides[0].size / stored)
    assert (model["old_bits_per_weight"], model["new_bits_per_weight"]) == (32.0, 8 * stored / sides[0].size)
