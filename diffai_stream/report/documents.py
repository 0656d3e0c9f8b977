"""Documents of a run: writers that print one at the end, and the records that carry one beside the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from diffai_stream.report.base import ByteStream, WriterOptions
from diffai_stream.report.document import html, markdown
from diffai_stream.report.document.blocks import Document
from diffai_stream.report.document.collected import RunRecords
from diffai_stream.report.document.compose import report
from diffai_stream.report.document.review import review
from diffai_stream.report.records import Record


def document_of(run: RunRecords, kind: str, has_charts: bool) -> Document:
    """The `report` or the `review` of what was collected. Raises MissingExtraError without the library of the charts."""
    if kind == "review":
        return review(run)
    if not has_charts:
        return report(run)
    from diffai_stream.report.document.charts import charts

    return report(run, charts(run))


class DocumentWriter:
    """Collects records in bounded memory and prints the document at the end; nothing when there was no record."""

    render: Callable[[Document], str]

    def __init__(self, stream: ByteStream, options: WriterOptions) -> None:
        if options.charts:
            from diffai_stream.report.document.charts import require

            require()  # before anything is read
        self._stream = stream
        self._options = options
        self._run: RunRecords | None = None

    def write(self, record: Record) -> None:
        """Note one record."""
        self._run = self._run or RunRecords(self._options.top)
        self._run.add(record)

    def close(self) -> None:
        """Print the document."""
        if self._run is not None:
            document = document_of(self._run, "review" if self._options.review else "report", self._options.charts)
            self._stream.write(type(self).render(document).encode("utf-8", "backslashreplace"))
            self._run = None
        self._stream.flush()


class MarkdownWriter(DocumentWriter):
    """Prints Markdown."""

    render = staticmethod(markdown.render)


class HtmlWriter(DocumentWriter):
    """Prints one page of HTML."""

    render = staticmethod(html.render)


class Documented(Generator[Record]):
    """The records of a run, and before its last summary one record for each kind of document, in Markdown.

    A summary is held back until it is known whether another record follows it.
    """

    def __init__(self, records: Generator[Record], kinds: Sequence[str], top: int, has_charts: bool) -> None:
        self._records = records
        self._kinds = kinds
        self._has_charts = has_charts
        self._run = RunRecords(top)
        self._held: Record | None = None
        self._ready: deque[Record] = deque()

    def send(self, value: None = None) -> Record:
        """The next record."""
        return self._ready.popleft() if self._ready else self._taken(lambda: next(self._records))

    def throw(self, *error: Any) -> Record:
        """Raise an exception where the run is; what it yields then is the next record."""
        return self._taken(lambda: self._records.throw(*error))

    def close(self) -> None:
        """Stop the work."""
        self._records.close()

    def _taken(self, advance: Callable[[], Record]) -> Record:
        try:
            self._take(advance())
            while not self._ready:
                self._take(next(self._records))
        except StopIteration:
            if self._held is None:
                raise
            self._ready.extend(self._told(self._held))
            self._held = None
        return self._ready.popleft()

    def _take(self, record: Record) -> None:
        if self._held is not None:
            self._ready.append(self._held)
        self._held = record if record["type"] == "summary" else None
        self._run.add(record)
        if self._held is None:
            self._ready.append(record)

    def _told(self, summary: Record) -> Iterator[Record]:
        """The documents and the summary, numbered on."""
        base = {key: summary[key] for key in ("schema_version", "run_id")}
        for place, kind in enumerate(self._kinds):
            text = markdown.render(document_of(self._run, kind, self._has_charts))
            yield {**base, "seq": summary["seq"] + place, "type": kind, "format": "markdown", "text": text}
        yield {**summary, "seq": summary["seq"] + len(self._kinds)}
