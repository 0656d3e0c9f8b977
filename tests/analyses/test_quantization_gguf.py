"""What the block types of ggml cost: figures against rounding to nearest, whichever side is the coarser one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from diffai_stream.analyses.quantization import BASELINE_SQNR_DB
from diffai_stream.encodings.ggml import TYPES
from diffai_stream.testing.ggml import ROUND
from tests.checkpoints import write_safetensors
from tests.gguf_files import write_gguf
from tests.models import cast
from tests.validation import anomalies, of_type, run, tensors

BLOCKED = {row.name: row for row in TYPES.values() if row.block > 1 and row.encoding}
JUDGED = [name for name, row in BLOCKED.items() if row.encoding in BASELINE_SQNR_DB]
VALUES = np.random.default_rng(4).normal(0, 0.02, (128, 2048)).astype(np.float32)


def rounded(name):
    """A GGUF tensor of VALUES rounded to nearest, and the values that it holds."""
    kind, number = BLOCKED[name], GGMLQuantizationType[name]
    raw = ROUND[name](VALUES.reshape(-1, kind.block)) if name in ROUND else quantize(VALUES, number)
    return (kind.number, VALUES.shape, raw.tobytes()), dequantize(raw.reshape(-1, kind.nbytes), number).reshape(VALUES.shape)


def finding(tmp_path, old, new):
    """The record of a comparison; each side an array, bf16 bytes, or a GGUF tensor."""
    sides = []
    for name, side in (("old", old), ("new", new)):
        if isinstance(side, tuple) and isinstance(side[0], int):
            sides.append(write_gguf(tmp_path / f"{name}.gguf", {"w.weight": side}))
        else:
            sides.append(write_safetensors(tmp_path / f"{name}.safetensors", {"w.weight": side}))
    (found,) = [r for r in of_type(run(*sides, include_unchanged=True), "quantization") if r["scope"] == "tensor"]
    return found


@pytest.mark.parametrize("name", JUDGED)
def test_baselines_are_what_rounding_to_nearest_gives(name, tmp_path):
    tensor, values = rounded(name)
    relative = np.linalg.norm(values.astype(np.float64) - VALUES) / np.linalg.norm(VALUES.astype(np.float64))
    found = finding(tmp_path, VALUES, tensor)
    assert found["relative_l2"] == pytest.approx(relative, rel=1e-6)
    assert found["sqnr_db"] == pytest.approx(-20 * math.log10(relative), abs=1e-4)
    assert abs(found["sqnr_gap_db"]) < 0.12
    assert found["new_bits_per_weight"] == BLOCKED[name].bits_per_weight
    assert found["compression_ratio"] == 32 / BLOCKED[name].bits_per_weight
    assert found["scale_source"] == "recorded"
    assert (found["saturation_ratio"], found["code_entropy_bits"], found["cast"]) == (None, None, None)


def test_the_loss_is_judged_by_the_coarser_side(tmp_path):
    tensor, _ = rounded("Q4_K")
    found = finding(tmp_path, tensor, cast(VALUES, "BF16"))
    assert abs(found["sqnr_gap_db"]) < 0.2
    assert (found["old_bits_per_weight"], found["new_bits_per_weight"]) == (4.5, 16.0)


def test_values_that_were_decoded_to_another_file_are_exact(tmp_path):
    tensor, values = rounded("Q6_K")
    found = finding(tmp_path, tensor, values)
    assert (found["cast"], found["relative_l2"], found["sqnr_db"], found["sqnr_gap_db"]) == ("exact", 0.0, None, None)
    assert not found["exceeds_threshold"]


def test_types_that_nothing_is_rounded_to_have_no_baseline(tmp_path):
    raw = quantize(VALUES, GGMLQuantizationType.TQ2_0)
    found = finding(tmp_path, VALUES, (BLOCKED["TQ2_0"].number, VALUES.shape, raw.tobytes()))
    assert found["sqnr_db"] is not None
    assert found["sqnr_gap_db"] is None


def test_a_scale_that_is_no_number_costs_its_block(tmp_path):
    kind, shape, raw = rounded("Q8_0")[0]
    damaged = np.float16(np.nan).tobytes() + raw[2:]
    old = write_safetensors(tmp_path / "old.safetensors", {"w.weight": VALUES})
    records = run(old, write_gguf(tmp_path / "new.gguf", {"w.weight": (kind, shape, damaged)}))
    assert tensors(records)["w.weight"]["stats"]["new"]["nan_count"] == 32
    assert ("nonfinite", "w.weight", "new") in anomalies(records)
