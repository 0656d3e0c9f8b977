"""Evidence and findings to records: one function a record type, in the words of the contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffai_stream._version import __version__
from diffai_stream.analyses.base import Evidence, Finding, Skipped
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import DiffaiError
from diffai_stream.formats.base import Checkpoint, Oddity, TensorEntry
from diffai_stream.plan.parts import WEIGHTS, parameter_count
from diffai_stream.report.records import SCHEMA_VERSION

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool", "C64": "complex64"}


class Composer:
    """Numbers the records of a run and puts in what every record carries; `pair` where there are several."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.pair: int | None = None
        self._seq = 0

    def record(self, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A record of a type."""
        pair = {} if self.pair is None else {"pair": self.pair}
        return {"schema_version": SCHEMA_VERSION, "run_id": self.run_id, "seq": self.next_seq(), "type": kind, **pair, **fields}

    def next_seq(self) -> int:
        """The number of the next record."""
        self._seq += 1
        return self._seq - 1

    def header(self, checkpoints: Sequence[Checkpoint], options: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
        """The first record, about two checkpoints or more."""
        tool = {"name": "diffai_stream", "version": __version__}
        told = [checkpoint_info(checkpoint) for checkpoint in checkpoints]
        sides: dict[str, Any] = {"old": told[0], "new": told[-1], **({"checkpoints": told} if len(told) > 2 else {})}
        return self.record("header", {"tool": tool, **sides, "options": options, "plan": plan})

    def finding(self, analysis: str, found: Finding | Skipped) -> dict[str, Any]:
        """A finding, or why there is none."""
        if isinstance(found, Skipped):
            return self.record("skipped", {"analysis": analysis, "subject": found.subject, "reason": found.reason})
        judged = {"severity": found.severity} if found.severity is not None else {}
        return self.record(
            analysis, {"scope": found.scope, "subject": found.subject, "basis": found.basis, **judged, **found.fields}
        )

    def error(self, error: DiffaiError) -> dict[str, Any]:
        """Something unreadable."""
        where = {"path": error.path, "tensor": error.tensor, "offset": error.offset}
        return self.record("error", {"error": type(error).__name__, "message": error.message, **where})

    def warning(self, oddity: Oddity) -> dict[str, Any]:
        """Something odd."""
        return self.record("warning", oddity._asdict())


def checkpoint_info(checkpoint: Checkpoint) -> dict[str, Any]:
    """One input as its headers describe it."""
    return {
        "path": checkpoint.path,
        "format": "profile" if checkpoint.is_profile else checkpoint.format,
        "tensor_count": len(checkpoint.tensors),
        "parameter_count": parameter_count(checkpoint),
        "stored_nbytes": sum(entry.stored_nbytes for entry in checkpoint.tensors),
        "metadata": [{"key": key, "value": value} for key, value in checkpoint.metadata.items()],
    }


def tensor_fields(evidence: Evidence) -> dict[str, Any]:
    """The fields of a tensor record, which may be held back before it becomes one."""
    pair = evidence.pair
    return {
        "name": pair.name,
        "layer": pair.layer,
        "role": pair.role,
        "status": evidence.status,
        "match": pair.match,
        **({} if pair.part == WEIGHTS else {"part": pair.part}),
        "old": side_info(pair.old),
        "new": side_info(pair.new),
        "stats": evidence.stats,
        "change": evidence.change,
    }


def side_info(entry: TensorEntry | None) -> dict[str, Any] | None:
    """One side of a pair, as stored."""
    if entry is None:
        return None
    return {
        "name": entry.name,
        "dtype": dtype_name(entry.encoding),
        "encoding": entry.encoding,
        "shape": list(entry.stored_shape),
        "numel": entry.numel,
        "stored_nbytes": entry.stored_nbytes,
        **({} if entry.region is None else {"compared_shape": list(entry.shape)}),
    }


def dtype_name(encoding: str) -> str:
    """The common name of the values' type, e.g. bfloat16, int8, float8_e4m3."""
    if encoding in DTYPES:
        return DTYPES[encoding]
    row = ENCODINGS[encoding]
    if row.family == "integer":
        return ("u" if encoding.startswith("U") else "") + f"int{row.bits}"
    return f"complex{row.bits}" if row.components == 2 else encoding.lower().replace("f", "float", 1)


def metadata_oddity(old: Checkpoint, new: Checkpoint) -> Iterable[Oddity]:
    """A warning naming the metadata entries that differ, when any does."""
    keys = [key for key in {**old.metadata, **new.metadata} if old.metadata.get(key) != new.metadata.get(key)]
    if keys:
        shown = ", ".join(repr(key) for key in sorted(keys)[:8]) + (", ..." if len(keys) > 8 else "")
        yield Oddity("metadata_differs", f"{len(keys)} metadata entries differ: {shown}", path=new.path)
