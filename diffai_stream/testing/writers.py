"""What every output keeps, as a class to inherit from in a test module that pytest runs:

class TestTable(WriterContract):
    row = WRITER
"""

from __future__ import annotations

import copy
import io
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from diffai_stream.pipeline import compare
from diffai_stream.report.base import WriterOptions
from diffai_stream.report.catalogue import WriterRow
from diffai_stream.report.records import Record
from diffai_stream.testing.checkpoints import write_hostile_pair, write_pair

BATCH = 4096  # records that an output may gather before it prints them
PRINTABLE = {"\n", "\t", "\r"}


@cache
def sample_records() -> tuple[Record, ...]:
    """The records of two runs: a healthy pair with every analysis, and one of hostile names and numbers."""
    with tempfile.TemporaryDirectory() as folder:
        healthy = [str(path) for path in write_pair(Path(folder) / "healthy")]
        hostile = [str(path) for path in write_hostile_pair(Path(folder))]
        first = list(compare(*healthy, all_analyses=True, stats=True))
        return (*first, *compare(*hostile, include_unchanged=True, histograms=True))


class WriterContract:
    """Checks for one row of the outputs."""

    row: ClassVar[WriterRow]

    def test_the_row_is_sound(self) -> None:
        """It has a name, a title and a media type."""
        assert self.row.name
        assert self.row.title
        assert "/" in self.row.media_type

    def test_no_records_and_two_closes(self) -> None:
        """Nothing to print is no error, closing twice is once, and the stream stays open."""
        stream = io.BytesIO()
        writer = self.row.open(stream, WriterOptions())
        writer.close()
        size = len(stream.getvalue())
        writer.close()
        assert len(stream.getvalue()) == size
        assert not stream.closed

    def test_every_record_can_be_printed(self) -> None:
        """Records of every analysis, hostile names, NaN and infinity: printed, and never changed."""
        records = sample_records()
        before = copy.deepcopy(records)
        assert self.printed()
        assert repr(records) == repr(before)

    def test_equal_records_are_equal_bytes(self) -> None:
        """Neither chance nor a time but that of the clock is in the output."""
        assert self.printed() == self.printed()

    def test_text_cannot_harm_a_terminal(self) -> None:
        """Text is UTF-8, and without colour no control character is left of the names in it."""
        if self.row.is_binary:
            return
        text = self.printed().decode("utf-8")
        assert not {character for character in text if ord(character) < 32 and character not in PRINTABLE}

    def test_a_terminal_of_any_width_will_do(self) -> None:
        """Narrow, without Unicode, in colour, with all rows or one: it prints."""
        for options in ({"width": 40}, {"width": 200, "color": True}, {"unicode": False}, {"top": 1}, {"top": 0}):
            assert self.printed(**options)

    def test_a_part_is_printed_before_the_end(self) -> None:
        """What is no document can be read while the run goes on."""
        stream = io.BytesIO()
        writer = self.row.open(stream, WriterOptions())
        for number in range(1 + BATCH // len(sample_records())):
            for record in sample_records():
                writer.write({**record, "seq": number})
        assert self.row.is_document or stream.getvalue()
        writer.close()

    def printed(self, **options: Any) -> bytes:
        """The sample records as this output prints them."""
        stream = io.BytesIO()
        writer = self.row.open(stream, WriterOptions(clock=lambda: "2026-01-02T03:04:05Z", **options))
        for record in sample_records():
            writer.write(record)
        writer.close()
        return stream.getvalue()
