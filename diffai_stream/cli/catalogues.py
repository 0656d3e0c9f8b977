"""`diffai analyses`, `diffai formats`, `diffai schema`: what there is, printed from the rows that the program runs on."""

from __future__ import annotations

import json
from typing import Any

from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.cli.listing import listing_options, print_columns, print_json_lines
from diffai_stream.cli.sections import SectionCommand
from diffai_stream.cli.streams import StandardOutput, tell_broken_plugins


def _analyses(is_json: bool, color: str) -> int:
    ANALYSES.complete()
    tell_broken_plugins("analyses", "statistics")
    if is_json:
        print_json_lines(_analysis(row) for row in ANALYSES.values())
        return 0
    rows = [
        [
            f"{row.flag or row.name} {row.argument}".strip(),
            "default" if row.default else "opt-in" if row.is_opt_in else "gate" if row.is_gate else "",
            ", ".join(row.scopes),
            row.basis,
            str(row.passes),
            _told(row),
        ]
        for row in ANALYSES.values()
    ]
    note = "Default ones run without their flag, opt-in ones and gates only with it. Fields of their records: diffai schema."
    print_columns(["analysis", "runs", "scopes", "basis", "passes", "what it tells"], rows, color, note)
    return 0


def _told(row: Analysis) -> str:
    """What an analysis tells, which statistics it needs, and the reference of its method."""
    needs = f"; needs {', '.join(row.needs)}" if row.needs else ""
    reference = f"; {row.reference}" if row.reference else ""
    return _from(f"{row.title}{needs}{reference}", row.plugin)


def _analysis(row: Analysis) -> dict[str, Any]:
    plain = (
        "name",
        "flag",
        "title",
        "family",
        "basis",
        "default",
        "is_opt_in",
        "is_gate",
        "argument",
        "passes",
        "reference",
        "plugin",
    )
    return {
        **{key: getattr(row, key) for key in plain},
        **{key: list(getattr(row, key)) for key in ("scopes", "needs", "aliases")},
        "fields": list(row.fields.__annotations__),
    }


def _formats(is_json: bool, color: str) -> int:
    from diffai_stream.doctor import missing_libraries
    from diffai_stream.encodings.catalogue import ENCODINGS
    from diffai_stream.formats.catalogue import FORMATS

    rows = FORMATS.complete().values()
    ENCODINGS.complete()
    tell_broken_plugins("formats", "encodings")
    missing = {row.extra: missing_libraries(row.extra) for row in rows}
    owners = {name: point.distribution for name, point in FORMATS.origins.items()}
    if is_json:
        print_json_lines(
            {
                **row._asdict(),
                "suffixes": list(row.suffixes),
                "missing": list(missing[row.extra]),
                "plugin": owners.get(row.name, ""),
            }
            for row in rows
        )
        return 0
    cells = [
        [
            row.name,
            ", ".join(row.suffixes),
            row.access,
            _readiness(row.extra, missing[row.extra]),
            _from(row.notes, owners.get(row.name, "")),
        ]
        for row in rows
    ]
    note = "A file is known by its content first, by its name last."
    print_columns(["format", "names", "bytes are", "ready", "notes"], cells, color, note)
    return 0


def _from(text: str, plugin: str) -> str:
    """The text, and the package that a row comes from, where that is not this one."""
    return f"{text} ({plugin})" if plugin else text


def _readiness(extra: str, missing: tuple[str, ...]) -> str:
    return f"pip install 'diffai-stream[{extra}]'" if missing else "yes"


def _schema() -> int:
    from diffai_stream.report.schema import build_schema

    schema = build_schema({row.name: row.fields for row in ANALYSES.complete().values()})
    tell_broken_plugins("analyses")
    StandardOutput().print(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    return 0


analyses = SectionCommand("analyses", callback=_analyses, params=listing_options(), help="List the analyses and their flags.")
formats = SectionCommand("formats", callback=_formats, params=listing_options(), help="List the formats that can be read.")
schema = SectionCommand("schema", callback=_schema, help="Print the JSON Schema of the records.")
