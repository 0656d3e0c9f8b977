"""Write the reference pages from the catalogues they describe: `python docs/generate.py`, run by `make docs`.

    python docs/generate.py            write the pages under docs/reference
    python docs/generate.py --check    write nothing; exit 1 and name the pages that are stale

Nothing on these pages is written down twice: options come from the commands, fields from the record types, rows from the
catalogues that the program itself runs on.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import click

import diffai_stream
from diffai_stream import errors, verdict
from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.cli import process
from diffai_stream.cli.app import app
from diffai_stream.cli.options import ROWS
from diffai_stream.encodings.base import Encoding
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry
from diffai_stream.formats.catalogue import FORMATS
from diffai_stream.formats.quantized.catalogue import FAMILIES
from diffai_stream.options import NEUTRAL, Options
from diffai_stream.report.catalogue import WRITERS
from diffai_stream.report.records import CORE_RECORDS, SCHEMA_VERSION, FindingRecord, RecordBase
from diffai_stream.report.schema import build_schema
from diffai_stream.statistics.catalogue import STATISTICS, StatisticRow
from diffai_stream.storage.extent import Extent

REFERENCE = Path(__file__).parent / "reference"
NOTICE = "<!-- Written by docs/generate.py from the program itself; change it there, then `make docs`. -->"
ENVIRONMENT = "DIFFAI"
Rows = Iterable[Sequence[object]]
Schema = Mapping[str, Any]


# --- Markdown --------------------------------------------------------------------------------------------------------


def page(title: str, *parts: str) -> str:
    """A page: its notice, its title, its parts with a blank line between them."""
    return "\n\n".join([NOTICE, f"# {title}", *(part.strip("\n") for part in parts if part)]) + "\n"


def table(titles: Sequence[str], rows: Rows) -> str:
    """A Markdown table; empty when it has no rows."""
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    head = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return "\n".join([*head, *lines]) if lines else ""


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", r"\|")


def code(text: object) -> str:
    """Text as code."""
    return f"`{text}`"


def codes(texts: Iterable[object]) -> str:
    """A list of code words."""
    return " ".join(map(code, texts))


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ":")) else ".") if text else ""


# --- the command line ------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Every command: usage, help, options by section with their environment variables; then the exit statuses."""
    with click.Context(app, info_name="diffai", **app.context_settings) as root:
        commands = [_command(command, root) for command in app.commands.values()]
    return page(
        "Command line",
        "`diffai OLD NEW` is short for `diffai compare OLD NEW`. Results go to standard output, everything that is said "
        "about them to standard error. `diffai` alone prints three examples; `diffai --version` prints the versions of "
        "the program and of its records.",
        "An option that names an environment variable takes its value from there when it is not given: "
        "`DIFFAI_OUTPUT=json` is `--output json`, `DIFFAI_STATS=1` is `--stats`, and a repeatable option takes words "
        "separated by spaces.",
        *commands,
        "## Outputs",
        "`-o NAME` chooses how records are printed.",
        table(("name", "what it is", "media type"), [(code(w.name), w.title, code(w.media_type)) for w in WRITERS.values()]),
        "## Exit status",
        table(("status", "meaning"), _exit_statuses()),
        "## Environment",
        table(("variable", "meaning"), _environment()),
    )


def _command(command: click.Command, root: click.Context) -> str:
    with click.Context(command, info_name=command.name, parent=root, **command.context_settings) as context:
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        sections: dict[str, list[tuple[str, str, str]]] = {}
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and isinstance(parameter, click.Option):
                row = (code(record[0]), record[1], _variable(parameter))
                sections.setdefault(getattr(parameter, "section", "Other"), []).append(row)
    parts = [f"## diffai {command.name}", f"```\n{usage}\n```", _help(command.help or "")]
    for section, rows in sections.items():
        parts += [f"**{section}**", table(("option", "meaning", "environment"), rows)]
    return "\n\n".join(parts)


def _variable(option: click.Option) -> str:
    return code(f"{ENVIRONMENT}_{(option.name or '').upper()}") if option.allow_from_autoenv else ""


def _help(text: str) -> str:
    """Help as Markdown: paragraphs, and what click must not wrap as a block of code."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(f"```\n{p[2:]}\n```" if p.startswith("\b\n") else " ".join(p.split()) for p in paragraphs)


def _exit_statuses() -> Rows:
    yield verdict.SUCCESS, "the weights are equal: `identical` or `equivalent` (with `--strict`: only `identical`)"
    yield verdict.DIFFERENT, "the weights differ; with `--fail-on`: something it names was found. `--exit-zero` makes it 0"
    yield verdict.TROUBLE, "trouble: a wrong option, an input or a tensor that cannot be read, any `error` record"
    yield verdict.INTERRUPTED, "interrupted by Ctrl-C; the summary says `interrupted`"
    yield process.BROKEN_PIPE, "the reader of the output went away, as `head` does"
    yield 143, "ended by SIGTERM; the summary says `interrupted`"


def _environment() -> Rows:
    yield code("NO_COLOR"), "not empty: no colour. `--color` comes first"
    yield "`FORCE_COLOR` `CLICOLOR_FORCE`", "colour also where standard output is no terminal"
    yield code("CLICOLOR=0"), "no colour"
    yield code("COLUMNS"), "width of the text output on a terminal"
    yield code("NUMBA_CACHE_DIR"), "folder in which compiled kernels are kept; `diffai doctor` says which one is used"
    yield code("DIFFAI_DEBUG=1"), "show the traceback of an internal error"


# --- records ---------------------------------------------------------------------------------------------------------


def records_page() -> str:
    """Every record type and every object inside one, from the same schema that `diffai schema` prints."""
    schema = _schema()
    base = _names(RecordBase)
    definitions = schema["$defs"]
    objects = _reached(definitions, [f"{name}_record" for name in CORE_RECORDS])
    return page(
        "Records",
        f"Schema version {SCHEMA_VERSION}. One JSON object a line, in UTF-8. `diffai schema` prints the same as JSON Schema "
        "(draft 2020-12).",
        "Order: `header`; then `tensor`, `error`, `warning` and `skipped` records and the findings of the analyses, each "
        "as soon as it is known; `summary` last. A run without a summary was cut off. The records of the analyses are in "
        "[analyses](analyses.md).",
        "Names are values, never keys. A field keeps one JSON type. A number that cannot be computed is `null`, and a "
        "count beside it says why. Equal runs print equal bytes, except for `elapsed_seconds` and `peak_memory_nbytes` in "
        "the summary; the `plan` in the header depends on the machine and on how the run is executed, nothing else does.",
        "## Every record",
        _fields(_object(definitions["header_record"], keep=base | {"type"}), definitions),
        *(_record(name, definitions, base) for name in CORE_RECORDS),
        "## Every finding",
        sentence(FindingRecord.__doc__ or ""),
        _fields(_object(definitions[f"{next(iter(ANALYSES))}_record"], keep=_names(FindingRecord) - base), definitions),
        "## Objects inside records",
        *(_named_object(name, definitions) for name in objects),
    )


def _schema() -> Schema:
    return build_schema({row.name: row.fields for row in ANALYSES.values()})


def _names(typed_dict: type) -> set[str]:
    return {name for parent in (typed_dict, *typed_dict.__mro__) for name in getattr(parent, "__annotations__", {})}


def _object(definition: Schema, *, keep: set[str] | None = None, leave: Iterable[str] = ()) -> Schema:
    """An object with some of its fields."""
    names = [name for name in definition["properties"] if (keep is None or name in keep) and name not in set(leave)]
    return {**definition, "properties": {name: definition["properties"][name] for name in names}}


def _record(name: str, definitions: Schema, base: set[str]) -> str:
    definition = definitions[f"{name}_record"]
    own = _object(definition, leave=base | {"type"})
    return "\n\n".join([f"## {name}", sentence(definition["description"]), _fields(own, definitions)])


def _named_object(name: str, definitions: Schema) -> str:
    return "\n\n".join([f"### {name}", sentence(definitions[name]["description"]), _fields(definitions[name], definitions)])


def _fields(definition: Schema, definitions: Schema) -> str:
    rows = []
    for name, schema in definition["properties"].items():
        presence = "always" if name in definition["required"] else "where it applies"
        rows.append((code(name), _type(schema), presence, schema.get("description", "")))
    return table(("field", "type", "printed", "meaning"), rows)


def _type(schema: Schema) -> str:
    """A JSON type in words, objects as links."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}]({_home(name)}.md#{name.lower()})"
    if "const" in schema:
        return "integer" if isinstance(schema["const"], int) else "string"
    if "enum" in schema:
        return " ".join("null" if value is None else code(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


@cache
def _home(name: str) -> str:
    """The page on which an object is described: that of the records where a record holds it."""
    core = _reached(_schema()["$defs"], [f"{record}_record" for record in CORE_RECORDS])
    return "records" if name in core else "analyses"


def _reached(definitions: Schema, roots: Iterable[str]) -> list[str]:
    """Names of the objects that the definitions refer to, in the order in which they are met."""
    found: list[str] = []
    waiting = list(roots)
    while waiting:
        for name in re.findall(r"#/\$defs/(\w+)", str(definitions[waiting.pop(0)])):
            if name not in found:
                found.append(name)
                waiting.append(name)
    return found


# --- analyses --------------------------------------------------------------------------------------------------------


def analyses_page() -> str:
    """Every analysis: how it is asked for, what it needs, the limits it judges by, the fields of its records."""
    overview = [
        (f"[{a.name}](#{a.name})", _flag(a), "yes" if a.default else "opt-in" if a.is_opt_in else "", a.family, a.title)
        for a in ANALYSES.values()
    ]
    definitions = _schema()["$defs"]
    objects = [name for name in _reached(definitions, [f"{name}_record" for name in ANALYSES]) if _home(name) == "analyses"]
    return page(
        "Analyses",
        "An analysis turns measured figures into findings. It sees sums, counts and histograms, never the weights "
        "themselves, so that asking for more analyses does not read the files again. A flag adds; the analyses marked "
        "*default* run without it.",
        table(("analysis", "flag", "default", "family", "what it tells"), overview),
        "Each finding is a record whose `type` is the name of the analysis and which carries the fields of [every "
        "finding](records.md#every-finding) before its own. `basis` says how a figure was come by: `measured` from the "
        "weights, `derived` from measured figures, `estimated` by a model that the record names.",
        *(_analysis(row, definitions) for row in ANALYSES.values()),
        "## Objects inside findings" if objects else "",
        *(_named_object(name, definitions) for name in objects),
    )


def _flag(row: Analysis) -> str:
    return code(f"{row.flag} {row.argument}".strip())


def _analysis(row: Analysis, definitions: Schema) -> str:
    facts = [
        ("flag", _flag(row) + (" (runs by default)" if row.default else "")),
        ("scope", ", ".join(row.scopes)),
        ("basis", row.basis),
        ("statistics", ", ".join(f"[{name}](statistics.md#{name})" for name in row.needs)),
        ("passes over the bytes", row.passes),
        ("reference", row.reference),
    ]
    own = _object(definitions[f"{row.name}_record"], leave=_names(FindingRecord) | {"type"})
    parts = [
        f"## {row.name}",
        sentence(row.title),
        table(("", ""), facts),
        *_limits(row),
        "**Fields**",
        _fields(own, definitions),
    ]
    return "\n\n".join(part for part in parts if part)


def _limits(row: Analysis) -> list[str]:
    """The kinds and the constants of an analysis, as its module has them."""
    module = row.load()
    severities: Mapping[str, str] = getattr(module, "SEVERITY", {})
    constants = {name: value for name, value in vars(module).items() if name.isupper() and _is_constant(value)}
    parts = []
    if severities:
        parts += ["**Kinds**", table(("kind", "severity"), [(code(kind), severity) for kind, severity in severities.items()])]
    if constants:
        shown = [(code(name), _value(value)) for name, value in constants.items()]
        parts += ["**Limits it judges by**", table(("name in the source", "value"), shown)]
    return parts


def _is_constant(value: object) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(isinstance(item, int | float) for item in value.values())
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item:g}" for name, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- statistics, formats, encodings ----------------------------------------------------------------------------------


def statistics_page() -> str:
    """The rows of the catalogue of statistics."""
    return page(
        "Statistics",
        "A statistic is a mergeable state over the elements of a pair of tensors: each chunk fills one, and states of "
        "neighbouring chunks merge into that of the tensor. The *fused* ones are filled together by one loop in every "
        "comparison; the others run only where an analysis or an option asks for them.",
        "*Views*: `OLD` and `NEW` are the elements of a side, `DELTA` is new - old, `PAIR` needs both sides at once. "
        "*Cost* is in nanoseconds an element pair and core on top of reading and decoding: an order of magnitude, not a "
        "promise.",
        *(_statistic(row) for row in STATISTICS.values()),
    )


def _statistic(row: StatisticRow) -> str:
    facts = [
        ("views", codes(view.name for view in row.views)),
        ("gives", codes(row.columns)),
        ("exactness", row.exactness),
        ("cost", f"{row.cost_ns:g} ns"),
        ("computed", "in every comparison, fused" if row.fused else "where it is asked for"),
        (
            "needed by",
            ", ".join(f"[{a.name}](analyses.md#{a.name})" for a in ANALYSES.values() if row.name in a.needs) or "`--stats`",
        ),
        ("reference", row.reference),
    ]
    return "\n\n".join([f"## {row.name}", sentence(row.title), table(("", ""), facts)])


def formats_page() -> str:
    """The formats that are read and the encodings that are decoded."""
    formats = [
        (code(row.name), row.title, codes(row.suffixes), row.access, code(f"[{row.extra}]") if row.extra else "none", row.notes)
        for row in FORMATS.values()
    ]
    return page(
        "Formats and encodings",
        "## Formats",
        "A file is known by its first bytes, a directory by what lies in it; names come last. Only headers are read to "
        "index a checkpoint, and nothing that is stored in a file is ever executed. *Mapped* bytes are read where they "
        "lie.",
        table(("format", "what it is", "names", "bytes are", "extra", "notes"), formats),
        "## Quantized layouts",
        "Several stored tensors that make up one weight are compared as that weight, under its name, by its decoded "
        "values. Names, element types and shapes decide; `quantization_config` in the `config.json` beside the weights "
        "fills in what they leave open. A warning tells what does not fit together and is therefore compared as it is "
        "stored.",
        table(("family", "what it is"), [(code(row.name), row.title) for row in FAMILIES]),
        "## Encodings",
        "How a stored element becomes a number. Sides of different encodings are compared by value.",
        "*Counted*: codes of at most 16 bits are counted one by one, so that their distribution is exact. All others are "
        "counted by the upper 16 bits of their value as float32: quantiles and distribution distances are then within "
        "2^-7 relative. *Computed in* is the type of the decoded values; it holds every value of the encoding exactly, "
        "except that 64-bit integers are measured as float64 and compared as integers.",
        table(
            ("encoding", "what it is", "family", "bits", "exponent + mantissa", "largest value", "counted", "computed in"),
            [_encoding(row) for row in ENCODINGS.values()],
        ),
    )


def _encoding(row: Encoding) -> Sequence[object]:
    layout = f"{row.exponent_bits} + {row.mantissa_bits}" if row.exponent_bits else ""
    title = row.title or f"{'unsigned' if row.name.startswith('U') else 'signed'} integer"
    counted = f"exactly, {1 << min(row.bits, row.pattern_bits):,} codes" if row.pattern_bits else "by float32 key"
    largest = f"{row.max_finite:.6g}" if row.family == "float" else "" if row.decoder else f"{_limit(row):,}"
    return code(row.name), title, row.family, row.bits, layout, largest, counted, row.tile_dtype.__name__


def _limit(row: Encoding) -> int:
    if row.family == "bool":
        return 1
    return int((1 << (row.bits - (not row.name.startswith("U")))) - 1)


# --- the Python API --------------------------------------------------------------------------------------------------


def api_page() -> str:
    """The public names of the package: signatures, docstrings, options, the objects they hand out, errors."""
    functions = [name for name in diffai_stream.__all__ if inspect.isfunction(getattr(diffai_stream, name))]
    return page(
        "Python API",
        "`import diffai_stream` loads neither numpy nor numba, dask or torch: each name loads what it needs when it is "
        "first used.",
        "```python\nfrom diffai_stream import compare\n\n"
        'for record in compare("base/", "finetuned/", stats=True):\n'
        '    if record["type"] == "tensor" and record["change"]:\n'
        '        print(record["name"], record["change"]["relative_l2"])\n```',
        "Records are plain dictionaries, the same that the command prints: see [records](records.md). "
        "`diffai_stream.__version__` is the version.",
        *(_function(name) for name in functions),
        _class(diffai_stream.Comparison),
        "## Options",
        _doc(Options),
        table(("field", "type", "default", "changes figures", "meaning"), _options()),
        "## Objects",
        *(_tuple(kind) for kind in (Checkpoint, TensorEntry, Component, Extent)),
        "## Errors",
        f"All in `diffai_stream.errors`.\n\n{_doc(errors)}",
    )


def _function(name: str) -> str:
    function = getattr(diffai_stream, name)
    return "\n\n".join([f"## {name}", f"```python\n{_signature(name, function)}\n```", _doc(function)])


def _class(kind: type) -> str:
    """A class: what it is for, and a table of what it gives."""
    rows = []
    for name, member in vars(kind).items():
        if not name.startswith("_") and (isinstance(member, property) or inspect.isfunction(member)):
            shown = name if isinstance(member, property) else f"{name}()"
            rows.append((code(shown), _doc(member)))
    return "\n\n".join([f"## {kind.__name__}", _doc(kind), table(("name", "what it is"), rows)])


def _signature(name: str, function: Callable[..., object]) -> str:
    parts: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        mark = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        parts.append(f"{mark}{parameter.name}: {parameter.annotation}{default}")
    result = inspect.signature(function).return_annotation
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f") -> {result}"


def _doc(thing: object) -> str:
    """A docstring as Markdown: paragraphs, drawings and examples as code."""
    paragraphs = (inspect.getdoc(thing) or "").split("\n\n")
    return "\n\n".join(map(_paragraph, paragraphs))


def _paragraph(text: str) -> str:
    if text.startswith(">>> "):
        return f"```python\n{inspect.cleandoc(text)}\n```"
    return f"```\n{inspect.cleandoc(text)}\n```" if "── " in text else " ".join(text.split())


def _options() -> Rows:
    help_of = {row.field: row.help for row in ROWS}
    help_of["analyses"] = "Names of analyses, beyond those that run by default."
    for field in dataclasses.fields(Options):
        changes = "" if field.name in NEUTRAL else "yes"
        yield code(field.name), code(field.type), code(repr(field.default)), changes, help_of[field.name]


def _tuple(kind: Any) -> str:
    rows = [(code(name), code(_annotation(annotation))) for name, annotation in kind.__annotations__.items()]
    return "\n\n".join([f"### {kind.__name__}", _doc(kind), table(("field", "type"), rows)])


def _annotation(annotation: Any) -> str:
    return str(getattr(annotation, "__forward_arg__", annotation))


PAGES: dict[str, Callable[[], str]] = {
    "cli-reference": cli_page,
    "records": records_page,
    "analyses": analyses_page,
    "statistics": statistics_page,
    "ml-formats": formats_page,
    "api-reference": api_page,
}


def stale() -> list[Path]:
    """The pages that are not what they would be written as now."""
    made = {REFERENCE / f"{name}.md": make() for name, make in PAGES.items()}
    return [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or check them; the exit status."""
    if list(arguments) not in ([], ["--check"]):
        print("usage: python docs/generate.py [--check]", file=sys.stderr)
        return 2
    if arguments:
        for path in (old := stale()):
            print(f"{path} is stale: make docs", file=sys.stderr)
        return 1 if old else 0
    REFERENCE.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (REFERENCE / f"{name}.md").write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
