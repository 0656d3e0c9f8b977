"""YAML: one sequence of the records, each dumped as an item as soon as it is known."""

from __future__ import annotations

from typing import Any

import yaml

from diffai_stream.report.base import ByteStream, WriterOptions
from diffai_stream.report.plain import fitted, sanitised
from diffai_stream.report.records import Record

_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LINE_WIDTH = 120


class _Dumper(_Base):  # type: ignore[misc]
    """The safe dumper, without anchors: a list that two fields share is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


class YamlWriter:
    """Writes items of one block sequence; the innermost lists and mappings are on one line where they fit."""

    def __init__(self, stream: ByteStream, options: WriterOptions) -> None:
        self._stream = stream
        self._options = options
        self._empty = True
        self._closed = False

    def write(self, record: Record) -> None:
        """Print the record as one item of the sequence."""
        plain = sanitised(fitted(self._options.stamped(record)))
        text = yaml.dump(
            [plain], Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=_LINE_WIDTH
        )
        self._stream.write(text.encode())
        self._stream.flush()
        self._empty = False

    def close(self) -> None:
        """Flush; a sequence without records is written as `[]`."""
        if self._empty and not self._closed:
            self._stream.write(b"[]\n")
        self._closed = True
        self._stream.flush()
