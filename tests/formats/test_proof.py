"""The proof, one table: what a library wrote in a format equals the same weights in safetensors, or is the cast it is.

Quantized layouts are held against their formulas here; against the libraries that define them, where they are installed, in
`test_quantized_libraries.py` and `test_quantized_compressed.py`, and ggml types in `tests/encodings/test_ggml.py`.
"""

from __future__ import annotations

import numpy as np
import pytest

from diffai_stream.formats.catalogue import FORMATS, open_checkpoint
from diffai_stream.formats.quantized.catalogue import FAMILIES
from tests.checkpoints import write_safetensors
from tests.equality import differences
from tests.library_files import WRITERS
from tests.quantized_files import LAYOUTS
from tests.validation import of_type, run, tensors

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries about themselves
ROUNDING = 1e-6  # decoded in float32, where the formula here is computed in float64
ALIKE = [name for name, writer in WRITERS.items() if not writer.cast]
CAST = [name for name, writer in WRITERS.items() if writer.cast]


def written(name, folder):
    """What the writer of a row writes; a row whose library is not installed is skipped and says so."""
    if not WRITERS[name].is_available:
        pytest.skip(f"{WRITERS[name].by} is not installed")
    folder.mkdir()
    return WRITERS[name].write(folder)


def test_every_format_and_every_family_of_quantized_layouts_has_a_row():
    assert set(FORMATS) == {writer.format for writer in WRITERS.values()}
    assert {row.name for row in FAMILIES} == {layout.family for layout in LAYOUTS.values()}


@pytest.mark.parametrize("name", ALIKE)
def test_identical_values(tmp_path, name):
    path, holds = written(name, tmp_path / "new")
    assert open_checkpoint(str(path)).format == WRITERS[name].format
    assert differences(path, holds, tmp_path) == []
    for victim, value in holds.items():  # and a change of one number is seen there and nowhere else
        changed = value.copy()
        changed.reshape(-1)[-1] += 1
        other = differences(path, {**holds, victim: changed}, tmp_path)
        assert [line.partition(":")[0] for line in other] == [victim]
        assert "'changed'" in other[0]


@pytest.mark.parametrize("name", CAST)
def test_the_cast_is_named(tmp_path, name):
    path, holds = written(name, tmp_path / "new")
    records = run(write_safetensors(tmp_path / "reference.safetensors", holds), path, include_unchanged=True)
    found = {record["subject"]: record["cast"] for record in of_type(records, "quantization") if record["scope"] == "tensor"}
    assert found == dict.fromkeys(holds, WRITERS[name].cast)
    is_exact = WRITERS[name].cast == "exact"
    assert {record["status"] for record in tensors(records).values()} == {"retyped" if is_exact else "changed"}
    assert records[-1]["status"] == ("equivalent" if is_exact else "different")


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


@pytest.mark.parametrize("name", ["gptq-4", "gptq-3-act-order", "awq-gemm", "awq-gemv", "nf4-nested", "mxfp4-gpt-oss"])
def test_the_way_of_reading_changes_nothing(tmp_path, name):
    path = LAYOUTS[name].write(tmp_path / "new")
    expected = {key: value.astype(np.float32) for key, value in LAYOUTS[name].make().expected.items()}
    reference = write_safetensors(tmp_path / "reference.safetensors", expected)
    mapped, read = (tensors(run(reference, path, include_unchanged=True, io=io)) for io in ("mmap", "pread"))
    assert mapped == {key: {**value, "run_id": mapped[key]["run_id"]} for key, value in read.items()}
