import io

import pytest

from diffai_stream.report.colors import stream_options, terminal_width, wants_color, wants_unicode


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("flag", "environ", "is_terminal", "expected"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"TERM": "xterm"}, True, True),
        ("always", {"NO_COLOR": "1", "TERM": "dumb"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("auto", {"FORCE_COLOR": "0"}, False, False),
        ("auto", {"CLICOLOR_FORCE": "1", "CLICOLOR": "0"}, False, True),
        ("auto", {"CLICOLOR_FORCE": "0"}, False, False),
        ("auto", {"CLICOLOR": "0"}, True, False),
        ("auto", {"CLICOLOR": "1"}, True, True),
        ("auto", {"CLICOLOR": "1"}, False, False),
        ("auto", {"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
    ],
)
def test_color(flag, environ, is_terminal, expected):
    assert wants_color(flag, environ, is_terminal) is expected


@pytest.mark.parametrize(
    ("encoding", "environ", "expected"),
    [
        ("utf-8", {}, True),
        ("UTF8", {"LANG": "en_GB.UTF-8"}, True),
        ("utf-8", {"LANG": "C"}, False),
        ("utf-8", {"LANG": "C.UTF-8"}, True),
        ("utf-8", {"LC_ALL": "POSIX", "LANG": "en_GB.UTF-8"}, False),
        ("utf-8", {"LANG": "de_DE.ISO-8859-1"}, False),
        ("utf-8", {"LANG": "de_DE@euro"}, True),
        ("ascii", {"LANG": "en_GB.UTF-8"}, False),
        ("latin-1", {}, False),
        (None, {}, False),
    ],
)
def test_unicode(encoding, environ, expected):
    assert wants_unicode(encoding, environ) is expected


def test_width():
    assert terminal_width(io.StringIO(), {"COLUMNS": "90"}) is None
    assert terminal_width(Terminal(), {"COLUMNS": "90"}) == 90
    assert terminal_width(Terminal(), {"COLUMNS": "0"}) == 80


def test_options_of_a_stream():
    options = stream_options(Terminal(), top=5, environ={"COLUMNS": "90"})
    assert (options.color, options.width, options.unicode, options.top, options.timestamps) == (True, 90, True, 5, False)
