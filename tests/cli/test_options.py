"""Every option arrives in Options; what contradicts itself is refused before any work."""

from dataclasses import fields

import pytest

from diffai_stream.analyses.catalogue import ANALYSES, completed
from diffai_stream.cli.options import EXECUTORS, FAIL_ON, IO, MIN_CHUNK_NBYTES, ROWS, analysis_options, record_options
from diffai_stream.cli.parameters import shown_size
from diffai_stream.options import Options

ARRIVES = [
    (["--all-analyses"], {"all_analyses": True}),
    (["--stats"], {"stats": True}),
    (["--quantization-aware"], {"quantization_aware": True}),
    (["--model-type", "llama"], {"model_type": "llama"}),
    (["--merge-analysis", "base"], {"merge_base": "base", "analyses": ("merge_analysis",)}),
    (["--histograms"], {"histograms": True}),
    (["--fast"], {"fast": True}),
    (["--ignore-optimizer-state"], {"ignore_optimizer_state": True}),
    (["--compare-gradients"], {"compare_gradients": True, "analyses": ("gradient_analysis",)}),
    (["--include-unchanged"], {"include_unchanged": True}),
    (["--sort-by-change-magnitude"], {"sort_by_change_magnitude": True}),
    (["--epsilon", "1e-3"], {"epsilon": 1e-3}),
    (["--relative-tolerance", "0.5"], {"relative_tolerance": 0.5}),
    (["--precision-loss-threshold", "0.01"], {"precision_loss_threshold": 0.01, "analyses": ("quantization",)}),
    (["--include", "a*", "--include", "b"], {"include": ("a*", "b")}),
    (["--exclude", "*.bias"], {"exclude": ("*.bias",)}),
    (["--map", "a=b", "--map", "c=d=e"], {"maps": (("a", "b"), ("c", "d=e"))}),
    (["--top", "0"], {"top": 0}),
    (["--strict"], {"strict": True}),
    (["--exit-zero"], {"exit_zero": True}),
    (["--fail-on", "critical, warning"], {"fail_on": ("critical", "warning")}),
    (["--memory-bandwidth", "3.35e12"], {"memory_bandwidth": 3.35e12}),
    (["--peak-flops", "9.9e14"], {"peak_flops": 9.9e14}),
    (["--tolerance", "0.1"], {"tolerance": 0.1}),
    (
        ["--tolerance-per-layer", "a.*=0.1", "--tolerance-per-layer", "b=c=2"],
        {"tolerance_per_layer": (("a.*", 0.1), ("b=c", 2.0))},
    ),
    (["--expect-unchanged", "a*"], {"expect_unchanged": ("a*",)}),
    (["--min-sqnr", "30"], {"min_sqnr": 30.0}),
    (["--max-size", "1k"], {"max_size": 1024}),
    (["--learning-rate", "1e-3"], {"learning_rate": 1e-3, "analyses": ("gradient_analysis",)}),
    (["--io", "pread"], {"io": "pread"}),
    (["--memory-limit", "2G"], {"memory_limit": 2 << 30}),
    (["--chunk-size", "64KiB"], {"chunk_size": 65536}),
    (["--workers", "3"], {"workers": 3}),
    (["--executor", "synchronous"], {"executor": "synchronous"}),
    (["--scheduler", "tcp://h:1"], {"scheduler": "tcp://h:1", "executor": "distributed"}),
    (["--review-friendly", "-o", "ndjson"], {"review_friendly": True}),
    (["--review-friendly"], {}),
    (["--generate-report", "-o", "yaml", "--include-charts"], {"generate_report": True, "include_charts": True}),
    (["--generate-report", "--markdown-output", "--include-charts"], {}),
    (["-o", "html", "--include-charts"], {}),
    (["--store", "p.zarr"], {"store": "p.zarr"}),
    (
        ["--scheduler", "tcp://h:1", "--path-map", "/a=/b"],
        {"scheduler": "tcp://h:1", "executor": "distributed", "path_maps": (("/a", "/b"),)},
    ),
    (
        ["--scheduler-file", "f", "--tls-ca-file", "c", "--tls-cert", "d", "--tls-key", "e"],
        {"scheduler_file": "f", "executor": "distributed", "tls_ca_file": "c", "tls_cert": "d", "tls_key": "e"},
    ),
    (["--scheduler-file", "f", "--executor", "distributed"], {"scheduler_file": "f", "executor": "distributed"}),
]
REFUSED = [
    (["--ignore-optimizer-state", "--compare-gradients"], "choose one"),
    (["--fast", "--histograms"], "choose one"),
    (["--markdown-output", "-o", "json"], "--markdown-output contradicts"),
    (["--include-charts"], "--include-charts is for a report"),
    (["--scheduler", "x", "--scheduler-file", "y"], "choose one"),
    (["--scheduler", "x", "--executor", "threads"], "leave --executor out"),
    (["--path-map", "/a=/b"], "--path-map is for --scheduler"),
    (["--tls-cert", "c"], "--tls-cert is for --scheduler"),
    (["--scheduler", "tcp://h:1", "--path-map", "/a"], "LOCAL=REMOTE"),
    (["--scheduler-file", "x", "--executor", "synchronous"], "--scheduler-file needs"),
    (["--epsilon", "nan"], "finite and not negative"),
    (["--relative-tolerance", "inf"], "finite and not negative"),
    (["--epsilon=-1"], "finite and not negative"),
    (["--precision-loss-threshold", "x"], "not a number"),
    (["--workers", "0"], "at least 1"),
    (["--top", "-1"], "at least 0"),
    (["--top", "many"], "not a whole number"),
    (["--chunk-size", "63KiB"], "at least 64KiB"),
    (["--memory-limit", "1 furlong"], "not a size"),
    (["--memory-limit", "0"], "too small"),
    (["--fail-on", "diferent"], "did you mean 'different'?"),
    (["--tolerance-per-layer", "0.1"], "model.layers"),
    (["--tolerance-per-layer", "a=x"], "not a number"),
    (["--fail-on", ","], "names nothing"),
    (["--map", "a"], "OLD=NEW"),
    (["--map", "=b"], "OLD=NEW"),
    (["--output", "jsn"], "did you mean 'json'?"),
    (["--io", "nmap"], "did you mean 'mmap'?"),
    (["--no-progress", "--progress", "bar"], "contradicts"),
    (["--log-format", "ecs", "--output", "json"], "leave --output json out"),
    (["--log-format", "otl"], "did you mean 'otel'?"),
    (["--stat"], "--stats"),
]


def test_every_field_of_options_has_exactly_one_option():
    assert sorted(row.field for row in ROWS) == sorted({field.name for field in fields(Options)} - {"analyses"})
    assert {name for _, changed in ARRIVES for name in changed} == {field.name for field in fields(Options)}


def test_no_two_options_have_the_same_flag_or_parameter():
    options = [*analysis_options(), *record_options()]
    flags = [flag for option in options for flag in option.opts]
    assert len(flags) == len(set(flags))
    assert len({option.name for option in options}) == len(options)


def test_names_are_those_that_the_engine_knows():
    from diffai_stream import session, verdict
    from diffai_stream.engine import executors
    from diffai_stream.storage import windows

    assert set(FAIL_ON) == set(verdict.FAIL_ON)
    assert set(EXECUTORS) == set(executors.EXECUTORS)
    assert set(IO) == set(windows.IO_MODES)
    assert MIN_CHUNK_NBYTES == session.MIN_CHUNK_NBYTES


def test_without_options_everything_is_the_default(diffai, pipeline):
    assert diffai("a", "b")[0] == 1
    assert pipeline.calls == [("a", "b", Options())]


@pytest.mark.parametrize(("arguments", "changed"), ARRIVES, ids=lambda value: str(value))
def test_an_option_arrives_and_changes_nothing_else(diffai, pipeline, arguments, changed):
    diffai("a", "b", *arguments)
    assert pipeline.options == Options(**changed)


@pytest.mark.parametrize("row", [row for row in ANALYSES.values() if not row.argument], ids=lambda row: row.name)
def test_the_flag_of_an_analysis_names_it(diffai, pipeline, row):
    diffai(row.flag, "a", "b")
    assert pipeline.options == Options(analyses=(row.name,))


def test_all_analyses_are_all_but_gates_and_opt_in_ones():
    found = completed(Options(all_analyses=True))
    left_out = {"regression_test", "alert", "spectrum", "merge_analysis"}
    assert set(ANALYSES) - set(found.analyses) == left_out
    both = completed(Options(all_analyses=True, analyses=("alert",)))
    assert both.analyses == tuple(name for name in ANALYSES if name not in left_out - {"alert"})


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: str(value))
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_read(diffai, pipeline, arguments, message):
    status, out, err = diffai("a", "b", *arguments)
    assert (status, out, pipeline.calls) == (2, "", [])
    assert message in err
    assert err.startswith("diffai: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        *[("16MiB", 16 << 20), ("1G", 1 << 30), ("500MB", 500_000_000), ("70000", 70_000), ("70000B", 70_000)],
        *[("1.5GiB", 3 << 29), ("64k", 65536), ("2 tib", 2 << 40), ("100kb", 100_000)],
    ],
)
def test_sizes(diffai, pipeline, text, nbytes):
    diffai("a", "b", "--memory-limit", text)
    assert pipeline.options.memory_limit == nbytes


@pytest.mark.parametrize("nbytes", [1, 1000, 65536, 3 << 29, 16 << 20, 1 << 30])
def test_a_size_is_shown_as_it_is_read(diffai, pipeline, nbytes):
    diffai("a", "b", "--memory-limit", shown_size(nbytes))
    assert pipeline.options.memory_limit == nbytes


def test_the_environment_mirrors_options_and_the_command_line_wins(diffai, pipeline, monkeypatch):
    monkeypatch.setenv("DIFFAI_OUTPUT", "yaml")
    monkeypatch.setenv("DIFFAI_STATS", "1")
    monkeypatch.setenv("DIFFAI_MAP", "a=b")
    monkeypatch.setenv("DIFFAI_TOP", "7")
    status, out, _ = diffai("a", "b", "--top", "9")
    assert pipeline.options == Options(stats=True, maps=(("a", "b"),), top=9)
    assert (status, out[:2]) == (1, "- ")


def test_a_wrong_value_in_the_environment_is_a_usage_error(diffai, pipeline, monkeypatch):
    monkeypatch.setenv("DIFFAI_COLOR", "sometimes")
    assert diffai("a", "b")[0] == 2
