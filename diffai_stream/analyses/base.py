"""What an analysis is: a row that says what it needs, and functions that turn evidence into findings.

Importing this module and the catalogue loads no numpy, so that `--help` is instant: the functions live in modules that are
imported when the analysis runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple, cast

from diffai_stream.analyses.guard import Guarded
from diffai_stream.context.base import Context
from diffai_stream.formats.base import Checkpoint
from diffai_stream.options import Options


class Finding(NamedTuple):
    """One finding; `fields` are those that the analysis' row declares."""

    scope: str
    subject: str
    basis: str
    fields: dict[str, Any]
    severity: str | None = None


class Skipped(NamedTuple):
    """Why an analysis, or a part of it, could not be computed."""

    subject: str
    reason: str


Findings = Iterable[Finding | Skipped]
PlacedFindings = Iterable[tuple[int, Finding | Skipped]]  # with the place of their tensor in the table


@dataclass(frozen=True)
class Analysis:
    """One row of the catalogue.

    `module` may define `tensor(table, options)`, yielding (place in the table, finding) as soon as some tensors are done,
    `layer(evidence, options)` and `model(evidence, options)`, yielding findings of a layer or of the model, and
    `needs(pair, options)`: the statistics beyond the default ones that it asks for a pair; `needs_in(run, options)`: the
    same as a function of a pair, for those that must know the whole model; `check(pairs, options)` raises UsageError before
    anything is read, and so may `needs_in`. `reads_identical` ones look at sides that are known to be equal too; an
    `is_gate` one sets the exit status, and only its own flag asks for it, as for `is_opt_in` ones, which cost more than the
    rest; `argument` names the value that a flag takes. `default` analyses run without their flag; a flag only adds.
    `one_sided` ones make sense for a single checkpoint; the tensor findings of `ranks_tensors` ones are in the model
    evidence at the end, for them and for those after them in the catalogue; `looks_at_state` ones find what is beside the
    weights there. `plugin` is the package that the row comes from, where that is not this one.
    """

    name: str
    flag: str
    title: str
    family: str
    scopes: tuple[str, ...]
    basis: str
    module: str
    fields: type
    default: bool = False
    one_sided: bool = False
    ranks_tensors: bool = False
    looks_at_state: bool = False
    needs: tuple[str, ...] = ()
    passes: int = 1
    reference: str = ""
    aliases: tuple[str, ...] = ()
    reads_identical: bool = False
    is_gate: bool = False
    is_opt_in: bool = False
    argument: str = ""
    plugin: str = ""

    def load(self) -> ModuleType:
        """The module with the functions; those of a plug-in cannot end a run."""
        module = import_module(self.module)
        return cast(ModuleType, Guarded(self, module)) if self.plugin else module


@dataclass
class RunContext:
    """What is compared, beyond the tensors: both checkpoints, what lies beside them, and the pairs before in a trajectory.

    Of `count` pairs this is number `index`; of those before, what was `kept` is at hand for the last one only. `memo` is for
    what the analyses of a family derive once for all of them. `base` is what both sides were made from, where that is told,
    `model_type` what the user says they are.
    """

    old: Checkpoint
    new: Checkpoint
    pairs: Sequence[Any] = ()
    previous: Sequence[ModelEvidence] = field(default_factory=tuple)
    index: int = 0
    count: int = 1
    base: Checkpoint | None = None
    model_type: str = ""
    memo: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def is_last(self) -> bool:
        """Whether no pair follows."""
        return self.index + 1 == self.count

    @cached_property
    def layers(self) -> dict[str, list[Any]]:
        """The pairs by layer."""
        found: dict[str, list[Any]] = {}
        for pair in self.pairs:
            found.setdefault(pair.layer, []).append(pair)
        return found

    @cached_property
    def contexts(self) -> tuple[Context, Context]:
        """What lies beside old and new; read when it is first asked for."""
        from diffai_stream.context.read import context_of

        return context_of(self.old), context_of(self.new)

    @cached_property
    def configurations(self) -> tuple[Context, Context]:
        """What lies beside old and new without the tokenizers, which take long to read; of a trajectory read once."""
        from diffai_stream.context.read import context_of

        new = self._typed(context_of(self.new, with_tokenizer=False))
        if self.previous:
            return self.previous[-1].run.configurations[1], new
        return self._typed(context_of(self.old, with_tokenizer=False)), new

    def _typed(self, context: Context) -> Context:
        """A configuration that says what the user says of the model, where it says nothing itself."""
        if not self.model_type or context.config.get("model_type"):
            return context
        return context._replace(config={**context.config, "model_type": self.model_type})


class Columns(NamedTuple):
    """The named columns of a table (`statistics.finishing.Finished`) at one place of it."""

    table: Mapping[str, Any]
    place: int

    def get(self, name: str) -> Any:
        """The value, or array of values, by this name; None where it was not computed."""
        values = self.table.get(name)
        return None if values is None else values[self.place]


class Evidence(NamedTuple):
    """A finished tensor as analyses see it: columns and small arrays, never tensor data.

    `stats` and `change` are what the tensor record prints; `row` is the state row, views that were not measured empty;
    `columns` are named figures of the histograms; `extras` the finalized other statistics, `apart` those of sides that were
    scanned apart, old and new.
    """

    pair: Any
    status: str
    stats: dict[str, Any]
    change: dict[str, Any] | None
    row: Any
    columns: Columns
    extras: dict[Any, dict[str, Any]]
    is_read: bool
    apart: dict[str, dict[Any, dict[str, Any]]]


class Table(NamedTuple):
    """Finished tensors side by side: a rule judged on their columns costs only for the tensors that trip it.

    `evidence` of each; `rows` their state rows, float64[S, ROW_WIDTH]; `measured` bool[S, 3 views]; `columns` arrays of
    length S; `coarse` the coarse histograms, to be merged by layer.
    """

    evidence: Sequence[Evidence]
    rows: Any
    measured: Any
    columns: dict[str, Any]
    coarse: Sequence[Any]
    run: RunContext


class LayerEvidence(NamedTuple):
    """A layer whose tensors are all done: its name, merged figures, and the digests of its tensors in plan order.

    `extras` are the other statistics of its tensors by name, each by statistic.
    """

    name: str
    stats: dict[str, Any]
    tensors: tuple[Any, ...]
    unread_count: int
    extras: Mapping[str, Mapping[Any, dict[str, Any]]]
    run: RunContext


class ModelEvidence(NamedTuple):
    """All of the model: the digest of every tensor in plan order, the findings by analysis so far, layer ones too.

    `extras` are those other statistics of tensors by name that are `kept` until the end; `layers` the merged figures by
    layer; `state` what is beside the weights, where an analysis looks at it.
    """

    tensors: Sequence[Any]
    findings: dict[str, list[Finding]]
    extras: dict[str, dict[Any, dict[str, Any]]]
    layers: dict[str, dict[str, Any]]
    run: RunContext
    state: Sequence[StateTensor] = ()


class SideSums(NamedTuple):
    """One side of a tensor beside the weights: finite elements, their sum and sum of squares, elements that are not finite."""

    count: int  # type: ignore[assignment]  # hides tuple.count
    total: float
    squares: float
    nonfinite: int


class StateTensor(NamedTuple):
    """What is kept until the end of a tensor beside the weights: its part, sums of each side, None where it was not read."""

    name: str
    part: str
    old: SideSums | None
    new: SideSums | None
    dot: float


class Digest(NamedTuple):
    """What is kept of a tensor until the end: scalars only.

    `numel` is that of the larger side; `compared_count` the real numbers compared, 0 unless both shapes are equal;
    `old_rms` and `new_rms` are over the finite elements; `allowed_squares` is the Σdelta² that the encoding of
    new explains, with `--quantization-aware`.
    """

    name: str
    layer: str
    role: str
    status: str
    shape: tuple[int, ...]
    numel: int
    compared_count: int
    old_rms: float | None
    new_rms: float | None
    old_squares: float
    delta_squares: float
    changed_count: int
    old_nonfinite: int
    new_nonfinite: int
    old_hash: str | None
    new_hash: str | None
    allowed_squares: float = 0.0


def functions(analyses: Iterable[Analysis], scope: str) -> list[tuple[Analysis, Callable[[Any, Options], Any]]]:
    """The functions of a scope that the modules of these rows define, with their rows."""
    found = [(analysis, getattr(analysis.load(), scope, None)) for analysis in analyses]
    return [(analysis, function) for analysis, function in found if function is not None]
