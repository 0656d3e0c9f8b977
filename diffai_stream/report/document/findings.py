"""The records of any analysis as tables: no analysis needs code here, its catalogue row says what the figures mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from diffai_stream.report.document import cells
from diffai_stream.report.document.blocks import Block, Cell, Column, Listing, Paragraph, Section, Table, Verbatim, text_of
from diffai_stream.report.document.meanings import Meaning, meanings, title_of
from diffai_stream.report.figures import plural
from diffai_stream.report.kept import FindingList, own_fields, telling
from diffai_stream.report.records import Record

_ARROW: Final = " → "
_FEW: Final = 6
Fields = Mapping[str, Any]


def finding_section(found: FindingList, anchor: str, top: int) -> Section:
    """The records of one analysis: those of one kind below each other, one alone as a list of its figures."""
    groups: dict[frozenset[str], list[Record]] = {}
    for record in found.records:
        groups.setdefault(frozenset(own_fields(record)), []).append(record)
    known = meanings(found.analysis)
    blocks: list[Block] = [Paragraph((title_of(found.analysis),), quiet=True)] if title_of(found.analysis) else []
    for records in sorted(groups.values(), key=lambda rows: rows[0].get("scope") != "model"):
        blocks += _several(records, known) if len(records) > 1 else _one(records[0], known, top)
    if found.total > len(found.records):
        blocks.append(Paragraph((f"{len(found.records):,} of {plural(found.total, 'record')} shown.",), quiet=True))
    return Section((found.title,), anchor, blocks)


# --- one record ------------------------------------------------------------------------------------------------------


def _one(record: Record, known: Mapping[str, Meaning], top: int) -> Iterator[Block]:
    """Its figures, those of old and new beside each other; then its lists, each as a table."""
    fields = telling(own_fields(record))
    lists = {key: item for key, item in fields.items() if _holds_objects(item)}
    texts = {key: item for key, item in fields.items() if isinstance(item, str) and "\n" in item}
    sentences = {key: item for key, item in fields.items() if _is_sentences(item)}
    sided = _sided({key: item for key, item in fields.items() if key not in {*lists, *texts, *sentences}})
    yield from _facts(record, sided, known)
    for key, items in lists.items():
        yield _objects(key, items, known.get(key), top)
    for key, items in sentences.items():
        yield Paragraph((cells.words(key) + ":",))
        yield Listing([(cells.scalar(key, item),) for item in items[: top or None]])
    for item in texts.values():
        yield Verbatim(item)
    without = [cells.words(key) for key, item in own_fields(record).items() if item is None]
    if without:
        yield Paragraph((f"No figure for: {', '.join(without)}.",), quiet=True)


def _facts(record: Record, sided: Mapping[str, tuple[Any, ...]], known: Mapping[str, Meaning]) -> Iterator[Table]:
    """A table of the figures that both sides have, one of those about both."""
    both = {key: pair for key, pair in sided.items() if len(pair) == 2}
    alone = {key: pair[0] for key, pair in sided.items() if len(pair) == 1}
    subject = str(record.get("subject", "")) if record.get("scope") != "model" else ""
    judged = {"severity": record["severity"]} if record.get("severity") else {}
    if judged or alone:
        rows = [
            [cells.text(cells.words(key)), cells.valued(key, item), _meant(known, key)]
            for key, item in (judged | alone).items()
        ]
        yield Table(subject, (Column("figure"), Column("value"), Column("what it is")), rows)
    if both:
        rows = [
            [cells.text(cells.words(key)), *(cells.valued(key, item) for item in pair), _meant(known, f"old_{key}", key)]
            for key, pair in both.items()
        ]
        yield Table(subject, (Column("figure"), Column("old"), Column("new"), Column("what it is")), rows)


def _meant(known: Mapping[str, Meaning], *keys: str) -> Cell:
    return cells.text(next((known[key].text for key in keys if key in known), ""))


def _sided(fields: Fields) -> dict[str, tuple[Any, ...]]:
    """Fields by name: (value,) or (old, new) where the record has both; objects `old` and `new` are taken apart."""
    if isinstance(fields.get("old"), Mapping) and isinstance(fields.get("new"), Mapping):
        old, new = fields["old"], fields["new"]
        taken: dict[str, tuple[Any, ...]] = {key: (old.get(key), new.get(key)) for key in {**old, **new}}
        return {**_sided({key: item for key, item in fields.items() if key not in ("old", "new")}), **taken}
    found: dict[str, tuple[Any, ...]] = {}
    for key, item in fields.items():
        stem = key.removeprefix("old_").removeprefix("new_")
        paired = stem != key and {f"old_{stem}", f"new_{stem}"} <= fields.keys()
        found[stem if paired else key] = (fields[f"old_{stem}"], fields[f"new_{stem}"]) if paired else (item,)
    return found


def _holds_objects(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and bool(item) and isinstance(item[0], Mapping)


def _is_sentences(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and any(isinstance(text, str) and " " in text for text in item)


def _objects(key: str, items: Sequence[Fields], meaning: Meaning | None, top: int) -> Table:
    """A list of objects as a table."""
    shown = items[: top or None]
    sided = [_sided(item) for item in shown]
    keys = list(dict.fromkeys(field for item in sided for field in item))
    columns, rows = _table(keys, sided, meaning.fields if meaning else {})
    caption = cells.words(key) + (f": {meaning.text}" if meaning and meaning.text else "")
    note = f"{len(shown):,} of {len(items):,} shown" if len(shown) < len(items) else ""
    return Table(caption, columns, rows, note)


# --- several records -------------------------------------------------------------------------------------------------


def _several(records: Sequence[Record], known: Mapping[str, Meaning]) -> Iterator[Block]:
    """A row a record; what is the same in all is said once, what does not fit into a cell is named."""
    flat = [_flattened(telling(own_fields(record))) for record in records]
    left_out = dict.fromkeys(key for fields in flat for key, item in fields.items() if not _fits(item))
    sided = [_sided({key: item for key, item in fields.items() if key not in left_out}) for fields in flat]
    keys = list(dict.fromkeys(key for fields in sided for key in fields))
    same = {key: sided[0][key] for key in keys if all(fields.get(key) == sided[0].get(key) for fields in sided)}
    columns, rows = _table([key for key in keys if key not in same], sided, known)
    graver = {record.get("severity") for record in records} - {"info", None}
    head = [Column("severity")] if graver else []
    first = [
        [*([cells.severity(record.get("severity"))] if graver else []), cells.name(record.get("subject", ""))]
        for record in records
    ]
    scope = str(records[0].get("scope") or "subject")
    yield Table(
        "",
        (*head, Column(scope if scope != "model" else "subject"), *columns),
        [[*a, *b] for a, b in zip(first, rows, strict=True)],
    )
    if same:
        told = "; ".join(f"{cells.words(key)} {_ARROW.join(_plain(key, item) for item in pair)}" for key, pair in same.items())
        yield Paragraph((f"The same in all: {told}.",), quiet=True)
    if left_out:
        yield Paragraph((f"In the records only: {', '.join(map(cells.words, left_out))}.",), quiet=True)


def _plain(key: str, item: Any) -> str:
    return text_of(cells.valued(key, item).parts)


def _flattened(fields: Fields) -> dict[str, Any]:
    """The fields with short lists of labelled figures, such as the projections of an attention, as fields of their own."""
    found: dict[str, Any] = {}
    for key, item in fields.items():
        if _holds_objects(item) and len(item) <= _FEW and _is_labelled(item):
            label, value = list(item[0])[:2]
            found |= {f"{value} {entry[label]}": entry.get(value) for entry in item}
        else:
            found[key] = item
    return found


def _is_labelled(items: Sequence[Fields]) -> bool:
    """Whether the first field of each tells it apart and the second is a figure."""
    keys = [list(item)[:2] for item in items]
    if any(len(pair) < 2 or pair != keys[0] for pair in keys):
        return False
    label, value = keys[0]
    return label in ("projection", "distance") and all(isinstance(item[value], (int, float, type(None))) for item in items)


def _fits(item: Any) -> bool:
    """Whether a field can be a cell."""
    return not _holds_objects(item) and not isinstance(item, Mapping) and not (isinstance(item, str) and "\n" in item)


def _table(
    keys: Sequence[str], sided: Sequence[Mapping[str, tuple[Any, ...]]], known: Mapping[str, Meaning]
) -> tuple[list[Column], list[list[Cell]]]:
    """The columns of these fields, two where some record has both sides of one, and their cells."""
    columns: list[Column] = []
    rows: list[list[Cell]] = [[] for _ in sided]
    for key in keys:
        two = any(len(fields.get(key, ())) == 2 for fields in sided)
        for place, side in enumerate(("old ", "new ") if two else ("",)):
            values = [fields[key][place] if len(fields.get(key, ())) > place else None for fields in sided]
            is_number = all(isinstance(value, (int, float, type(None))) and not isinstance(value, bool) for value in values)
            meaning = known.get(key) or known.get(f"old_{key}" if place == 0 else f"new_{key}")
            columns.append(Column(side + cells.words(key), is_number, meaning.text if meaning else ""))
            for row, value in zip(rows, values, strict=True):
                row.append(cells.valued(key, value))
    return columns, rows
