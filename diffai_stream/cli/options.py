"""The options of a comparison, made from `Options` and the catalogues: a flag is written down in one place only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import click

from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.cli.parameters import (
    KIB,
    Amount,
    CheckpointPath,
    Limit,
    OneOf,
    Renaming,
    RowOf,
    Size,
    SomeOf,
    Whole,
    shown_size,
)
from diffai_stream.cli.sections import SectionOption
from diffai_stream.errors import UsageError
from diffai_stream.options import Options
from diffai_stream.report.catalogue import WRITERS

MIN_CHUNK_NBYTES = 64 * KIB
FAIL_ON = ("different", "warning", "critical", "gate")
COLORS = ("auto", "always", "never")
LOG_FORMATS = tuple(name for name, row in WRITERS.items() if row.is_log)
PROGRESS = ("auto", "bar", "log", "json", "none")
IO = ("auto", "mmap", "pread")
DOCUMENTS = ("review_friendly", "generate_report", "include_charts")
EXECUTORS = ("threads", "synchronous", "distributed")

_DEFAULTS = Options()
_COMPARISON, _FIGURES, _OUTPUT = "What is compared", "What is measured", "What is printed"
_GATES, _STATUS, _RESOURCES = "Gates", "Exit status", "How it runs"


@dataclass(frozen=True)
class Row:
    """One field of `Options` as an option: flag, default, and whether it repeats follow from the field."""

    field: str
    section: str
    help: str
    type: click.ParamType | type | None = None
    metavar: str | None = None
    name: str = ""
    shown: str = ""

    @property
    def parameter(self) -> str:
        """The name of the option without dashes, which also names its environment variable."""
        return self.name or self.field

    def build(self) -> SectionOption:
        """The option for click."""
        flag = "--" + self.parameter.replace("_", "-")
        default = getattr(_DEFAULTS, self.field)
        shown = self.shown or str(default or "")
        text = self.help or _title_of(flag)
        help = f"{text}  [default: {shown}]" if shown and not isinstance(default, tuple) else text
        if isinstance(default, bool):
            return SectionOption([flag], self.section, is_flag=True, help=help)
        repeats = isinstance(default, tuple) and not isinstance(self.type, SomeOf)
        return SectionOption([flag], self.section, type=self.type, metavar=self.metavar, help=help, multiple=repeats)


def _title_of(flag: str) -> str:
    """The help of a flag that takes a value and asks for an analysis by that: the title of its row."""
    title = next(row.title for row in ANALYSES.values() if row.flag == flag)
    return f"{title[:1].upper()}{title[1:]}."


ROWS = (
    Row("include", _COMPARISON, "Only tensors whose name matches (* ? [] wildcards); repeatable.", str, "PATTERN"),
    Row("exclude", _COMPARISON, "No tensors whose name matches; repeatable.", str, "PATTERN"),
    Row(
        "maps",
        _COMPARISON,
        "Tensor OLD is called NEW on the other side (* stands for any text); repeatable.",
        Renaming(),
        "OLD=NEW",
        name="map",
    ),
    Row(
        "ignore_optimizer_state",
        _COMPARISON,
        "Only the weights of training checkpoints: no optimizer state, averages, gradients, settings.",
    ),
    Row("compare_gradients", _COMPARISON, "These count for the verdict too, where both checkpoints have them."),
    Row("epsilon", _COMPARISON, "Equal when |new - old| <= E + R |old|: this is E.", Amount(), "E"),
    Row("relative_tolerance", _COMPARISON, "... and this is R.", Amount(), "R"),
    Row(
        "quantization_aware",
        _COMPARISON,
        "What rounding to another encoding explains is no change; losses are judged by what the encoding must lose.",
    ),
    Row(
        "model_type",
        _COMPARISON,
        "Names that tell nothing are those of this family (llama, gpt2, bert, ...).",
        str,
        "NAME",
    ),
    Row("merge_base", "Analyses", "", CheckpointPath(), "BASE", name="merge_analysis"),
    Row("stats", _FIGURES, "Add quantiles, skewness, kurtosis, distribution distances, ULPs."),
    Row("histograms", _FIGURES, "Add 128-bin histograms to the records."),
    Row("fast", _FIGURES, "Leave histograms and all that needs them out."),
    Row(
        "precision_loss_threshold",
        _FIGURES,
        "Mark tensors whose relative change exceeds X; implies the quantization analysis.",
        Amount(),
        "X",
    ),
    Row("all_analyses", "Analyses", "All analyses but the gates, which set the exit status, and the opt-in ones."),
    Row(
        "learning_rate",
        _FIGURES,
        "Learning rate of the run: gradients are then estimated where none are stored.",
        Amount(),
        "X",
    ),
    Row("memory_bandwidth", _FIGURES, "Bytes a second of the memory that the model runs in, e.g. 3.35e12.", Amount(), "X"),
    Row("peak_flops", _FIGURES, "Operations a second of the hardware, e.g. 9.9e14.", Amount(), "X"),
    Row("tolerance", _GATES, "Greatest relative change of a layer.", Amount(), "X"),
    Row(
        "tolerance_per_layer",
        _GATES,
        "Another limit for layers or tensors that match; repeatable, the last that matches counts.",
        Limit(),
        "PATTERN=VALUE",
    ),
    Row("expect_unchanged", _GATES, "Layers or tensors that must not change; repeatable.", str, "PATTERN"),
    Row("min_sqnr", _GATES, "Least signal to noise ratio of a changed tensor, dB.", Amount(), "DB"),
    Row("max_size", _GATES, "Greatest size of the new tensors as stored.", Size(), "SIZE"),
    Row("include_unchanged", _OUTPUT, "Print unchanged tensors too."),
    Row("sort_by_change_magnitude", _OUTPUT, "Print tensors by size of change, at the end."),
    Row(
        "review_friendly",
        _OUTPUT,
        "The comment for a pull request: verdict, ten largest changes, risks, what was not checked; implies -o markdown.",
    ),
    Row("generate_report", _OUTPUT, "The whole report as a document; implies -o markdown, other outputs carry it as a record."),
    Row("include_charts", _OUTPUT, "Draw charts into the report."),
    Row("top", _OUTPUT, "Rows of ranked tables; 0 is all.", Whole(), "N"),
    Row("strict", _STATUS, "Only identical is 0; equivalent is 1."),
    Row("exit_zero", _STATUS, "Exit with 0 where it would be 1."),
    Row("fail_on", _STATUS, f"What counts for status 1: some of {', '.join(FAIL_ON)}.", SomeOf(FAIL_ON), "LIST"),
    Row("io", _RESOURCES, "How files are read: auto, mmap or pread.", OneOf(IO), "MODE"),
    Row("memory_limit", _RESOURCES, "Refuse a run that needs more memory (16MiB, 1G, 500MB).", Size(), "SIZE"),
    Row(
        "chunk_size",
        _RESOURCES,
        "Bytes of one task; never changes a result.",
        Size(MIN_CHUNK_NBYTES),
        "SIZE",
        shown=shown_size(_DEFAULTS.chunk_size),
    ),
    Row("workers", _RESOURCES, "Threads that compute.", Whole(1), "N", shown="the number of cores"),
    Row("executor", _RESOURCES, "Who computes: threads, synchronous or distributed.", OneOf(EXECUTORS), "NAME"),
    Row("scheduler", _RESOURCES, "Address of a dask scheduler (tcp://...); implies --executor distributed.", str, "ADDRESS"),
    Row("scheduler_file", _RESOURCES, "File in which a dask scheduler wrote its address.", str, "PATH"),
    Row(
        "path_maps",
        _RESOURCES,
        "Workers of the scheduler find the files below LOCAL under REMOTE; repeatable.",
        Renaming("LOCAL=REMOTE"),
        "LOCAL=REMOTE",
        name="path_map",
    ),
    Row("tls_ca_file", _RESOURCES, "Certificate authority of a scheduler at tls://..., a PEM file.", CheckpointPath(), "PATH"),
    Row("tls_cert", _RESOURCES, "Certificate that we show to it.", CheckpointPath(), "PATH"),
    Row("tls_key", _RESOURCES, "Key of that certificate.", CheckpointPath(), "PATH"),
    Row(
        "store",
        _RESOURCES,
        "Keep finished tensors in this directory; the next run with it reads only what is missing.",
        CheckpointPath(),
        "PATH",
    ),
)
"""Every field of `Options` but the analyses, which have flags of their own."""


class Printing(NamedTuple):
    """How the records are printed; nothing of it changes a record."""

    output: str | None
    color: Any
    progress: Any
    timestamps: bool
    charts: bool = False
    review: bool = False


def record_options(fields: Iterable[str] | None = None) -> list[click.Option]:
    """The options of the fields named (all by default) and those of printing."""
    wanted = None if fields is None else set(fields)
    built = [row.build() for row in ROWS if wanted is None or row.field in wanted]
    head = [option for option in built if option.section in (_COMPARISON, _FIGURES)]
    output = [option for option in built if option.section == _OUTPUT]
    return [*head, *_printing_options(), *output, *[option for option in built if option not in head + output]]


def _printing_options() -> list[SectionOption]:
    log_help = f"Log events instead of records, each with its time: {' or '.join(LOG_FORMATS)}."
    progress = "On stderr: auto (a bar on a terminal, lines in a log), bar, log, json or none."
    return [
        SectionOption(
            ["-o", "--output", "--output-format", "output"], _OUTPUT, type=RowOf(WRITERS), metavar="NAME", help=output_help()
        ),
        SectionOption(["--markdown-output"], _OUTPUT, is_flag=True, help="Same as -o markdown."),
        SectionOption(["--log-format"], _OUTPUT, type=OneOf(LOG_FORMATS), metavar="NAME", help=log_help),
        SectionOption(["--color"], _OUTPUT, type=OneOf(COLORS), default="auto", metavar="WHEN", help="auto, always or never."),
        SectionOption(["--timestamps"], _OUTPUT, is_flag=True, help="Add the time to each record."),
        SectionOption(["--progress"], _OUTPUT, type=OneOf(PROGRESS), default="auto", metavar="KIND", help=progress),
        SectionOption(["--no-progress"], _OUTPUT, is_flag=True, help="Same as --progress none."),
    ]


def output_help() -> str:
    """The outputs that are known, in words."""
    return f"{', '.join(WRITERS)}.  [default: text on a terminal, else ndjson]"


def analysis_options() -> list[click.Option]:
    """One flag an analysis, those of plug-ins left out."""
    return [_analysis_option(row) for row in ANALYSES.values() if row.flag and not (row.argument or row.plugin)]


def plugin_options(others: Iterable[click.Parameter]) -> list[click.Option]:
    """One flag an analysis of a plug-in; what another option is called already is refused."""
    taken = {word for parameter in others for word in (parameter.name, *parameter.opts)}
    built: list[click.Option] = []
    for row in list(ANALYSES.complete().values()):
        if not row.plugin:
            continue
        option = _analysis_option(row)
        if clash := taken & {option.name, *option.opts}:
            ANALYSES.drop(row.name, f"another option is called {', '.join(sorted(map(str, clash)))}")
        else:
            taken |= {option.name, *option.opts}
            built.append(option)
    return built


def _analysis_option(row: Analysis) -> SectionOption:
    note = " (runs by default)" if row.default else ""
    aliases = [alias for alias in row.aliases if alias.startswith("--")]
    declarations = [row.flag, *aliases, _analysis_parameter(row)]
    return SectionOption(declarations, "Analyses", is_flag=True, help=f"{row.title[:1].upper()}{row.title[1:]}{note}.")


def _analysis_parameter(row: Analysis) -> str:
    return row.flag.removeprefix("--").replace("-", "_")


def printing(values: Mapping[str, Any]) -> Printing:
    """How to print, as parsed. Raises UsageError."""
    kind = values["progress"]
    if values["no_progress"]:
        if kind not in ("auto", "none"):
            raise UsageError(f"--no-progress contradicts --progress {kind}")
        kind = "none"
    review, report, charts = (bool(values.get(key)) for key in DOCUMENTS)
    output = _chosen_output(values, review or report)
    if charts and not (report or is_report(output)):
        raise UsageError("--include-charts is for a report; add --generate-report or -o html")
    return Printing(output, values["color"], kind, values["timestamps"], charts, review and not report)


def _chosen_output(values: Mapping[str, Any], has_document: bool) -> str | None:
    """The output by name; None leaves it to where it goes. Raises UsageError where several are named."""
    log, output = values["log_format"], values["output"]
    if log and output not in (None, log):
        raise UsageError(f"--log-format {log} is an output of its own; leave --output {output} out")
    output = log or output
    if values.get("markdown_output"):
        if output not in (None, "markdown"):
            raise UsageError(f"--markdown-output contradicts the output {output}; choose one")
        return "markdown"
    return output or ("markdown" if has_document else None)


def is_report(output: str | None) -> bool:
    """Whether an output is the report itself."""
    return output is not None and output in WRITERS and WRITERS[output].is_report


def chosen_options(values: Mapping[str, Any]) -> Options:
    """The options as parsed, with what they imply. Raises UsageError where they contradict each other."""
    fields = {row.field: values[row.parameter] for row in ROWS if values.get(row.parameter) is not None}
    if fields.get("all_analyses"):
        ANALYSES.complete()
    _reject_contradictions(fields)
    if fields.get("scheduler") or fields.get("scheduler_file"):
        fields["executor"] = "distributed"
    if is_report(_chosen_output(values, bool(fields.get("review_friendly") or fields.get("generate_report")))):
        fields |= dict.fromkeys(DOCUMENTS, False)  # the output is the document: no record has to carry it
    return Options(analyses=_chosen_analyses(values, fields), **fields)


def _chosen_analyses(values: Mapping[str, Any], fields: Mapping[str, Any]) -> tuple[str, ...]:
    implied = {"quantization"} if fields.get("precision_loss_threshold") is not None else set()
    implied |= {"gradient_analysis"} if fields.get("compare_gradients") or fields.get("learning_rate") is not None else set()
    implied |= {"merge_analysis"} if fields.get("merge_base") else set()
    asked = {row.name for row in ANALYSES.values() if row.flag and not row.argument and values.get(_analysis_parameter(row))}
    return tuple(name for name in ANALYSES if name in asked | implied)


def _reject_contradictions(fields: Mapping[str, Any]) -> None:
    if fields.get("fast") and fields.get("histograms"):
        raise UsageError("--fast leaves the histograms out that --histograms asks for; choose one")
    if fields.get("ignore_optimizer_state") and fields.get("compare_gradients"):
        raise UsageError("--ignore-optimizer-state leaves out what --compare-gradients counts; choose one")
    if fields.get("scheduler") and fields.get("scheduler_file"):
        raise UsageError("--scheduler and --scheduler-file both name a scheduler; choose one")
    for name in ("path_maps", "tls_ca_file", "tls_cert", "tls_key"):
        if fields.get(name) and not (fields.get("scheduler") or fields.get("scheduler_file")):
            raise UsageError(f"--{name.removesuffix('s').replace('_', '-')} is for --scheduler or --scheduler-file; add one")
    option = "--scheduler" if fields.get("scheduler") else "--scheduler-file" if fields.get("scheduler_file") else ""
    executor = fields.get("executor")
    if option and executor not in (None, "distributed"):
        raise UsageError(f"{option} needs --executor distributed, not {executor}; leave --executor out")
