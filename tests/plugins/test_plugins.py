"""Entry points and catalogues: what is found, what is refused and why, and that what fails ends neither a run nor a process."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from diffai_stream import plugins
from diffai_stream.analyses import catalogue as analyses
from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.catalogue import ANALYSES, RECORD_TYPES
from diffai_stream.analyses.fields import AnomalyFields
from diffai_stream.cli.process import run
from diffai_stream.encodings.base import DecodeKind, Encoding
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.errors import FormatError, UsageError
from diffai_stream.formats import catalogue as formats
from diffai_stream.formats.catalogue import FORMATS, FormatRow, open_checkpoint
from diffai_stream.pipeline import compare
from diffai_stream.plugins import Catalogue
from diffai_stream.report.catalogue import WRITERS
from diffai_stream.report.records import CORE_RECORDS
from tests.checkpoints import write_safetensors

ROWS = """
from diffai_stream.formats.catalogue import FormatRow
ONE, TWO = FormatRow("one", "One", (".one",), "{module}"), FormatRow("two", "Two", (), "{module}")
HDF5 = FormatRow("hdf5", "Mine", (), "")
class Holder: INNER = FormatRow("inner", "Inner", (), "")
"""


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    """What is broken here is forgotten again."""
    monkeypatch.setattr(plugins, "_broken", {})
    plugins._installed.cache_clear()
    yield
    plugins._installed.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes an installed package of entry points and a module of its own; they are on the path from then on."""
    names = []

    def make(name, entry_points, source="", folder="site", version="1.0"):
        site = tmp_path / folder
        (site / f"{name}-{version}.dist-info").mkdir(parents=True)
        (site / f"{name}-{version}.dist-info" / "entry_points.txt").write_text(entry_points)
        (site / f"{name}.py").write_text(source.format(module=name) if "{module}" in source else source)
        monkeypatch.syspath_prepend(str(site))
        names.append(name)
        return site

    yield make
    for name in names:
        sys.modules.pop(name, None)


def catalogue():
    return Catalogue("formats", FormatRow, FORMATS.values())


def reasons():
    return {plugin.name: plugin.reason for plugin in plugins.broken()}


def test_rows_join_when_they_are_asked_for(package):
    package(
        "pack_a",
        "[diffai_stream.formats]\none = pack_a:ONE\ninner=pack_a:Holder.INNER [extra]\n\n[console_scripts]\nx = y:z\n",
        ROWS,
    )
    known = catalogue()
    assert "one" not in known
    assert "pack_a" not in sys.modules
    assert known["one"].title == "One"
    assert list(known)[-2:] == ["inner", "one"]
    assert known.origins["inner"].distribution == "pack_a 1.0"
    with pytest.raises(KeyError):
        known["three"]
    assert plugins.broken() == ()


def test_a_row_of_ones_own(package):
    package("pack_b", "[diffai_stream.formats]\none = pack_b:ONE\n", ROWS)
    known = catalogue()
    known.register(FormatRow("mine", "Mine", (), ""))
    assert "mine" in known
    for taken in ("mine", "hdf5", "one"):
        with pytest.raises(ValueError, match=taken):
            known.register(FormatRow(taken, "Mine", (), ""))


def test_what_is_refused(package):
    text = "[diffai_stream.formats]\none = pack_c:ONE\nother = pack_c:TWO\nhdf5 = pack_c:HDF5\nnumber = sys:maxsize\n"
    package("pack_c", text + "gone = pack_c:GONE\nleaves = leaver:X\n", ROWS)
    package("pack_d", "[diffai_stream.formats]\none = pack_d:ONE\n", ROWS)
    package("leaver", "", "import sys\nsys.exit(3)\n")
    known = catalogue().complete()
    assert known.origins["one"].distribution == "pack_c 1.0"
    found = reasons()
    assert "other" in found["other"]
    assert "'two'" in found["other"]
    assert found["hdf5"] == "diffai_stream itself has a row of that name"
    assert "is no FormatRow but a int" in found["number"]
    assert found["gone"].startswith("AttributeError")
    assert found["leaves"] == "SystemExit: 3"
    assert found["one"] == "pack_c 1.0 has a row of that name"
    assert len(found) == 6


def test_of_a_package_that_is_there_twice_the_first_on_the_path_counts(package):
    package("pack_e", "[diffai_stream.formats]\none = pack_e:ONE\n", ROWS, "second")
    package("pack_e", "[diffai_stream.formats]\ntwo = pack_e:TWO\n", ROWS, "first", "2.0")
    assert [(point.name, point.distribution) for point in plugins.entry_points("formats")] == [("two", "pack_e 2.0")]


@pytest.mark.parametrize(
    "text", ["", "[diffai_stream.formats", "[diffai_stream.formats]\nno colon\n= x:y\n#a = b:c\n", "\x00" * 50]
)
def test_metadata_that_makes_no_sense_names_nothing(package, text):
    package("pack_f", text)
    assert plugins.entry_points("formats") == ()


def test_the_types_of_records_are_no_names():
    assert set(RECORD_TYPES) == set(CORE_RECORDS)


GOOD = Analysis("mine", "--mine", "mine", "x", ("model",), "measured", "mine", AnomalyFields)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"default": True}, "by default"),
        ({"name": "summary"}, "summary"),
        ({"name": "a-b"}, "a-b"),
        ({"flag": "mine"}, "write it like --mine"),
        ({"flag": "--anomaly-detection"}, "'anomaly' has its flag"),
        ({"argument": "X"}, "takes no value"),
        ({}, None),
    ],
)
def test_an_analysis_must_change_nothing_for_others(change, reason):
    found = analyses._refused(replace(GOOD, **change))
    assert found is None if reason is None else reason in found


def test_a_gate_of_a_plug_in_sets_the_status(monkeypatch):
    from diffai_stream import verdict

    monkeypatch.setitem(ANALYSES, "mine", replace(GOOD, is_gate=True))
    assert verdict.is_gate("mine")
    assert verdict.is_gate("regression_test")
    assert not verdict.is_gate("anomaly")
    assert not verdict.is_gate("unknown")


FORMAT = """
from diffai_stream.formats.catalogue import FormatRow
ONE = FormatRow("one", "One", (".one",), "{module}")
def probe(path, head): {probe}
def index(path): {index}
"""


def one(package, monkeypatch, name, probe, index="raise KeyError('odd')"):
    package(name, f"[diffai_stream.formats]\none = {name}:ONE\n", FORMAT.format(module=name, probe=probe, index=index))
    monkeypatch.setattr(formats, "FORMATS", catalogue())


def test_a_format_that_fails_to_look_is_left_out(package, monkeypatch, tmp_path):
    one(package, monkeypatch, "pack_g", "return 1 / 0")
    (tmp_path / "x").write_bytes(b"\xc8" * 99)
    with pytest.raises(FormatError, match="no known format"):
        open_checkpoint(str(tmp_path / "x"))
    assert reasons() == {"one": "ZeroDivisionError: division by zero"}
    assert "one" not in formats.FORMATS


def test_a_format_that_fails_to_read_is_an_error_with_its_name(package, monkeypatch, tmp_path):
    one(package, monkeypatch, "pack_h", "return True")
    (tmp_path / "x").write_bytes(b"\xc8" * 99)
    with pytest.raises(FormatError, match=r"x: the plug-in for One of pack_h 1.0 failed: KeyError: 'odd'"):
        open_checkpoint(str(tmp_path / "x"))


def test_a_known_file_asks_no_plug_in(package, monkeypatch, tmp_path):
    one(package, monkeypatch, "pack_i", "return True")
    assert open_checkpoint(str(write_safetensors(tmp_path / "x", {"a": np.ones(2, np.float32)}))).format == "safetensors"
    assert "pack_i" not in sys.modules


@pytest.fixture
def pair(tmp_path):
    old = {"a": np.ones((4, 8), np.float32), "b": np.ones(3, np.float32)}
    new = {**old, "a": old["a"] * 2}
    return [str(write_safetensors(tmp_path / f"{name}.safetensors", side)) for name, side in (("old", old), ("new", new))]


def analysis(package, monkeypatch, name, source):
    package(name, "", source)
    row = Analysis(
        name, f"--{name.replace('_', '-')}", name, "x", ("model",), "measured", name, AnomalyFields, plugin="pack 1.0"
    )
    monkeypatch.setitem(ANALYSES, name, row)
    monkeypatch.setitem(ANALYSES.origins, name, plugins.EntryPoint("analyses", name, name, "ROW", "pack 1.0"))
    return name


@pytest.mark.parametrize("scope", ["tensor", "layer", "model"])
def test_an_analysis_that_fails_is_skipped_once(package, monkeypatch, pair, scope):
    name = analysis(package, monkeypatch, f"fails_{scope}", f"def {scope}(evidence, options):\n    raise ValueError('odd')\n")
    records = list(compare(*pair, analyses=(name,)))
    told = [record for record in records if record["type"] == "skipped" and record["analysis"] == name]
    assert [(record["subject"], record["reason"]) for record in told] == [
        ("model", "its plug-in pack 1.0 failed: ValueError: odd")
    ]
    assert records[-1]["status"] == "different"


@pytest.mark.parametrize("function", ["needs(pair, options)", "needs_in(run, options)", "check(pairs, options)"])
def test_an_analysis_that_fails_before_the_run_is_left_out(package, monkeypatch, pair, function):
    name = "early_" + function.partition("(")[0]
    found = "def model(evidence, options):\n    raise AssertionError\n"
    analysis(package, monkeypatch, name, f"def {function}:\n    raise ValueError('odd')\n{found}")
    records = list(compare(*pair, analyses=(name,)))
    told = [record["message"] for record in records if record["type"] == "warning" and record["code"] == "broken_plugin"]
    assert told == [f"analyses plug-in {name!r} of pack 1.0 is left out: ValueError: odd"]
    assert not [record for record in records if record["type"] == name]
    assert records[-1]["status"] == "different"


def test_a_wrong_option_is_still_told_by_the_analysis(package, monkeypatch, pair):
    source = "from diffai_stream.errors import UsageError\ndef check(pairs, options): raise UsageError('give --more')\n"
    name = analysis(package, monkeypatch, "asks", source)
    with pytest.raises(UsageError, match="give --more"):
        compare(*pair, analyses=(name,))


def test_an_analysis_whose_module_is_not_there_is_left_out(package, monkeypatch, pair):
    name = analysis(package, monkeypatch, "absent", "raise ImportError('no such library')\n")
    for _ in range(2):
        records = list(compare(*pair, analyses=(name,)))
        told = [record["message"] for record in records if record["type"] == "warning"]
        assert told == ["analyses plug-in 'absent' of pack 1.0 is left out: ImportError: no such library"]
        assert records[-1]["status"] == "different"


STATISTIC = """
from dataclasses import dataclass
from diffai_stream.statistics.base import Statistic
from diffai_stream.statistics.layout import View
@dataclass(frozen=True)
class Odd(Statistic):
    view: View = View.PAIR
    def empty(self): return 0
    def update(self, state, tile): raise ValueError("odd")
    def merge(self, left, right): return 0
    def finalize(self, state): return {}
def needs(pair, options): return (Odd(),) if pair.name == "a" else ()
def model(evidence, options): return ()
"""


def test_a_statistic_that_fails_is_an_error_of_its_tensor(package, monkeypatch, pair):
    name = analysis(package, monkeypatch, "odd_statistic", STATISTIC)
    records = list(compare(*pair, analyses=(name,), include_unchanged=True))
    errors = [(record["tensor"], record["message"]) for record in records if record["type"] == "error"]
    assert errors == [("a", "the statistic Odd of a plug-in failed: ValueError: odd")]
    assert [record["name"] for record in records if record["type"] == "tensor"] == ["b"]
    assert records[-1]["exit_status"] == 2


def test_an_encoding_that_fails_is_an_error_of_its_tensor(package, monkeypatch, tmp_path):
    package("odd_decoder", "", "def open_decoder(entry, read): raise ValueError('odd')\n")
    row = Encoding("ODD", 8, DecodeKind.F32, "quantized", decoder="odd_decoder:open_decoder")
    monkeypatch.setitem(ENCODINGS, "ODD", row)
    path = str(write_safetensors(tmp_path / "x.safetensors", {"a": np.ones(4, np.uint8), "b": np.ones(2, np.float32)}))
    sound = formats.FORMATS["safetensors"].load().index

    def index(given):
        found = sound(given)
        return found._replace(tensors=tuple(t._replace(encoding="ODD") if t.name == "a" else t for t in found.tensors))

    monkeypatch.setattr("diffai_stream.formats.safetensors.index", index)
    records = list(compare(path, path, include_unchanged=True))
    errors = [(record["tensor"], record["message"]) for record in records if record["type"] == "error"]
    assert errors == [("a", "the encoding ODD of a plug-in failed: ValueError: odd")]
    assert [record["name"] for record in records if record["type"] == "tensor"] == ["b"]


FAILING_WRITER = """
from diffai_stream.report.catalogue import WriterRow
class Writer:
    def __init__(self, stream, options): self.stream = stream
    def write(self, record):
        if record["type"] == "{when}": raise ValueError("odd")
        self.stream.write(b"x\\n")
    def close(self):
        if "{when}" == "close": raise ValueError("odd")
ROW = WriterRow("odd_output", "Odd", "failing_writer:Writer", "text/plain")
"""


@pytest.fixture
def output():
    """The name of an output that the catalogue, which all of the program shares, forgets afterwards."""
    yield "odd_output"
    WRITERS.pop("odd_output", None)
    WRITERS.origins.pop("odd_output", None)
    WRITERS._seen.clear()


@pytest.mark.parametrize("when", ["header", "summary", "close"])
def test_an_output_that_fails_is_an_error_with_its_name(package, pair, capfd, output, when):
    entry_point = "[diffai_stream.writers]\nodd_output = failing_writer:ROW\n"
    package("failing_writer", entry_point, FAILING_WRITER.replace("{when}", when).replace("\\\\", "\\"))
    assert run([*pair, "-o", output]) == 2
    printed, said = capfd.readouterr()
    assert "the output 'odd_output' of failing_writer 1.0 failed: ValueError: odd" in said
    assert "Traceback" not in said
    assert bool(printed) == (when != "header")
