"""The first and the last lines of the text output: what was compared, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from diffai_stream.report.figures import count, number, plural, seconds, size
from diffai_stream.report.page import Page
from diffai_stream.report.records import Record

_STYLES: Final = {
    "identical": "bold green",
    "equivalent": "bold cyan",
    "different": "bold yellow",
    "failed": "bold red",
    "interrupted": "bold red",
}
_MOST_PATHS: Final = 4
_STATUSES: Final = ("changed", "added", "removed", "reshaped", "retyped")


def render_header(page: Page, header: Record) -> None:
    """Print `old -> new` and, below, what both sides are; figures that agree are said once."""
    old, new = header["old"], header["new"]
    paths = [checkpoint["path"] for checkpoint in header.get("checkpoints") or (old, new)]
    arrow = f" {page.symbols.arrow} "
    shown = [Text(page.name(path), style="bold") for path in paths]
    if len(shown) > _MOST_PATHS:
        shown[1:-1] = [Text(f"{len(shown) - 2} more", style="dim")]
    title = Text(arrow, style="dim").join(shown)
    page.paragraph(title, indent=2)
    parts = [
        _both(page, page.name(old["format"]), page.name(new["format"])),
        _both(page, size(old["stored_nbytes"]), size(new["stored_nbytes"])),
        _both(page, f"{old['tensor_count']:,}", f"{new['tensor_count']:,}") + " tensors",
        _both(page, count(old["parameter_count"]), count(new["parameter_count"])) + " parameters",
    ]
    page.paragraph(", ".join(parts), style="dim", indent=2)


def _both(page: Page, old: str, new: str) -> str:
    return old if old == new else f"{old} {page.symbols.arrow} {new}"


def render_notice(page: Page, record: Record) -> None:
    """Print an error or warning: what, where."""
    failed = record["type"] == "error"
    label = Text("error  " if failed else "warning  ", style="bold red" if failed else "yellow")
    code = page.name(str(record.get("error" if failed else "code", "")))
    where = [page.name(str(record[key])) for key in ("path", "tensor") if record.get(key)]
    if record.get("offset") is not None:
        where.append(f"offset {record['offset']:,}")
    place = Text(f" ({', '.join(where)})" if where else "", style="dim")
    page.paragraph(label, f"{code}: {page.name(str(record['message']))}", place, indent=7 if failed else 9)


def render_verdict(page: Page, summary: Record, largest: tuple[str, float | None] | None, has_tolerance: bool = False) -> None:
    """Print the verdict and, dim, what it cost.

    `largest` is the tensor that changed most and its relative change; with `has_tolerance` values count as equal that
    are not quite.
    """
    status = summary["status"]
    page.paragraph(
        (Text(f"{status}: ", style=_STYLES.get(status, "bold"))),
        outcome(summary, largest and (page.name(largest[0]), largest[1]), has_tolerance),
        f"; exit {summary['exit_status']}",
        indent=2,
    )
    page.paragraph(cost(summary), style="dim", indent=2)


def outcome(summary: Record, largest: tuple[str, float | None] | None, has_tolerance: bool = False) -> str:
    """The verdict in a sentence; `largest` is the tensor that changed most, its name as it may be printed."""
    counts: Mapping[str, Any] = summary["counts"]
    total = sum(counts[key] for key in (*_STATUSES, "unchanged", "error"))
    changes = _changes(counts, total)
    around = (
        f"differs in {', '.join(item.replace('_', ' ') for item in summary['differs_in'])}" if summary["differs_in"] else ""
    )
    status = summary["status"]
    if status == "identical":
        return f"{plural(total, 'tensor')}, {count(summary['parameter_count']['new'])} parameters, all equal"
    if status == "equivalent":
        equal = "every value is equal" + (" within the tolerance" if has_tolerance else "")
        return "; ".join(part for part in (equal, around, changes) if part)
    if status == "interrupted":
        return f"{plural(total, 'tensor')} compared until then" + (f", {changes}" if changes else "")
    if status == "failed":
        unreadable = f"{plural(counts['error'], 'tensor')} could not be read" if counts["error"] else "see the errors above"
        return "; ".join(part for part in (unreadable, changes) if part)
    return "; ".join(part for part in (changes + _largest(largest), around) if part)


def _changes(counts: Mapping[str, int], total: int) -> str:
    """`140 of 291 tensors changed, 2 added`; empty when there is nothing to say."""
    said = [f"{counts[key]:,} {key}" for key in _STATUSES if counts[key]]
    if counts["changed"]:
        said[0] = f"{counts['changed']:,} of {plural(total, 'tensor')} changed"
    elif said:
        first, _, status = said[0].partition(" ")
        said[0] = f"{plural(int(first.replace(',', '')), 'tensor')} {status}"
    if counts["renamed"]:
        said.append(f"{counts['renamed']:,} renamed")
    return ", ".join(said)


def _largest(largest: tuple[str, float | None] | None) -> str:
    if largest is None:
        return ""
    name, relative_l2 = largest
    figure = "from all zeros" if relative_l2 is None else f"relative l2 {number(relative_l2)}"
    return f" (largest {name}, {figure})"


def cost(summary: Record) -> str:
    """What the run took; the figures here change from run to run."""
    elapsed, nbytes = summary["elapsed_seconds"], summary["read_nbytes"]
    rate = f" ({nbytes / elapsed / 1e9:.2f} GB/s)" if elapsed > 0 else ""
    overall = summary.get("relative_l2")
    whole = f"model relative l2 {number(overall)}, " if overall else ""
    return f"{whole}{size(nbytes)} in {seconds(elapsed)}{rate}, peak memory {size(summary['peak_memory_nbytes'])}"
