"""What every analysis keeps, as a class to inherit from in a test module that pytest runs:

class TestScaling(AnalysisContract):
    row = ANALYSIS

    def pair(self, folder, seed):
        ...two checkpoints in which it finds something, others for another seed
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.catalogue import ANALYSES, RECORD_TYPES
from diffai_stream.pipeline import compare
from diffai_stream.report.ndjson import encode
from diffai_stream.report.schema import build_schema
from diffai_stream.statistics.catalogue import STATISTICS
from diffai_stream.testing.checkpoints import taking_part, transformer, write_hostile_pair, write_model, write_pair

Found = list[dict[str, Any]]
SCOPES, BASES, SEVERITIES = {"tensor", "layer", "model"}, {"measured", "derived", "estimated"}, {"info", "warning", "critical"}
COST = {"header": {"plan"}, "summary": {"elapsed_seconds", "peak_memory_nbytes", "read_nbytes"}}


class AnalysisContract:
    """Checks for one row of the analyses.

    `options` are those that it needs to find something; `may_be_silent` ones have records only where something is wrong.
    """

    row: ClassVar[Analysis]
    options: ClassVar[Mapping[str, Any]] = {}
    may_be_silent: ClassVar[bool] = False

    def pair(self, folder: Path, seed: int) -> tuple[Path, Path]:
        """Two checkpoints, a small Llama and a fine-tune of it unless this is overridden; another seed gives others."""
        return write_pair(folder, seed)

    def test_the_row_is_sound(self) -> None:
        """Its words are those of the records, its statistics those of the catalogue, its functions those of its scopes."""
        row, module = self.row, self.row.load()
        assert row.name.isidentifier()
        assert row.name not in RECORD_TYPES
        assert row.flag.startswith("--")
        assert row.title
        assert set(row.scopes) <= SCOPES
        assert row.basis in BASES
        assert not [name for name in row.needs if name not in STATISTICS.complete()]
        assert [scope for scope in ("tensor", "layer", "model") if hasattr(module, scope)]
        build_schema({row.name: row.fields})

    def test_its_records_keep_the_schema(self, tmp_path: Path) -> None:
        """Every record is valid as it is printed; a finding has declared fields only, and is about a scope of the row."""
        records = self.run(self.pair(tmp_path, 0))
        found = self.of(records)
        assert found or self.may_be_silent, "it neither finds anything nor says why not"
        declared = {name for parent in self.row.fields.__mro__ for name in getattr(parent, "__annotations__", {})}
        common = {"schema_version", "run_id", "seq", "type", "pair", "scope", "subject", "basis", "severity", "timestamp"}
        for record in found:
            if record["type"] == "skipped":
                assert record["reason"]
                continue
            assert set(record) <= declared | common, set(record) - declared - common
            assert record["scope"] in self.row.scopes
            assert record["basis"] in BASES
            assert record.get("severity", "info") in SEVERITIES
        for record in records:
            problems = [f"{error.json_path}: {error.message}" for error in self._validator(record["type"]).iter_errors(record)]
            assert not problems, problems

    def test_its_figures_come_from_the_weights(self, tmp_path: Path) -> None:
        """Two pairs that have nothing in common have other figures."""
        one, two = (self.of(self.run(self.pair(tmp_path / str(seed), seed))) for seed in (0, 1))
        one, two = ([record for record in found if record["type"] != "skipped"] for found in (one, two))
        assert not one or list(map(unnumbered, one)) != list(map(unnumbered, two)), "the same findings for other weights"
        figures = sorted(floats(one))
        assert not figures or figures != sorted(floats(two)), "the same figures for other weights"

    def test_neither_chunks_nor_workers_change_a_record(self, tmp_path: Path) -> None:
        """How a run is cut changes its cost and nothing else."""
        pair = self.pair(tmp_path, 0)
        other = self.run(pair, chunk_size=1 << 16, workers=3)
        assert list(map(stable, self.run(pair))) == list(map(stable, other))

    def test_it_only_adds(self, tmp_path: Path) -> None:
        """The records of a run without it are all there when it is asked for."""
        pair = self.pair(tmp_path, 0)
        without = {name: value for name, value in self.options.items() if name != "analyses"}
        plain = [json.loads(encode(record)) for record in compare(*map(str, pair), **without)]
        kept = {"header", "summary", "skipped", self.row.name}
        with_it = {unnumbered(record) for record in self.run(pair)}
        assert not [r for r in plain if r["type"] not in kept and unnumbered(r) not in with_it]

    def test_odd_checkpoints_do_not_end_the_run(self, tmp_path: Path) -> None:
        """Equal sides, NaN and infinity, no elements, tensors of one side, nothing in common: told or skipped, not raised."""
        model = write_model(tmp_path / "model", transformer(32))
        other = write_model(tmp_path / "other", {"x": np.ones((2, 3), np.float32)})
        for pair in ((model, model), (model, other), write_hostile_pair(tmp_path)):
            records = self.run(pair, include_unchanged=True)
            assert records[-1]["type"] == "summary"
            assert not [r for r in records if r["type"] == "skipped" and "plug-in" in r["reason"]]

    def run(self, pair: tuple[Path, Path], **more: Any) -> Found:
        """The records of a comparison with this analysis, as they are read from NDJSON."""
        with taking_part(ANALYSES, self.row):
            options = {**self.options, **more}
            return [json.loads(encode(record)) for record in compare(*map(str, pair), analyses=(self.row.name,), **options)]

    def of(self, records: Found) -> Found:
        """The findings of this analysis, and what it skipped."""
        return [r for r in records if r["type"] == self.row.name or r.get("analysis") == self.row.name]

    def _validator(self, kind: str) -> Any:
        with taking_part(ANALYSES, self.row):
            return _validators(tuple(ANALYSES))[kind]


@cache
def _validators(names: tuple[str, ...]) -> Mapping[str, Any]:
    from jsonschema import Draft202012Validator

    schema = build_schema({name: ANALYSES[name].fields for name in names})
    kinds = [alternative["$ref"].rpartition("/")[2].removesuffix("_record") for alternative in schema["oneOf"]]
    return {kind: Draft202012Validator({"$ref": f"#/$defs/{kind}_record", "$defs": schema["$defs"]}) for kind in kinds}


def floats(value: Any) -> Iterator[float]:
    """All measured numbers in findings; what is counted may well be the same."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from floats(item)
    elif isinstance(value, float):
        yield value


def stable(record: Mapping[str, Any]) -> str:
    """A record less what the cost of a run decides."""
    cost = COST.get(record["type"], set())
    return json.dumps({key: value for key, value in record.items() if key not in cost}, sort_keys=True)


def unnumbered(record: Mapping[str, Any]) -> str:
    """A record less its place in a run."""
    return json.dumps({key: value for key, value in record.items() if key not in ("seq", "run_id")}, sort_keys=True)
