"""The commands without the engine: default command, help, lists, outputs."""

import io
import json
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from diffai_stream import __version__, doctor
from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.cli.app import app
from diffai_stream.cli.inspect_text import InspectTextWriter
from diffai_stream.cli.options import ROWS
from diffai_stream.formats.catalogue import FORMATS
from diffai_stream.options import Options
from diffai_stream.report import colors
from diffai_stream.report.base import WriterOptions
from diffai_stream.report.catalogue import WRITERS
from diffai_stream.report.records import SCHEMA_VERSION
from tests.cli.fakes import FakePipeline, base, header, summary, tensor


def test_without_arguments_three_examples_are_shown(diffai):
    status, out, err = diffai()
    assert (status, err) == (0, "")
    assert sum(line.startswith("  diffai ") for line in out.splitlines()) == 3


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["compare", "--help"], ["a", "b", "--help"]])
def test_help_names_every_option_and_every_analysis(diffai, arguments):
    status, out, err = diffai(*arguments)
    assert (status, err) == (0, "")
    flags = {"--" + row.parameter.replace("_", "-") for row in ROWS} | {row.flag for row in ANALYSES.values()}
    more = {"--all-analyses", "--output-format", "-o", "--timestamps", "--color", "--progress", "--no-progress", *WRITERS}
    assert {flag for flag in flags | more if flag not in out} == set()
    assert len(ROWS) == len(fields(Options)) - 1


def test_help_names_every_command(diffai):
    out = diffai("--help")[1]
    assert all(name in out for name in app.commands)


@pytest.mark.parametrize("name", app.commands)
def test_every_command_has_help(diffai, name):
    status, out, _ = diffai(name, "--help")
    assert status == 0
    assert out.startswith(f"Usage: diffai {name}")


def test_version(diffai):
    assert diffai("--version")[1] == f"diffai_stream {__version__}, record schema {SCHEMA_VERSION}\n"


@pytest.mark.parametrize(
    "arguments",
    [["compare", "a", "b"], ["a", "b"], ["--stats", "a", "b"], ["a", "--stats", "b"], ["a", "b", "--stats"], ["--", "a", "b"]],
)
def test_compare_is_the_default_command(diffai, pipeline, arguments):
    assert diffai(*arguments)[0] == 1
    assert pipeline.calls[0][:2] == ("a", "b")


def test_a_path_called_like_a_command_is_reached_by_its_folder(diffai, pipeline):
    diffai("./compare", "./inspect")
    assert pipeline.calls[0][:2] == ("./compare", "./inspect")


@pytest.mark.parametrize(("word", "near"), [("inspcet", "inspect"), ("analysis", "analyses"), ("fromats", "formats")])
def test_a_mistyped_command_suggests_the_nearest(diffai, pipeline, word, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = diffai(word, "b")
    assert (status, out, pipeline.calls) == (2, "", [])
    assert f"did you mean '{near}'?" in err
    (tmp_path / word).touch()
    assert diffai(word, "b")[0] == 1


def test_one_checkpoint_is_too_few_and_inspect_is_suggested(diffai, pipeline):
    status, _, err = diffai("a.safetensors")
    assert status == 2
    assert "diffai inspect a.safetensors" in err


def test_output_is_ndjson_when_stdout_is_no_terminal(diffai, pipeline):
    out = diffai("a", "b")[1]
    assert [json.loads(line) for line in out.splitlines()] == pipeline.records


@pytest.mark.parametrize("flag", ["-o", "--output", "--output-format"])
def test_output_by_name(diffai, pipeline, flag):
    assert json.loads(diffai("a", "b", flag, "json")[1]) == pipeline.records
    assert "different" in diffai("a", "b", flag, "text")[1]


def test_timestamps_and_color(diffai, pipeline):
    assert all("timestamp" in json.loads(line) for line in diffai("a", "b", "--timestamps")[1].splitlines())
    assert "\x1b[" in diffai("a", "b", "-o", "text", "--color", "always")[1]
    assert "\x1b[" not in diffai("a", "b", "-o", "text")[1]


def test_progress_is_told_on_stderr(diffai, pipeline):
    _, out, err = diffai("a", "b", "--progress", "json")
    assert {json.loads(line)["type"] for line in err.splitlines()} == {"progress"}
    assert "progress" not in out
    assert diffai("a", "b", "--no-progress")[2] == diffai("a", "b", "--progress", "none")[2] == ""


def test_inspect_reads_one_checkpoint(diffai, pipeline):
    status, out, _ = diffai("inspect", "a", "--stats", "--include", "x*")
    assert pipeline.calls == [("a", None, Options(stats=True, include=("x*",), top=0))]
    assert [json.loads(line) for line in out.splitlines()] == pipeline.records
    assert status == 1


def test_inspect_text_lists_tensors(diffai, use):
    records = [header(), *(tensor(seq, f"layer.{seq}.\x1b[31m") for seq in range(1, 31)), summary(31, "identical", 0)]
    use(FakePipeline(records))
    status, out, _ = diffai("inspect", "a", "-o", "text")
    assert status == 0
    assert all(f"layer.{seq}.\\x1b[31m" in out for seq in range(1, 31))
    assert "\x1b" not in out
    assert "and 20 more tensors" in diffai("inspect", "a", "-o", "text", "--top", "10")[1]


def test_inspect_text_leaves_out_figures_that_were_not_read(diffai, use):
    index_only = {**tensor(1), "stats": {"old": None, "new": None, "delta": None}, "new": None}
    use(FakePipeline([header(), index_only, summary(2, "identical", 0)]))
    out = diffai("inspect", "a", "-o", "text")[1]
    assert "encoding" in out
    assert "mean" not in out


def test_analyses_are_those_of_the_catalogue(diffai):
    _, out, _ = diffai("analyses")
    assert all(row.flag in out and row.title in out for row in ANALYSES.values())
    assert all(row.reference in out and all(need in out for need in row.needs) for row in ANALYSES.values())
    assert "--merge-analysis BASE" in out
    rows = [json.loads(line) for line in diffai("analyses", "--json")[1].splitlines()]
    assert [row["name"] for row in rows] == list(ANALYSES)
    assert rows[0]["fields"] == list(next(iter(ANALYSES.values())).fields.__annotations__)


def test_formats_are_those_of_the_catalogue(diffai):
    assert all(row.name in diffai("formats")[1] for row in FORMATS.values())
    rows = [json.loads(line) for line in diffai("formats", "--json")[1].splitlines()]
    assert [row["name"] for row in rows] == list(FORMATS)


@pytest.mark.parametrize(
    ("command", "texts"),
    [("analyses", [row.title for row in ANALYSES.values()]), ("formats", [row.notes for row in FORMATS.values()])],
)
def test_lists_say_everything_on_a_narrow_terminal(diffai, monkeypatch, command, texts):
    monkeypatch.setattr(colors, "terminal_width", lambda *_: 80)
    out = diffai(command)[1]
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert all(text in " ".join(out.split()) for text in texts)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_inspect_drops_figures_before_it_cuts_names(width):
    names = [f"model.layers.{i}.mlp.down_proj.weight" for i in (10, 11)]
    stream = io.BytesIO()
    writer = InspectTextWriter(stream, WriterOptions(width=width))
    for record in (
        header(),
        *(tensor(seq, name) for seq, name in enumerate(names)),
        anomaly("old"),
        summary(3, "identical", 0),
    ):
        writer.write(record)
    out = stream.getvalue().decode()
    shown = out.split("Anomalies")[0]
    assert ("max" in shown) == (width == 100)
    assert "std" in shown or width == 60
    assert all(name in shown for name in names) == (width > 60)
    assert "side" not in out.split("Anomalies")[1]


def anomaly(side):
    own = {"scope": "tensor", "subject": "w", "basis": "measured", "severity": "critical", "kind": "nonfinite", "side": side}
    return {**base(3, "anomaly"), **own, "value": None, "threshold": 0.0, "count": 1, "detail": None}


def test_schema_defines_every_analysis(diffai):
    schema = json.loads(diffai("schema")[1])
    assert {f"{name}_record" for name in ANALYSES} <= set(schema["$defs"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(diffai, shell):
    status, out, _ = diffai("completion", shell)
    assert status == 0
    assert "_DIFFAI_COMPLETE" in out
    assert diffai("completion", "tcsh")[0] == 2


def test_completion_offers_commands_files_and_options():
    context = app.make_context("diffai", ["a", "b"], resilient_parsing=True)
    values = {item.value: item.type for item in app.shell_complete(context, "in")}
    assert values == {"inspect": "plain", "in": "file"}
    assert "--show-layer-impact" in {item.value for item in app.shell_complete(context, "--sh")}


def test_warmup_lists_kernels(diffai, monkeypatch):
    import sys
    import types

    module = types.ModuleType("diffai_stream.warmup")
    module.warm = lambda: {"scan": 1.5, "finish": 0.25}
    monkeypatch.setitem(sys.modules, "diffai_stream.warmup", module)
    out = diffai("warmup")[1]
    assert "scan" in out
    assert "1.75 s" in out
    assert json.loads(diffai("warmup", "--json")[1].splitlines()[0]) == {"kernel": "scan", "elapsed_seconds": 1.5}


def test_doctor_says_what_is_there_and_how_to_get_the_rest(diffai):
    status, out, err = diffai("doctor")
    assert (status, err) == (0, "")
    assert __version__ in out
    rows = {row["name"]: row for row in map(json.loads, diffai("doctor", "--json")[1].splitlines())}
    assert {f"extra {extra}" for extra in doctor.EXTRAS} <= set(rows)
    for extra in doctor.EXTRAS:
        row = rows[f"extra {extra}"]
        assert row["ok"] == (not doctor.missing_libraries(extra)) == (row["hint"] == "")


def test_doctor_counts_the_kernels_that_warmup_compiles():
    code = "from diffai_stream.doctor import checks; print(next(c.detail for c in checks() if c.name == 'compiled kernels'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kernels = subprocess.run(
        [sys.executable, "-c", "from diffai_stream.warmup import warm; print(len(warm()))"], capture_output=True, text=True
    )
    assert f" of {kernels.stdout.strip()} kept" in done.stdout


def test_doctor_fails_when_something_needed_is_missing(diffai, monkeypatch):
    monkeypatch.setattr(doctor, "checks", lambda: [doctor.Check("x", False, "gone", "get it")])
    status, out, _ = diffai("doctor")
    assert status == 2
    assert "FAIL" in out


def test_doctor_knows_the_extras_of_the_project():
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
    extras = {
        name: tuple(requirement.partition(">")[0] for requirement in requirements)
        for name, requirements in project["optional-dependencies"].items()
        if name not in ("all", "dev", "oracles")
    }
    assert dict(doctor.EXTRAS) == extras
    assert tuple(requirement.partition(">")[0] for requirement in project["dependencies"]) == doctor._CORE
    assert {row.extra for row in FORMATS.values()} <= {"", *extras}


@pytest.mark.parametrize(("name", "key"), [("ecs", "@timestamp"), ("otel", "SeverityNumber")])
def test_log_events(diffai, pipeline, name, key):
    for arguments in (("--log-format", name), ("-o", name), ("--log-format", name, "-o", name)):
        assert all(key in json.loads(line) for line in diffai("a", "b", *arguments)[1].splitlines())
