"""Tensors are judged and told many at a time: what is said of one does not depend on its company."""

import numpy as np
import pytest

from tests.checkpoints import write_safetensors
from tests.models import cast
from tests.validation import run, tensors

COUNT = 300  # more than one table holds
PLAIN = {"schema_version", "run_id", "seq"}
EVERYTHING = {"stats": True, "histograms": True, "include_unchanged": True, "analyses": ("anomaly",)}


def sides():
    """Tensors of all encodings and fates in the order of a lottery: changed, unchanged, odd, reshaped, on one side only."""
    rng = np.random.default_rng(7)
    old, new = {}, {}
    for number in range(COUNT):
        name, encoding = f"layers.{number % 9}.part{number}.weight", ("BF16", "F32", "F16", "I8", "F64", "C64")[number % 6]
        values = rng.normal(0, 5, (8, 16))
        moved = values + (rng.normal(0, 1, (8, 16)) if number % 5 else 0)
        if number % 17 == 0:
            moved = np.full((8, 16), 3.0)
        if number % 19 == 0:
            moved = moved[:4]
        if number % 23 == 0 and encoding[0] in "BFC":
            moved[0, 0] = np.nan
        if number % 29:
            old[name] = cast(values, encoding)
        if number % 31:
            new[name] = cast(moved, encoding)
    return old, new


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return [write_safetensors(folder / f"{name}.safetensors", side) for name, side in zip(("a", "b"), sides(), strict=True)]


def told(records, name):
    """What is said of one tensor, less what numbers the records."""
    about = [r for r in records if name in (r.get("name"), r.get("subject")) and r.get("scope", "tensor") == "tensor"]
    return [{key: value for key, value in record.items() if key not in PLAIN} for record in about]


@pytest.mark.parametrize("options", [{}, EVERYTHING, {"fast": True}], ids=["default", "everything", "fast"])
def test_a_tensor_is_told_alone_as_in_company(paths, options):
    records = run(*paths, **options)
    found = tensors(records)
    assert {record["status"] for record in found.values()} >= {"changed", "added", "removed", "reshaped"}
    assert len(found) > 200
    for name in list(found)[::7]:
        assert told(run(*paths, include=(name,), **options), name) == told(records, name)


def test_findings_follow_their_tensor(paths):
    records = run(*paths, **EVERYTHING)
    last = None
    for record in records:
        if record["type"] == "tensor":
            last = record["name"]
        elif record["type"] == "anomaly" and record["kind"] in ("nonfinite", "constant"):
            assert record["subject"] == last
    kinds = [record["kind"] for record in records if record["type"] == "anomaly"]
    assert kinds.count("constant") > 10
    assert kinds.count("nonfinite") > 5
