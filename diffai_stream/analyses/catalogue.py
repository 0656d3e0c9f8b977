"""The rows of every analysis, family by family. A new one is a row of its family and a small module with its functions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches

from diffai_stream.analyses.attention.rows import ROWS as ATTENTION
from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.efficiency.rows import ROWS as EFFICIENCY
from diffai_stream.analyses.fields import AnomalyFields, DistributionShiftFields, LayerImpactFields, QuantizationFields
from diffai_stream.analyses.gates.rows import ROWS as GATES
from diffai_stream.analyses.representation.rows import ROWS as REPRESENTATION
from diffai_stream.analyses.structure.rows import ROWS as STRUCTURE
from diffai_stream.analyses.training.rows import ROWS as TRAINING
from diffai_stream.analyses.updates.rows import ROWS as UPDATES
from diffai_stream.errors import UsageError
from diffai_stream.options import Options
from diffai_stream.plugins import Catalogue, EntryPoint, broken, told

_ROWS = (
    Analysis(
        name="layer_impact",
        flag="--show-layer-impact",
        title="how much each layer changed, ranked",
        family="comparison",
        scopes=("layer", "model"),
        basis="measured",
        module="diffai_stream.analyses.layer_impact",
        fields=LayerImpactFields,
        default=True,
        needs=("moments", "extrema", "counts", "agreement", "key_histogram"),
        reference="relative Frobenius norm; Chan, Golub & LeVeque 1979 for the merge over tensors",
    ),
    Analysis(
        name="quantization",
        flag="--quantization-analysis",
        title="what a cast or quantization cost, tensor by tensor",
        family="comparison",
        scopes=("tensor", "model"),
        basis="measured",
        module="diffai_stream.analyses.quantization",
        fields=QuantizationFields,
        default=True,
        ranks_tensors=True,
        needs=("agreement", "key_histogram", "row_sums", "casts"),
        reference="signal to quantization noise; scale of least squares per row",
    ),
    Analysis(
        name="distribution_shift",
        flag="--distribution-shift",
        title="how the distribution of each tensor moved, from each side alone; runs by itself against a profile",
        family="comparison",
        scopes=("tensor",),
        basis="measured",
        module="diffai_stream.analyses.distribution_shift",
        fields=DistributionShiftFields,
        needs=("moments", "counts", "key_histogram"),
        reference="Kolmogorov-Smirnov distance; Lin 1991 for the Jensen-Shannon divergence",
    ),
    Analysis(
        name="anomaly",
        flag="--anomaly-detection",
        title="weights that look broken: not finite, exploding, dead, constant, duplicated, untrained",
        family="health",
        scopes=("tensor", "model"),
        basis="measured",
        module="diffai_stream.analyses.anomaly",
        fields=AnomalyFields,
        default=True,
        one_sided=True,
        ranks_tensors=True,
        reads_identical=True,
        needs=("moments", "extrema", "counts", "key_histogram", "row_sums", "column_sums", "stored_codes", "content_hash"),
        reference="robust z-scores by median absolute deviation, Iglewicz & Hoaglin 1993",
    ),
)

FAMILIES: tuple[tuple[Analysis, ...], ...] = (
    *(_ROWS, STRUCTURE, EFFICIENCY, REPRESENTATION, ATTENTION, TRAINING, UPDATES),
    GATES,
)
"""The rows of each family folder, in the order in which they run: gates and documents, which judge the others, come last."""

RECORD_TYPES = ("header", "tensor", "warning", "error", "skipped", "review", "report", "summary")
"""Types of records that are not findings: no analysis can be called so."""

_FLAG = re.compile(r"--[a-z][a-z0-9]*(-[a-z0-9]+)*")


def _refused(row: Analysis) -> str | None:
    """Why the row of a plug-in cannot be taken: it must change nothing for those who do not ask for it."""
    if row.default:
        return "an analysis of a plug-in cannot run by default: only its flag asks for it"
    if row.argument:
        return "the flag of an analysis of a plug-in takes no value"
    if row.name in RECORD_TYPES or not row.name.isidentifier():
        return f"no type of record can be called {row.name!r}"
    if not _FLAG.fullmatch(row.flag):
        return f"{row.flag!r} is no flag; write it like --{row.name.replace('_', '-')}"
    taken = {flag: other.name for other in ANALYSES.values() for flag in (other.flag, *other.aliases)}
    owner = next((taken[flag] for flag in (row.flag, *row.aliases) if flag in taken), None)
    return f"the analysis {owner!r} has its flag" if owner else None


def _adopted(row: Analysis, point: EntryPoint) -> Analysis:
    return replace(row, plugin=point.distribution)


ANALYSES: Catalogue[Analysis] = Catalogue("analyses", Analysis, (row for rows in FAMILIES for row in rows), _refused, _adopted)


def completed(options: Options) -> Options:
    """The options with the analyses that `--all-analyses` stands for: all but gates and opt-in ones."""
    if not options.all_analyses:
        return options
    known = ANALYSES.complete().values()
    names = {*options.analyses, *(row.name for row in known if not (row.is_gate or row.is_opt_in))}
    return replace(options, analyses=tuple(name for name in ANALYSES if name in names))


def chosen(names: Iterable[str]) -> list[Analysis]:
    """The rows that run: the default ones and those named, in catalogue order. Raises UsageError for an unknown name."""
    wanted = set(names)
    if wanted - ANALYSES.keys():
        ANALYSES.complete()
    left_out = {plugin.name for plugin in broken() if plugin.kind == "analyses"}  # a warning of the run tells why
    for name in sorted(wanted - ANALYSES.keys() - left_out):
        near = get_close_matches(name, ANALYSES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(ANALYSES)}"
        raise UsageError(f"no analysis is called {name!r}{hint}")
    return [row for row in list(ANALYSES.values()) if (row.default or row.name in wanted) and _works(row)]


def _works(row: Analysis) -> bool:
    """Whether the module of a plug-in can be imported; where not, its row is taken out and told of."""
    try:
        return not row.plugin or bool(row.load())
    except Exception as error:
        ANALYSES.drop(row.name, told(error))
        return False
