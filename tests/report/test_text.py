import io
import json
import math
import random
import re
from itertools import pairwise

import pytest
from rich.cells import cell_len

from diffai_stream.report.base import WriterOptions
from diffai_stream.report.catalogue import open_writer
from diffai_stream.report.layers_kept import EvenSample, short_role
from diffai_stream.report.text_findings import AnomalySection
from tests.report import sample_records as sample
from tests.report.harness import HOSTILE, printed, renamed

SGR = re.compile(r"\x1b\[[0-9;]*m")


def text(records, **options):
    return printed("text", records, **options).decode()


def runs():
    return {"full": sample.full_run(), "deep": sample.transformer_run(80), "stats": sample.transformer_run(3, quantiles=True)}


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize("width", [1, 7, 20, 40, 80, 140])
@pytest.mark.parametrize("run", ["full", "deep", "stats"])
def test_no_line_is_wider_than_the_page(run, width, color, unicode):
    out = SGR.sub("", text(runs()[run], width=width, color=color, unicode=unicode))
    assert max(cell_len(line) for line in out.split("\n")) <= width
    assert unicode or out.isascii()


@pytest.mark.parametrize("run", ["full", "deep", "stats"])
def test_colour_changes_no_character(run):
    records = runs()[run]
    colored = text(records, width=120, color=True)
    assert SGR.sub("", colored) == text(records, width=120)
    assert "\x1b[" in colored


@pytest.mark.parametrize("width", [80, None])
@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_cannot_steer_the_terminal(hostile, color, width):
    out = SGR.sub("", text(renamed(sample.full_run(), hostile), width=width, color=color))
    assert not any(char != "\n" and not char.isprintable() for char in out)
    if width is None and hostile.isprintable():
        assert hostile in out


def test_markup_is_shown_as_it_is():
    assert "[bold]x[/bold] [/] [link=http://e]" in text(renamed(sample.full_run(), HOSTILE[2]))


def test_escapes_are_visible():
    assert r"\x1b[31mred\x1b[0m" in text(renamed(sample.full_run(), HOSTILE[0]))


def test_names_are_whole_without_a_terminal_and_keep_both_ends_with_one():
    name = "model.layers.3." + "x" * 300 + ".weight"
    records = sample.numbered([sample.tensor(name, [2], 0.5), sample.summary(counts={"changed": 1})])
    assert name in text(records)
    row = text(records, width=80).split("\n")[3]
    assert "model.layers.3.x" in row
    assert "x.weight" in row
    assert "…" in row


def test_header_is_printed_at_once():
    stream = io.BytesIO()
    writer = open_writer("text", stream, WriterOptions())
    writer.write(sample.full_run()[0])
    assert stream.getvalue().decode().splitlines() == [
        "base.safetensors → out/model.gguf",
        "safetensors → gguf, 2.47 GB → 1.96 GB, 18 tensors, 1.24B parameters",
    ]


def test_trouble_is_printed_as_it_comes():
    stream = io.BytesIO()
    writer = open_writer("text", stream, WriterOptions())
    for record in sample.full_run():
        before = len(stream.getvalue())
        writer.write(record)
        shown = stream.getvalue()[before:].decode()
        assert bool(shown) == (record["type"] in ("header", "warning", "error", "summary"))
        assert record["type"] not in ("warning", "error") or record["message"] in shown


def test_rows_are_ranked_and_the_rest_is_counted():
    records = sample.transformer_run(16)
    out = text(records, top=5)
    shown = [line.split()[0] for line in out.split("\n") if line.startswith("  model.layers.") and "_proj.weight" in line]
    tensors = [record for record in records if record["type"] == "tensor"]
    ranked = sorted(tensors, key=lambda record: -record["change"]["relative_l2"])
    assert shown == [record["name"] for record in ranked[:5]]
    assert f"… and {len(tensors) - 5} more changed" in out


def test_top_zero_lists_all():
    out = text(sample.transformer_run(16), top=0)
    assert "more changed" not in out
    assert sum(" 2048×8192 " in line for line in out.split("\n")) == 16


def test_structure_leaves_room_for_changes():
    added = [sample.tensor(f"a{i}", [2], status="added") for i in range(30)]
    changed = [sample.tensor(f"c{i}", [2], 0.1 + i / 1000) for i in range(30)]
    out = text(sample.numbered([*added, *changed, sample.summary()]), top=10)
    assert sum(line.startswith("  +") for line in out.split("\n")) == 5 + 1
    assert "… and 50 more: 25 added, 25 changed" in out


def test_each_status_has_its_sign():
    out = text(sample.full_run(), top=0)
    for sign, name in (("~", "model.embed_tokens"), ("!", "model.norm"), ("+", "adapter.lora_A"), ("-", "adapter.old_bias")):
        assert f"\n  {sign}  {name}" in out
    assert "~ reshaped  ! retyped  + added  - removed" in out
    assert "32000×2048 → 32016×2048" in out
    assert "→ output.weight (renamed)" in out


def test_a_change_from_zeros_comes_first():
    zero = sample.tensor("was_zero", [2], 0.1)
    zero["change"] = {**zero["change"], "relative_l2": None}
    records = sample.numbered([sample.tensor("other", [2], 0.9), zero, sample.summary(counts={"changed": 2})])
    out = text(records)
    assert out.index("was_zero") < out.index("other")
    assert "largest was_zero, from all zeros" in out


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_figures_that_are_no_numbers_do_not_stop_it(figure):
    def walk(value):
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return figure if isinstance(value, float) else value

    records = [walk(record) if record["type"] not in ("header", "summary") else record for record in sample.full_run()]
    out = text(records)
    assert "n/a" in out
    assert "nan" not in out


def test_stats_are_a_second_line():
    assert "mean" not in text(sample.transformer_run(3))
    out = text(sample.transformer_run(3, quantiles=True), top=1)
    assert "mean 2e-05 → 2.01e-05  std 0.02 → 0.0201  min -0.095 → -0.0955  max 0.09 → 0.0905" in out
    assert "25% -0.0134 → -0.0135" in out


def test_heat_map_reads_without_colour():
    out = text(sample.transformer_run(16), unicode=False)
    row = next(line for line in out.split("\n") if line.startswith("  model.layers.10 "))
    assert row.split() == ["model.layers.10", *["####"] * 7, "----", "0.0334"]
    assert ".. up to 9.56e-05  :: 9.56e-05 to 0.000723  ** 0.000723 to 0.00546  ## 0.00546 to 0.0414  -- unchanged" in out


def heat_map(changes, **options):
    """The rows by layer and the legend of a map of one role whose layers changed so."""
    findings = [
        sample.finding("layer_impact", f"layer.{i}", relative_l2=change, roles=[{"role": "mlp.up_proj", "relative_l2": change}])
        for i, change in enumerate(changes)
    ]
    out = text(sample.numbered([*findings, sample.summary()]), unicode=False, **options)
    rows = re.findall(r"^  layer\.\d+ +([.:*#-])\1{3} ", SGR.sub("", out), re.M)
    return "".join(rows), next(line.strip() for line in out.split("\n") if "log scale" in line)


def test_heat_map_keeps_its_structure_beside_an_exploded_layer():
    changes = [0.001 * 1.3**i for i in range(12)]
    assert heat_map(changes)[0] == "...:::***###"
    changes[4] = 50.0
    rows, legend = heat_map(changes)
    assert rows == "....#:::****"
    assert ".. up to 0.00262  :: 0.00262 to 0.00685  ** 0.00685 to 0.018  ## above 0.018  -- unchanged" in legend
    assert "\x1b[1;31m####" in text(sample.numbered(exploded_run()), color=True, unicode=False)


def exploded_run():
    roles = [{"role": "mlp.up_proj", "relative_l2": change} for change in (0.1, 0.2, 0.3, 0.4, 90.0)]
    return [
        *(sample.finding("layer_impact", f"l{i}", relative_l2=r["relative_l2"], roles=[r]) for i, r in enumerate(roles)),
        sample.summary(),
    ]


@pytest.mark.parametrize(
    ("changes", "rows", "said"),
    [
        ([0.063], "#", "## up to 0.063  -- unchanged"),
        ([0.5, 0.0, 0.5], "#-#", "## up to 0.5  -- unchanged"),
        ([0.5] * 8 + [9.0], "*" * 8 + "#", "** up to 0.5  ## above 0.5  -- unchanged"),
        ([0.25, 0.50001], ".#", "## 0.42 to 0.501  -- unchanged"),
        ([1e-30, 1e-4, 1.0], "..#", "## 0.1 to 1  -- unchanged"),
    ],
)
def test_heat_map_of_few_values(changes, rows, said):
    found, legend = heat_map(changes)
    assert (found, legend[-len(said) :]) == (rows, said)


@pytest.mark.parametrize("seed", range(20))
def test_heat_map_legend_is_exact(seed):
    rng = random.Random(seed)
    changes = [10 ** rng.gauss(-3, rng.choice([0.0, 0.1, 1.0, 5.0])) for _ in range(rng.randint(1, 40))]
    rows, legend = heat_map(changes)
    number = r"([\d.e+-]+)"
    keys = re.findall(rf"([.:*#])\1 (?:(above) |up to |{number} to ){number}", legend)
    ranges = {glyph: (float(high), math.inf) if above else (float(low or 0), float(high)) for glyph, above, low, high in keys}
    assert len(rows) == len(changes)
    for glyph, change in zip(rows, changes, strict=True):
        low, high = ranges[glyph]
        assert low < change <= high


def test_deep_models_are_sampled_evenly():
    out = text(sample.transformer_run(126), top=1)
    assert "48 of 126 layers shown, evenly sampled" in out
    shown = [int(found) for found in re.findall(r"^  model\.layers\.(\d+) +[░▒▓█·]", out, re.M)]
    assert len(shown) == 48
    assert shown[0] == 0
    assert shown[-1] >= 124
    assert {b - a for a, b in pairwise(shown)} <= {2, 4}


@pytest.mark.parametrize("total", [0, 1, 47, 48, 49, 96, 97, 1000, 100_000])
def test_even_sample_is_bounded(total):
    kept = EvenSample()
    for item in range(total):
        kept.add(item)
    assert len(kept.items()) == min(total, len(kept.items())) <= 48
    assert total > 48 or kept.items() == list(range(total))


@pytest.mark.parametrize(
    ("role", "title"),
    [
        ("attention.q_proj", "q"),
        ("attention.qkv_proj", "qkv"),
        ("mlp.gate_up_proj", "gate_up"),
        ("cross_attention.o_proj", "x.o"),
        ("experts.up_proj", "e.up"),
        ("shared_expert.down_proj", "s.down"),
        ("norm.post_attention", "norm"),
        ("final_norm", "norm"),
        ("attention.q_proj.bias", "bias"),
        ("embedding", "embed"),
        ("lm_head", "lm_head"),
        ("router", "router"),
        ("attention", "attention"),
    ],
)
def test_short_roles(role, title):
    assert short_role(role) == title


def test_anomalies_are_sorted_by_severity_and_counted():
    levels = ["info", "warning", "critical", "info", "warning"]
    records = [sample.finding("anomaly", f"t{i}", "tensor", severity=level, kind="k") for i, level in enumerate(levels)]
    out = text(sample.numbered([*records, sample.summary()]), top=3)
    assert "Anomalies: 1 critical, 2 warning, 2 info" in out
    assert re.findall(r"^  \w+ +k +(t\d)", out, re.M) == ["t2", "t1", "t4"]
    assert "… and 2 more" in out


def test_quantization_puts_the_worst_first():
    records = [
        sample.finding(
            "quantization", f"t{i}", "tensor", sqnr_db=float(sqnr), old_bits_per_weight=16.0, new_bits_per_weight=4.0
        )
        for i, sqnr in enumerate([30, 10, 20])
    ]
    out = text(sample.numbered([*records, sample.summary()]), top=2)
    assert re.findall(r"^  (t\d)", out, re.M) == ["t1", "t2"]
    assert "16 → 4" in out


def test_any_other_analysis_prints_its_fields():
    finding = sample.finding(
        "brand_new", "model", "model", "estimated", flag=True, none=None, many=list(range(9)), text="# A\n\x1b[2Jb"
    )
    out = text(sample.numbered([finding, sample.summary()]))
    assert "Brand new (estimated)" in out
    assert "model  flag=yes  many=[0, 1, 2, 3, … 5 more]" in out
    assert "\n    # A\n    \\x1b[2Jb\n" in out


def test_skipped_reasons_are_grouped():
    skipped = [{"type": "skipped", "analysis": "a", "subject": f"l{i}", "reason": "r"} for i in range(3)]
    out = text(sample.numbered([*skipped, {**skipped[0], "reason": "s"}, sample.summary()]))
    assert "  a: r (3 subjects)\n  a: s (l0)\n" in out


@pytest.mark.parametrize(
    ("status", "exit_status", "counts", "more", "verdict"),
    [
        ("identical", 0, {"unchanged": 291}, {}, "identical: 291 tensors, 1.24B parameters, all equal; exit 0"),
        (
            "equivalent",
            0,
            {"unchanged": 3},
            {"differs_in": ["sharding", "optimizer_state"]},
            "equivalent: every value is equal; differs in sharding, optimizer state; exit 0",
        ),
        (
            "equivalent",
            0,
            {"unchanged": 3},
            {"header": {"epsilon": 0.01}, "differs_in": ["names"]},
            "equivalent: every value is equal within the tolerance; differs in names; exit 0",
        ),
        (
            "equivalent",
            0,
            {"unchanged": 3},
            {"header": {"relative_tolerance": 0.01}},
            "equivalent: every value is equal within the tolerance; exit 0",
        ),
        (
            "equivalent",
            1,
            {"retyped": 1, "unchanged": 2},
            {"differs_in": ["encoding"]},
            "equivalent: every value is equal; differs in encoding; 1 tensor retyped; exit 1",
        ),
        ("different", 1, {"changed": 1, "unchanged": 1, "added": 2}, {}, "different: 1 of 4 tensors changed, 2 added; exit 1"),
        ("different", 1, {"added": 1000}, {}, "different: 1,000 tensors added; exit 1"),
        ("failed", 2, {"error": 2, "changed": 1}, {}, "failed: 2 tensors could not be read; 1 of 3 tensors changed; exit 2"),
        ("interrupted", 130, {"unchanged": 7}, {}, "interrupted: 7 tensors compared until then; exit 130"),
    ],
)
def test_verdict(status, exit_status, counts, more, verdict):
    side = sample.checkpoint("a", 3, 4)
    header = sample.header(side, side, options=more.pop("header", {}))
    out = text(sample.numbered([header, sample.summary(status, exit_status, counts=counts, **more)]))
    lines = out.splitlines()
    assert lines[-2] == verdict
    assert lines[-1] == "model relative l2 0.0312, 4.94 GB in 2.84 s (1.74 GB/s), peak memory 361 MB"


def test_a_run_cut_off_still_shows_its_tables():
    out = text(sample.transformer_run(4)[:-1])
    assert "model.layers.2.mlp.up_proj.weight" in out


def test_tables_are_not_printed_twice_when_one_fails(monkeypatch):
    def fail(self, page):
        raise RuntimeError

    monkeypatch.setattr(AnomalySection, "render", fail)
    stream = io.BytesIO()
    writer = open_writer("text", stream, WriterOptions())
    *records, summary = sample.full_run()
    for record in records:
        writer.write(record)
    with pytest.raises(RuntimeError):
        writer.write(summary)
    writer.close()
    assert stream.getvalue().decode().count("Tensors by relative change") == 1


def test_notes_are_wrapped_not_cropped():
    words = [f"w{i}" for i in range(60)]
    anomaly = sample.finding("anomaly", "t", "tensor", severity="info", kind="k", detail=" ".join(words))
    out = text(sample.numbered([anomaly, sample.summary()]), width=40)
    assert [word for word in out.split() if word in words] == words


def test_pairs_are_told_apart():
    paths = ["c1", "c2", "c3"]
    checkpoints = [sample.checkpoint(path, 1, 2) for path in paths]
    header = sample.header(checkpoints[0], checkpoints[-1], checkpoints=checkpoints)
    pairs = [[sample.tensor(f"t{i}", [2], 0.1, pair=i), sample.summary(pair=i, counts={"changed": 1})] for i in range(2)]
    out = text(sample.numbered([header, *pairs[0], *pairs[1]]))
    assert out.startswith("c1 → c2 → c3\n")
    assert out.index("\nc1 → c2\n") < out.index("t0") < out.index("\nc2 → c3\n") < out.index("t1")
    assert out.count("t0") == 2


def test_memory_does_not_grow_with_the_model():
    stream = io.BytesIO()
    writer = open_writer("text", stream, WriterOptions(top=10))
    record = sample.tensor("t", [2], 0.1)
    for _ in range(1000):
        writer.write(record)
    assert sum(len(heap) for heap in writer._tensors._heaps.values()) == 10


def test_records_are_not_changed():
    records = sample.full_run()
    before = json.dumps(records)
    text(records, color=True, width=80, timestamps=True)
    assert json.dumps(records) == before
