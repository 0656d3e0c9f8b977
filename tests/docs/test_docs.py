"""The reference pages are what the program says now, and no link of any page leads nowhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffai_stream.analyses.anomaly import SEVERITY
from diffai_stream.options import DEFAULT_CHUNK_NBYTES
from diffai_stream.plan import memory

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("build", "dist", "demo") for part in path.relative_to(ROOT).parts)
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def generate():
    specification = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def anchors(path: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_reference_pages_are_fresh(generate):
    assert generate.stale() == [], "run `make docs`"


def test_check_says_by_its_status_whether_a_page_is_stale(generate, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "REFERENCE", tmp_path / "reference")
    assert generate.main(["--check"]) == 1
    assert "cli-reference.md is stale" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert generate.main(["--chekc"]) == 2


def test_the_program_runs_from_a_shell():
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], cwd=ROOT.parent, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_reached_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in LINK.findall(index) if ":" not in link}
    own = [page for page in PAGES if page.is_relative_to(ROOT / "docs") and page.name != "index.md"]
    assert [page.name for page in own if page not in linked] == []


def test_the_guide_explains_every_kind_of_anomaly():
    guide = (ROOT / "docs" / "user-guide" / "ml-model-comparison.md").read_text(encoding="utf-8")
    assert [kind for kind in SEVERITY if f"`{kind}`" not in guide] == []


def test_the_memory_formula_has_the_numbers_of_the_program():
    text = (ROOT / "docs" / "development" / "architecture.md").read_text(encoding="utf-8")
    for name, nbytes in (
        ("process", memory.PROCESS_NBYTES),
        ("scanner", memory.SCANNER_NBYTES),
        ("histograms", memory.HISTOGRAMS_NBYTES),
        ("chunk", DEFAULT_CHUNK_NBYTES),
    ):
        assert re.search(rf"^\| {name} \|.*\b{nbytes // memory.MIB} MiB \|", text, re.MULTILINE), name
    assert f"{memory.RESULTS_WAITING} x {memory.RESULT_NBYTES >> 10} KiB" in text
    assert f"{memory.TENSOR_NBYTES:,} B a tensor" in text
