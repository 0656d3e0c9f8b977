"""What the guides tell people to paste is at least well-formed: shell, YAML, Python; and options in it exist."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.cli.app import app
from diffai_stream.report.catalogue import WRITERS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([*DOCS.glob("guides/*.md"), *DOCS.glob("user-guide/*.md"), DOCS / "development" / "write-a-plugin.md"])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CASES = [(page, language, text) for page in PAGES for language, text in BLOCK.findall(page.read_text(encoding="utf-8"))]


def blocks(language):
    found = [(page, text) for page, name, text in CASES if name == language]
    return pytest.mark.parametrize(("page", "text"), found, ids=[f"{page.stem}-{n}" for n, (page, _) in enumerate(found)])


@blocks("sh")
def test_shell_is_shell(page, text):
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False).stderr == ""


@blocks("yaml")
def test_yaml_is_yaml(page, text):
    assert isinstance(yaml.safe_load(text), dict)


@blocks("python")
def test_python_is_python(page, text):
    ast.parse(text)


@blocks("sh")
def test_options_exist(page, text):
    flags = {flag for command in app.commands.values() for parameter in command.params for flag in parameter.opts}
    flags |= {row.flag for row in ANALYSES.values()} | {"--version"}
    called = [line for line in text.replace("\\\n", " ").splitlines() if re.match(r"\s*diffai ", line)]
    used = {word for line in called for word in re.findall(r"(?<=\s)--[a-z][a-z-]+", line.partition("|")[0])}
    assert used - flags <= {"--scaling"}  # of the example plug-in
    outputs = {word for line in called for word in re.findall(r"(?:-o|--output|--log-format) ([\w-]+)", line)}
    assert outputs - set(WRITERS) <= {"tsv", "markdown", "html"}
