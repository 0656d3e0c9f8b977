"""Running a writer over records, and the names that must not harm it."""

import io

from diffai_stream.report.base import WriterOptions
from diffai_stream.report.catalogue import open_writer

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "a\nb\r\tc",
    "[bold]x[/bold] [/] [link=http://e]",
    ":smile: {x} %s",
    "\u202eevil\u2066",
    "\udcff\ud800",
    "名前.重み" * 12,
    "\x7f\x9b31m",
    "",
    "- a: #b",
    "n" * 500,
]


def printed(name, records, **options):
    stream = io.BytesIO()
    writer = open_writer(name, stream, WriterOptions(**options))
    for record in records:
        writer.write(record)
    writer.close()
    return stream.getvalue()


def renamed(records, name):
    """The records with every name, message and path replaced by a hostile one."""
    keys = {"name", "subject", "message", "path", "layer", "role", "reason", "kind", "tensor", "code", "encoding", "match"}

    def walk(value, key=""):
        if isinstance(value, dict):
            return {inner: walk(item, inner) for inner, item in value.items()}
        if isinstance(value, list):
            return [walk(item, key) for item in value]
        return name if key in keys and isinstance(value, str) else value

    return [walk(record) for record in records]
