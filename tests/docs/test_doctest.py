"""The examples on the page of the Python API do what they say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from diffai_stream.testing.checkpoints import write_arrays

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api-reference.md"


def test_the_page_of_the_api(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    base = {"body.weight": np.ones((2, 3), np.float32), "head.weight": np.full((3, 4), 2, np.float32)}
    write_arrays(tmp_path / "base.safetensors", base)
    write_arrays(tmp_path / "finetuned.safetensors", {**base, "head.weight": base["head.weight"] + 1})
    text = re.sub(r"^```.*$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(text, {}, "api-reference", str(PAGE), 0)
    assert len(test.examples) >= 6
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)
