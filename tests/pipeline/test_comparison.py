"""The object that `compare` returns: it streams as a loop, keeps what is asked of it, and shows itself in a notebook."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest

from diffai_stream import Comparison, compare
from diffai_stream.errors import MissingExtraError, UsageError
from diffai_stream.testing.checkpoints import write_arrays, write_hostile_pair, write_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return [str(path) for path in write_pair(tmp_path_factory.mktemp("pair"))]


def test_a_loop_streams_and_keeps_nothing(pair):
    comparison = compare(*pair)
    assert isinstance(comparison, Comparison)
    assert "not read yet" in repr(comparison)
    types = [record["type"] for record in comparison]
    assert (types[0], types[-1]) == ("header", "summary")
    assert comparison._kept is None
    with pytest.raises(UsageError, match=f"{len(types)} records were taken.*compare again"):
        _ = comparison.tensors
    assert comparison._repr_mimebundle_() == {"text/plain": repr(comparison)}


def test_a_loop_over_many_records_needs_no_memory_for_them(tmp_path):
    names = [f"layers.{number}.weight" for number in range(3000)]
    paths = [str(write_arrays(tmp_path / f"{side}", {name: np.full(4, side, np.float32) for name in names})) for side in (1, 2)]
    tracemalloc.start()
    list(compare(*paths))
    kept = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    assert sum(1 for _ in compare(*paths)) > 3000
    looped = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert looped < kept


def test_lists_are_the_records_of_a_loop(pair):
    records = list(compare(*pair, stats=True))
    comparison = compare(*pair, stats=True)
    assert comparison.tensors == [record for record in records if record["type"] == "tensor"]
    assert [layer["subject"] for layer in comparison.layers] == [
        *("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm")
    ]
    assert {finding["type"] for finding in comparison.findings} == {"layer_impact"}
    assert comparison.header["type"] == "header"
    assert comparison.summary["status"] == "different"
    assert comparison.errors == []
    assert list(comparison) == list(comparison) == comparison.records
    assert repr(comparison).endswith(": different>")


def test_tables(pair):
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    comparison = compare(*pair)
    table = comparison.to_arrow()
    assert table.num_rows == len(comparison.records)
    assert table.column("type").to_pylist() == [record["type"] for record in comparison.records]
    frame = comparison.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["name"]) == [record["name"] for record in comparison.tensors]
    expected = [record["change"]["relative_l2"] for record in comparison.tensors]
    assert list(frame["change.relative_l2"]) == expected
    layers = comparison.to_pandas(comparison.layers)
    assert list(layers["subject"]) == [record["subject"] for record in comparison.layers]


@pytest.mark.parametrize(("library", "method"), [("pandas", "to_pandas"), ("pyarrow", "to_arrow")])
def test_without_the_library_the_message_says_what_to_install(pair, library, method):
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from diffai_stream import compare\n"
        f"try: compare(*sys.argv[1:]).{method}()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    found = subprocess.run([sys.executable, "-c", code, *pair], capture_output=True, text=True, check=True).stdout
    assert found.startswith(MissingExtraError.__name__)
    assert "pip install" in found


class Cells(HTMLParser):
    """The tags of a page, and the text in its cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_a_notebook_shows_a_report_and_a_table(pair):
    bundle = compare(*pair)._repr_mimebundle_()
    assert "different" in bundle["text/plain"]
    assert "model.layers.1.mlp.up_proj.weight" in bundle["text/plain"]
    cells = Cells(bundle["text/html"])
    assert cells.tags == {"p", "strong", "table", "tr", "th", "td"}
    assert "model.layers.1.mlp.up_proj.weight" in cells.texts


def test_hostile_names_are_text(tmp_path):
    comparison = compare(*map(str, write_hostile_pair(tmp_path)))
    bundle = comparison._repr_mimebundle_()
    cells = Cells(bundle["text/html"])
    assert cells.tags == {"p", "strong", "table", "tr", "th", "td"}
    assert "<script>alert(1)</script>" in cells.texts
    assert "\x1b" not in bundle["text/html"] + bundle["text/plain"]


def test_a_trajectory_has_the_tensors_of_all_pairs(tmp_path):
    for step in (1, 2, 3):
        write_arrays(tmp_path / f"checkpoint-{step}" / "model.safetensors", {"w": np.full(3, step, np.float32)})
    comparison = compare(str(tmp_path))
    assert [tensor["pair"] for tensor in comparison.tensors] == [0, 1]
    assert comparison.summary["pair"] == 1


def test_closing_ends_it(pair):
    comparison = compare(*pair)
    next(comparison)
    comparison.close()
    assert list(comparison) == []
