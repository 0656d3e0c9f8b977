"""The records a comparison yields: plain dicts at run time, typed and documented here, in the order they are printed.

    header, (tensor | error | warning | finding | skipped)*, summary

The text of each `Annotated` becomes the description of the field in the JSON Schema (`schema.py`) and in the reference
pages. Names and indices are values, never keys; a field keeps one JSON type for ever; a float that cannot be computed is
null and the counts beside it say why. A field that is `NotRequired` is printed only when an option asks for it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NotRequired, TypeAlias, TypedDict

SCHEMA_VERSION: Final = 1

Record: TypeAlias = Mapping[str, Any]
"""Any record, as the writers see it: they read records and never change them."""

TensorStatus: TypeAlias = Literal["unchanged", "changed", "added", "removed", "reshaped", "retyped"]
Scope: TypeAlias = Literal["tensor", "layer", "model"]
Basis: TypeAlias = Literal["measured", "derived", "estimated"]
Severity: TypeAlias = Literal["info", "warning", "critical"]
Verdict: TypeAlias = Literal["identical", "equivalent", "different", "failed", "interrupted"]
Difference: TypeAlias = Literal["container", "sharding", "names", "encoding", "layout", "metadata", "optimizer_state"]


class RecordBase(TypedDict):
    """What every record carries, whatever its type."""

    schema_version: Annotated[int, "major version of this schema; a changed meaning is a new number"]
    run_id: Annotated[str, "hash of the inputs and of the options that can change a figure; equal runs have equal ids"]
    seq: Annotated[int, "number of the record in the run, from 0"]
    timestamp: NotRequired[Annotated[str, "time of printing, ISO 8601 UTC (with --timestamps)"]]
    pair: NotRequired[Annotated[int, "which consecutive pair of checkpoints, from 0 (with more than two checkpoints)"]]


# --- header ----------------------------------------------------------------------------------------------------------


class MetadataItem(TypedDict):
    """One entry of the metadata that a checkpoint stores beside its tensors."""

    key: Annotated[str, "name of the entry"]
    value: Annotated[str, "its value as text"]


class CheckpointInfo(TypedDict):
    """One input as its headers describe it."""

    path: Annotated[str, "the path or address as given"]
    format: Annotated[str, "name of the format that reads it, as in `diffai formats`"]
    tensor_count: Annotated[int, "tensors in it"]
    parameter_count: Annotated[int, "elements of its weights"]
    stored_nbytes: Annotated[int, "bytes its tensors take where they are stored"]
    metadata: Annotated[list[MetadataItem], "what it says about itself, in the order of the file"]
    metadata_truncated: NotRequired[Annotated[bool, "true when metadata was cut to keep the line short"]]


class ToolInfo(TypedDict):
    """The program that printed the records."""

    name: Annotated[str, "diffai_stream"]
    version: Annotated[str, "its version"]


class PlanInfo(TypedDict):
    """What the run is going to cost; known before the first byte of a tensor is read."""

    batch_count: Annotated[int, "batches of chunks the bytes are read in"]
    read_nbytes: Annotated[int, "bytes that will be read"]
    chunk_nbytes: Annotated[int, "bytes of one chunk at most, on the wider side"]
    projected_memory_nbytes: Annotated[int, "upper bound of the memory the run needs, by formula"]
    executor: Annotated[str, "synchronous, threads or distributed"]
    worker_count: Annotated[int, "workers that compute at the same time"]


class HeaderRecord(RecordBase):
    """First record: what is compared, with which options, at what cost."""

    type: Literal["header"]
    tool: Annotated[ToolInfo, "the program"]
    old: Annotated[CheckpointInfo, "the first checkpoint"]
    new: Annotated[CheckpointInfo, "the second checkpoint (the last one with more than two)"]
    checkpoints: NotRequired[Annotated[list[CheckpointInfo], "all of them in order (with more than two checkpoints)"]]
    options: Annotated[dict[str, Any], "the options in force that can change a figure"]
    plan: Annotated[PlanInfo, "the cost of the run"]


# --- tensor ----------------------------------------------------------------------------------------------------------


class SideInfo(TypedDict):
    """One side of a pair, as stored."""

    name: Annotated[str, "name of the tensor on this side"]
    dtype: Annotated[str, "dtype of the values, e.g. float32"]
    encoding: Annotated[str, "how they are stored, e.g. BF16, Q4_K; as in `diffai formats`"]
    shape: Annotated[list[int], "elements along each axis as stored; [] for a scalar"]
    numel: Annotated[int, "elements compared"]
    stored_nbytes: Annotated[int, "bytes stored for them, scales and zero points included"]
    compared_shape: NotRequired[Annotated[list[int], "axes as compared, where the pair sees the tensor in another layout"]]


class Quantiles(TypedDict):
    """Quantiles by the inverted distribution function: values that occur (encodings of more than 16 bits: within 2^-7)."""

    p001: Annotated[float | None, "0.1 % quantile"]
    p01: Annotated[float | None, "1 % quantile"]
    p05: Annotated[float | None, "5 % quantile"]
    p25: Annotated[float | None, "25 % quantile"]
    p50: Annotated[float | None, "median"]
    p75: Annotated[float | None, "75 % quantile"]
    p95: Annotated[float | None, "95 % quantile"]
    p99: Annotated[float | None, "99 % quantile"]
    p999: Annotated[float | None, "99.9 % quantile"]


class Histogram(TypedDict):
    """Equal-width histogram from the minimum to the maximum; that of a delta is symmetric about 0."""

    edges: Annotated[list[float], "129 edges, ascending"]
    counts: Annotated[list[int], "128 counts"]


class SideStats(TypedDict):
    """Figures of the finite elements of old, of new, or of delta = new - old; the counts cover all elements."""

    mean: Annotated[float | None, "arithmetic mean; null when no element is finite"]
    std: Annotated[float | None, "population standard deviation (ddof 0); null when no element is finite"]
    min: Annotated[float | None, "least element; null when no element is finite"]
    max: Annotated[float | None, "greatest element; null when no element is finite"]
    l2_norm: Annotated[float | None, "root of the sum of squares; 0.0 when no element is finite, null when beyond float64"]
    abs_max: Annotated[float | None, "greatest absolute value; null when no element is finite"]
    zero_count: Annotated[int, "elements equal to 0, -0 included"]
    nan_count: Annotated[int, "elements that are NaN"]
    posinf_count: Annotated[int, "elements that are +Inf"]
    neginf_count: Annotated[int, "elements that are -Inf"]
    skewness: NotRequired[Annotated[float | None, "third standardized moment; null when std is 0 (with --stats)"]]
    excess_kurtosis: NotRequired[Annotated[float | None, "fourth standardized moment - 3; null when std is 0 (with --stats)"]]
    quantiles: NotRequired[Annotated[Quantiles, "nine quantiles (with --stats)"]]
    sparsity_ratio: NotRequired[Annotated[float | None, "zero_count / numel, 0..1 (with --stats)"]]
    histogram: NotRequired[Annotated[Histogram, "128 equal bins (with --histograms)"]]


class StatsTriple(TypedDict):
    """Figures of both sides and of their difference."""

    old: Annotated[SideStats | None, "the old elements; null when there is no old side"]
    new: Annotated[SideStats | None, "the new elements; null when there is no new side"]
    delta: Annotated[SideStats | None, "new - old; null unless the shapes are equal"]


class ChangeStats(TypedDict):
    """How far new is from old, over the elements that are finite on both sides; changed_count covers all elements."""

    changed_count: Annotated[int, "elements whose decoded values differ (NaN equals NaN, -0 equals +0)"]
    changed_ratio: Annotated[float | None, "changed_count / numel, 0..1; null for an empty tensor"]
    sign_flip_count: Annotated[int, "elements with old * new < 0"]
    l2_norm: Annotated[float | None, "l2 norm of new - old; null when beyond float64"]
    relative_l2: Annotated[float | None, "l2 norm of new - old over that of old; null when old is 0"]
    cosine_similarity: Annotated[float | None, "cosine of the angle between old and new, -1..1; null when either is 0"]
    cosine_distance: Annotated[float | None, "1 - cosine, in a form that stays exact near 0; null when either is 0"]
    sqnr_db: Annotated[float | None, "10 log10(sum old^2 / sum (new - old)^2), dB; null when either sum is 0"]
    max_abs: Annotated[float | None, "greatest |new - old|; null when nothing is finite on both sides"]
    max_abs_index: Annotated[list[int] | None, "where it is, one integer an axis, first in C order; null when nothing changed"]
    mean_abs: Annotated[float | None, "mean of |new - old|; null when nothing is finite on both sides"]
    ks: NotRequired[Annotated[float | None, "Kolmogorov-Smirnov distance of the two distributions, 0..1 (with --stats)"]]
    js_distance: NotRequired[Annotated[float | None, "Jensen-Shannon distance, base 2, square root, 0..1 (with --stats)"]]
    wasserstein: NotRequired[Annotated[float | None, "earth mover's distance, in units of the values (with --stats)"]]
    ulp_p50: NotRequired[Annotated[int | None, "median distance in units in the last place (with --stats)"]]
    ulp_p99: NotRequired[Annotated[int | None, "99 % quantile of that distance (with --stats)"]]
    ulp_max: NotRequired[Annotated[int | None, "greatest such distance (with --stats)"]]


class TensorRecord(RecordBase):
    """One pair of tensors that differs (with --include-unchanged: every pair)."""

    type: Literal["tensor"]
    name: Annotated[str, "the old name; the new one when added; the finer side's for split or fused pairs"]
    layer: Annotated[str | None, "the repeated block or top-level module it belongs to; null when none was recognised"]
    role: Annotated[str | None, "what it does in its layer, e.g. attention.q_proj, mlp.up_proj, norm.input; null when unknown"]
    status: Annotated[TensorStatus, "what happened; retyped: equal after decoding, stored in another encoding"]
    match: Annotated[str, "how the pair was found: exact, renamed, tied, fused, permuted, ..."]
    part: NotRequired[Annotated[str, "ema, gradient or optimizer, where a training checkpoint holds more than weights"]]
    old: Annotated[SideInfo | None, "the old side; null when added"]
    new: Annotated[SideInfo | None, "the new side; null when removed"]
    stats: Annotated[StatsTriple, "figures of each side and of the difference"]
    change: Annotated[ChangeStats | None, "the distance between the sides; null unless the shapes are equal"]


# --- findings --------------------------------------------------------------------------------------------------------


class FindingRecord(RecordBase):
    """What an analysis found; `type` is its name and the fields of its catalogue row follow flat."""

    type: Annotated[str, "name of the analysis, e.g. layer_impact"]
    scope: Annotated[Scope, "what the finding is about"]
    subject: Annotated[str, "name of that tensor or layer; `model` for the whole model"]
    basis: Annotated[Basis, "measured from the weights, derived from measured numbers, or estimated by a stated model"]
    severity: NotRequired[Annotated[Severity, "how bad it is, where the analysis judges"]]


class SkippedRecord(RecordBase):
    """An analysis, or a figure of it, that could not be computed."""

    type: Literal["skipped"]
    analysis: Annotated[str, "name of the analysis"]
    subject: Annotated[str, "the tensor or layer it was skipped for; `model` for all"]
    reason: Annotated[str, "why, and what would make it possible"]


# --- trouble ---------------------------------------------------------------------------------------------------------


class WarningRecord(RecordBase):
    """Something readable but odd; the exit status does not change."""

    type: Literal["warning"]
    code: Annotated[str, "stable short name, e.g. trailing_bytes"]
    message: Annotated[str, "one sentence"]
    path: Annotated[str | None, "the file; null when it is about none"]
    tensor: Annotated[str | None, "the tensor; null when it is about none"]


class ErrorRecord(RecordBase):
    """Something unreadable; the run goes on and ends with exit status 2."""

    type: Literal["error"]
    error: Annotated[str, "class of the error, e.g. TensorError"]
    message: Annotated[str, "one sentence, with what to try where that is known"]
    path: Annotated[str | None, "the file; null when it is about none"]
    tensor: Annotated[str | None, "the tensor; null when it is about none"]
    offset: Annotated[int | None, "byte offset in the file; null when unknown"]


# --- summary ---------------------------------------------------------------------------------------------------------


class StatusCounts(TypedDict):
    """Pairs by status; `renamed` counts those not matched exactly, each under its status too."""

    unchanged: Annotated[int, "equal values, equal encoding"]
    changed: Annotated[int, "some value differs"]
    added: Annotated[int, "only in new"]
    removed: Annotated[int, "only in old"]
    renamed: Annotated[int, "matched otherwise than by the same name"]
    reshaped: Annotated[int, "shapes differ"]
    retyped: Annotated[int, "equal values, another encoding"]
    error: Annotated[int, "could not be read"]


class ParameterCounts(TypedDict):
    """Elements of the whole model."""

    old: Annotated[int, "elements of the old checkpoint"]
    new: Annotated[int, "elements of the new checkpoint"]
    changed: Annotated[int | None, "elements that differ; null against a profile, where something changed"]


class SummaryRecord(RecordBase):
    """Last record; when it is missing the run was cut off. Only here are figures that change from run to run."""

    type: Literal["summary"]
    status: Annotated[Verdict, "the verdict about the weights; failed whenever an error record was printed"]
    differs_in: Annotated[list[Difference], "what differs around the values"]
    counts: Annotated[StatusCounts, "pairs by status"]
    parameter_count: Annotated[ParameterCounts, "elements of old, of new, and those that differ"]
    relative_l2: Annotated[float | None, "l2 norm of all deltas over that of the old elements compared; null when that is 0"]
    exit_status: Annotated[int, "exit status of the program"]
    read_nbytes: Annotated[int, "bytes read"]
    elapsed_seconds: Annotated[float, "wall-clock time of the run, s"]
    peak_memory_nbytes: Annotated[int, "greatest resident memory of the process"]


# --- documents -------------------------------------------------------------------------------------------------------


class ReviewRecord(RecordBase):
    """The comment for a pull request (--review-friendly), before the last summary; it is about the whole run."""

    type: Literal["review"]
    format: Annotated[Literal["markdown"], "how the text is written"]
    text: Annotated[str, "verdict, the ten largest changes, risks, what was not checked"]


class ReportRecord(RecordBase):
    """The whole report (--generate-report), before the last summary; it is about the whole run."""

    type: Literal["report"]
    format: Annotated[Literal["markdown"], "how the text is written"]
    text: Annotated[str, "everything that the other records say, as far as --top lets it"]


CORE_RECORDS: Final[Mapping[str, type]] = {
    "header": HeaderRecord,
    "tensor": TensorRecord,
    "warning": WarningRecord,
    "error": ErrorRecord,
    "skipped": SkippedRecord,
    "review": ReviewRecord,
    "report": ReportRecord,
    "summary": SummaryRecord,
}
"""The record types that are not findings, by `type`."""
