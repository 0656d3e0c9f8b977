"""A comparison as a Python object: the records one by one as they become known, or all of them as lists and tables."""

from __future__ import annotations

import io
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from html import escape
from typing import Any

from diffai_stream.errors import MissingExtraError, UsageError
from diffai_stream.report.base import WriterOptions
from diffai_stream.report.catalogue import open_writer
from diffai_stream.report.figures import escaped, number
from diffai_stream.report.records import CORE_RECORDS, Record

TEXT_WIDTH = 100
HTML_ROWS = 20


class Comparison(Iterable[Record]):
    """The records of a comparison: iterate over them while the files are read, or ask for what all of them say.

    No weights are read before the first record is asked for, and a loop keeps no record. The lists and tables read to the
    end and keep the records; a loop over the comparison then begins anew each time. What a loop has taken before is gone:
    UsageError. In a notebook a comparison shows itself as a report.

    >>> from diffai_stream import compare
    >>> comparison = compare("base.safetensors", "finetuned.safetensors")
    >>> comparison.summary["status"]
    'different'
    >>> [(tensor["name"], tensor["change"]["relative_l2"]) for tensor in comparison.tensors]
    [('head.weight', 0.5)]
    >>> [layer["subject"] for layer in comparison.layers]
    ['body', 'head']
    >>> comparison.to_pandas()[["name", "change.changed_count"]].to_dict("records")
    [{'name': 'head.weight', 'change.changed_count': 12}]
    >>> comparison.to_arrow().num_rows == len(comparison.records)
    True
    """

    def __init__(self, records: Generator[Record], paths: Sequence[str]) -> None:
        self._source = records
        self._paths = tuple(paths)
        self._taken_count = 0
        self._kept: list[Record] | None = None

    def __iter__(self) -> Iterator[Record]:
        return self if self._kept is None else iter(self._kept)

    def __next__(self) -> Record:
        record = next(self._source)
        self._taken_count += 1
        return record

    def throw(self, error: BaseException) -> Record:
        """Raise an exception where the comparison is; KeyboardInterrupt makes it end with an `interrupted` summary."""
        return self._source.throw(error)

    def close(self) -> None:
        """Stop the work; what is kept stays."""
        self._source.close()

    @property
    def records(self) -> list[Record]:
        """All records in order."""
        if self._kept is None:
            if self._taken_count:
                raise UsageError(
                    f"{self._taken_count} records were taken from this comparison and are not kept; "
                    "ask for tables before a loop, or compare again"
                )
            self._kept = list(self._source)
        return self._kept

    @property
    def header(self) -> Record:
        """What is compared, with which options, at what cost."""
        return self.records[0]

    @property
    def summary(self) -> Record:
        """The verdict; of a trajectory that of its last pair."""
        return self.records[-1]

    @property
    def tensors(self) -> list[Record]:
        """The `tensor` records: every tensor that differs, or every one with `include_unchanged`."""
        return self._of("tensor")

    @property
    def layers(self) -> list[Record]:
        """The change of each layer: the `layer_impact` records less their ranking."""
        return [record for record in self._of("layer_impact") if record["scope"] == "layer"]

    @property
    def findings(self) -> list[Record]:
        """What the analyses found, that of the layers included."""
        return [record for record in self.records if record["type"] not in CORE_RECORDS]

    @property
    def errors(self) -> list[Record]:
        """What could not be read."""
        return self._of("error")

    def _of(self, kind: str) -> list[Record]:
        return [record for record in self.records if record["type"] == kind]

    def to_arrow(self) -> Any:
        """All records as one `pyarrow.Table`, the one that `-o parquet` writes. Raises MissingExtraError without pyarrow."""
        from diffai_stream.report.arrow_schema import arrow_schema, pyarrow, row_of

        arrow = pyarrow()
        return arrow.Table.from_pylist([row_of(record) for record in self.records], schema=arrow_schema())

    def to_pandas(self, records: Collection[Record] | None = None) -> Any:
        """A `pandas.DataFrame` with a row a tensor, or one of `records`, e.g. the findings, if they are given.

        Nested fields have dotted names: `change.relative_l2`. Raises MissingExtraError without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtraError("a DataFrame needs pandas: pip install pandas") from error
        return pandas.json_normalize([dict(record) for record in (self.tensors if records is None else records)])

    def __repr__(self) -> str:
        if self._kept is not None:
            return f"<Comparison of {' and '.join(self._paths)}: {self.summary.get('status', 'cut off')}>"
        state = f"{self._taken_count} records taken" if self._taken_count else "not read yet"
        return f"<Comparison of {' and '.join(self._paths)}: {state}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The report as text and as a table; what a loop has taken is not compared again for it."""
        if self._kept is None and self._taken_count:
            return {"text/plain": repr(self)}
        return {"text/plain": self._text(), "text/html": self._html()}

    def _text(self) -> str:
        stream = io.BytesIO()
        writer = open_writer("text", stream, WriterOptions(width=TEXT_WIDTH))
        for record in self.records:
            writer.write(record)
        writer.close()
        return stream.getvalue().decode("utf-8", "replace").rstrip("\n")

    def _html(self) -> str:
        """The verdict, and the tensors that changed most."""
        title = f"{' and '.join(self._paths)}: {self.summary.get('status', 'cut off')}"
        ranked = sorted(self.tensors, key=_magnitude)
        rows = [_row("th", ("tensor", "status", "relative change", "changed elements"))]
        rows += [_row("td", _cells(record)) for record in ranked[:HTML_ROWS]]
        rest = f"<p>and {len(ranked) - HTML_ROWS:,} more</p>" if len(ranked) > HTML_ROWS else ""
        return f"<p><strong>{_shown(title)}</strong></p><table>{''.join(rows)}</table>{rest}"


def _magnitude(record: Record) -> float:
    """Sort key: what cannot be measured first, then the largest change."""
    relative = (record["change"] or {}).get("relative_l2")
    return float("-inf") if relative is None else -float(relative)


def _cells(record: Record) -> tuple[str, ...]:
    change = record["change"] or {}
    figures = (change.get("relative_l2"), change.get("changed_count"))
    return record["name"], record["status"], *("" if figure is None else number(figure) for figure in figures)


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_shown(cell)}</{tag}>" for cell in cells) + "</tr>"


def _shown(text: str) -> str:
    """Text that cannot be taken for markup, control characters written out."""
    return escape(escaped(text))
