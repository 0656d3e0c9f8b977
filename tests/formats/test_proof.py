"""The proof, one table: what a writer wrote in a format is what a comparison says it is."""

from __future__ import annotations

import numpy as np
import pytest

from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.formats.quantized.catalogue import FAMILIES
from tests.checkpoints import write_safetensors
from tests.quantized_files import LAYOUTS
from tests.validation import of_type, run, tensors

ROUNDING = 1e-6  # decoded in float32, where the formula here is computed in float64


def test_every_family_of_quantized_layouts_has_a_row():
    assert {row.name for row in FAMILIES} == {layout.family for layout in LAYOUTS.values()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_quantized_layout_is_what_its_formula_says(tmp_path, name):
    made, path = LAYOUTS[name].make(), LAYOUTS[name].write(tmp_path / "new")
    expected = {key: value.astype(np.float32) for key, value in made.expected.items()}
    if not expected:
        assert {entry.name for entry in open_checkpoint(str(path)).tensors} == made.tensors.keys()
        return
    reference = write_safetensors(tmp_path / "reference.safetensors", expected)
    records = run(reference, path, include_unchanged=True, relative_tolerance=ROUNDING, epsilon=1e-9)
    found = tensors(records)
    assert found.keys() == expected.keys()
    assert {record["new"]["encoding"] for record in found.values()} == {made.encoding}
    assert {record["status"] for record in found.values()} <= {"unchanged", "retyped"}
    assert (records[-1]["status"], of_type(records, "error")) == ("equivalent", [])
