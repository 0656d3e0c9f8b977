"""Reports and reviews: nothing in a name becomes markup, memory stays bounded, the page renders in a browser."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from diffai_stream.errors import MissingExtraError
from diffai_stream.pipeline import compare
from diffai_stream.report.document import html, markdown
from diffai_stream.report.document.blocks import Cell, Column, Document, Listing, Name, Paragraph, Section, Table, Verbatim
from diffai_stream.report.document.charts import charts
from diffai_stream.report.document.collected import RunRecords
from diffai_stream.report.documents import Documented
from tests.checkpoints import write_safetensors
from tests.models import llama, tuned
from tests.report import sample_records as sample
from tests.report.harness import HOSTILE, printed, renamed

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREENSHOTS = Path(__file__).parents[2] / "build"
MARKUP = [
    *HOSTILE,
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a|b`c``d|",
    "`",
    "@someone #12 ~~x~~ $x$ __y__ [z](http://e) ![i](http://e)",
    "&amp;lt; &#x3c;",
    "\\",
    "</script><!--",
]
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The tags and the text of a page; every tag that is opened is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def document(name):
    table = Table("", (Column("a"), Column("b", True)), [[Cell((Name(name), " ", name)), Cell(("1",), 1.0)]] * 2)
    return Document(name, [Paragraph((name, Name(name)))], [Section((Name(name),), "x", [table, Listing([(name,)])])], name)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    base = llama(4, 64)
    for name, model in (("old", base), ("new", tuned(base))):
        (folder / name).mkdir()
        text = '{"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 4}'
        (folder / name / "config.json").write_text(text)
        write_safetensors(folder / name / "model.safetensors", model)
    return str(folder / "old"), str(folder / "new")


@pytest.fixture(scope="module")
def records(pair):
    return list(compare(*pair, all_analyses=True, analyses=("spectrum", "regression_test")))


# --- notations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MARKUP)
def test_no_name_becomes_a_tag(name):
    harmless, hostile = Page(html.render(document("plain"))), Page(html.render(document(name)))
    assert hostile.tags == harmless.tags
    assert [key for key, _ in hostile.attributes] == [key for key, _ in harmless.attributes]


@pytest.mark.parametrize("name", [name for name in MARKUP if name])
def test_no_name_becomes_markdown(name):
    tokens = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False}).parse
    shapes = []
    for text in ("plain", name):
        found = tokens(markdown.render(document(text)))
        inner = [child for token in found for child in token.children or ()]
        kinds = {child.type for child in inner} - {"text", "code_inline", "text_special"}
        shapes.append(([token.type for token in found], kinds))
    assert shapes[0][0] == shapes[1][0]
    assert shapes[1][1] <= shapes[0][1] | {"html_inline"}
    assert [child.content for child in inner if child.type == "html_inline"] == ["<sub>", "</sub>"]


def test_lines_that_look_like_lists_and_long_fences():
    block = Verbatim("a ``` b\n- c")
    found = markdown.render(Document("t", [Paragraph(("1. one",)), Paragraph(("- two",)), block], [], "f"))
    assert "1\\. one" in found
    assert "\\- two" in found
    assert "````\na ``` b\n- c\n````" in found


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", ["markdown", "html"])
def test_hostile_records_are_printed(name, hostile):
    text = printed(name, renamed(sample.full_run(), hostile)).decode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2066]", text)
    if name == "html":
        Page(text)


def test_page_runs_its_own_script_only(records):
    text = printed("html", records).decode()
    policy = re.search('Content-Security-Policy" content="([^"]+)"', text).group(1)
    assert policy.startswith("default-src 'none';")
    for tag, kind in (("script", "script-src"), ("style", "style-src")):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)


# --- what they say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["markdown", "html"])
def test_every_analysis_has_its_section(name, records):
    text = printed(name, records).decode()
    page = "".join(Page(text).texts) if name == "html" else text
    for kind in {record["type"] for record in records} - {"header", "tensor", "summary", "skipped", "layer_impact", "anomaly"}:
        title = kind.replace("_", " ")
        assert title[:1].upper() + title[1:] in page, kind
    assert "Not computed" in page
    assert str(records[-1]["counts"]["changed"]) in page


@pytest.mark.parametrize("name", ["markdown", "html"])
def test_a_run_without_an_end_says_so(name):
    text = printed(name, sample.full_run()[:-1]).decode()
    assert "the run ended before its summary" in text
    assert printed(name, []) == b""


def test_memory_is_bounded():
    run = RunRecords(top=5)
    tensor = next(record for record in sample.full_run() if record["type"] == "tensor" and record["status"] == "changed")
    run.add(sample.full_run()[0])
    for number in range(20_000):
        run.add({**tensor, "name": f"t{number}"})
        run.add({"type": "anomaly", "scope": "tensor", "subject": f"t{number}", "severity": "warning", "kind": "k"})
        run.add({"type": "memory_analysis", "scope": "tensor", "subject": f"t{number}", "x": 1})
        run.add({"type": "warning", "code": "c", "message": "m"})
    (pair,) = run.pairs
    assert len(pair.tensors.selected()) == 5
    assert len(pair.anomalies.records()) == len(pair.findings["memory_analysis"].records) == len(pair.warnings.records) == 5
    assert pair.warnings.total == 20_000


def test_trajectory_has_a_section_a_step(pair):
    text = printed("markdown", list(compare(pair[0], pair[1], pair[0]))).decode()
    assert len(re.findall(r"^## `.*` → `.*`$", text, re.MULTILINE)) == 2


# --- documents as records --------------------------------------------------------------------------------------------


def test_documents_come_before_the_last_summary(pair):
    plain = list(compare(*pair))
    carried = list(compare(*pair, review_friendly=True, generate_report=True))
    assert [record["type"] for record in carried[-3:]] == ["review", "report", "summary"]
    assert [record["seq"] for record in carried] == list(range(len(plain) + 2))
    assert carried[:-3] == plain[:-1]
    assert all(record["format"] == "markdown" and record["text"].startswith("# Comparison") for record in carried[-3:-1])
    assert len(carried[-3]["text"]) < len(carried[-2]["text"])


def test_documents_of_a_trajectory_come_once_at_the_end(pair):
    kinds = [record["type"] for record in compare(*pair, pair[0], review_friendly=True)]
    assert kinds.count("review") == 1
    assert kinds.index("review") > kinds.index("summary")


def test_an_interrupt_reaches_the_run():
    def run():
        try:
            yield from sample.full_run()[:-1]
        except KeyboardInterrupt:
            yield {**sample.full_run()[-1], "status": "interrupted"}

    documented = Documented(run(), ("review",), 5, False)
    next(documented)
    first = documented.throw(KeyboardInterrupt())
    last = next(documented)
    assert first["type"] == "review"
    assert last["status"] == "interrupted"
    with pytest.raises(StopIteration):
        next(documented)


# --- charts ----------------------------------------------------------------------------------------------------------


def test_charts_are_drawn_and_described(records):
    pytest.importorskip("vl_convert")
    run = RunRecords(20)
    for record in [*records, *(record for record in sample.full_run() if record["type"] == "quantization")]:
        run.add(record)
    (drawn,) = charts(run).values()
    titles = [chart.title for chart in drawn]
    assert titles == ["Change by layer and role", "How much the tensors changed", "SQNR by layer", "Spectrum of the change"]
    for chart in drawn:
        assert ElementTree.fromstring(chart.svg).tag.endswith("svg")
        assert re.search(r"\d", chart.description)
    changed = sum(record["type"] == "tensor" and record["status"] == "changed" for record in records)
    assert drawn[1].description.startswith(f"{changed:,} changed tensor")


def test_equal_checkpoints_have_no_chart(pair):
    pytest.importorskip("vl_convert")
    run = RunRecords(20)
    for record in compare(pair[0], pair[0]):
        run.add(record)
    assert charts(run) == {0: []}


def test_a_missing_library_is_named_before_anything_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'diffai-stream\[charts\]'"):
        printed("html", sample.full_run(), charts=True)
    with pytest.raises(MissingExtraError):
        compare("a", "b", generate_report=True, include_charts=True)


# --- in a browser ----------------------------------------------------------------------------------------------------


def browse(page, *flags):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_the_page_renders_without_an_error_in_the_console(tmp_path, records):
    pytest.importorskip("vl_convert")
    page = tmp_path / "report.html"
    page.write_bytes(printed("html", records, charts=True))
    found = browse(page, "--dump-dom")
    assert "CONSOLE" not in found.stderr
    assert found.stdout.count("<button") > 50  # the script ran: titles sort
    SCREENSHOTS.mkdir(exist_ok=True)
    for name, size in (("wide", "1300,1800"), ("phone", "420,1800")):
        target = SCREENSHOTS / f"report-{name}-{os.getpid()}.png"
        browse(page, f"--screenshot={target}", f"--window-size={size}")
        assert target.stat().st_size > 20_000
        target.replace(SCREENSHOTS / f"report-{name}.png")
