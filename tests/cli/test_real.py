"""The command line with the real engine, on small checkpoints."""

import json

import numpy as np
import pytest

from tests.checkpoints import write_safetensors


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two checkpoints of eight tensors, of which two differ."""
    folder = tmp_path_factory.mktemp("pair")
    random = np.random.default_rng(7)
    names = [f"model.layers.{layer}.{part}.weight" for layer in range(4) for part in ("self_attn.q_proj", "mlp.up_proj")]
    old = {name: random.normal(size=(32, 48)).astype(np.float32) for name in names}
    new = {name: values + np.float32(0.01) * ("layers.3" in name) for name, values in old.items()}
    new[names[0]] = old[names[0]]
    return write_safetensors(folder / "old.safetensors", old), write_safetensors(folder / "new.safetensors", new)


def records_of(out):
    return [json.loads(line) for line in out.splitlines()]


def test_a_pair_that_differs(diffai, pair):
    status, out, err = diffai(*pair)
    records = records_of(out)
    assert (status, err) == (1, "")
    assert [records[0]["type"], records[-1]["type"]] == ["header", "summary"]
    changed = [record["name"] for record in records if record["type"] == "tensor"]
    assert sorted(changed) == ["model.layers.3.mlp.up_proj.weight", "model.layers.3.self_attn.q_proj.weight"]
    assert [record["seq"] for record in records] == list(range(len(records)))


def test_the_same_file_twice_is_identical(diffai, pair):
    status, out, _ = diffai(pair[0], pair[0])
    assert (status, records_of(out)[-1]["status"]) == (0, "identical")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--exit-zero"], 0),
        (["--epsilon", "0.1"], 0),
        (["--epsilon", "0.1", "--strict"], 1),
        (["--include", "model.layers.0.*"], 0),
        (["--exclude", "model.layers.3.*"], 0),
        (["--fail-on", "gate"], 0),
        (["--executor", "synchronous", "--chunk-size", "64KiB"], 1),
        (["--workers", "1", "--io", "pread", "--stats", "--histograms"], 1),
        (["--fast"], 1),
        (["--memory-limit", "1MiB"], 2),
    ],
    ids=lambda value: str(value),
)
def test_options_have_their_effect_on_the_status(diffai, pair, arguments, status):
    assert diffai(*pair, *arguments)[0] == status


def test_neutral_options_change_no_byte_but_the_cost(diffai, pair):
    def stable(*arguments):
        return [record for record in records_of(diffai(*pair, *arguments)[1]) if record["type"] not in ("header", "summary")]

    assert stable() == stable("--workers", "1") == stable("--executor", "synchronous") == stable("--chunk-size", "64KiB")


def test_text_ends_with_the_verdict(diffai, pair):
    status, out, _ = diffai(*pair, "-o", "text", "--top", "1")
    assert status == 1
    assert "2 of 8 tensors changed" in out
    assert "exit 1" in out


def test_sorted_by_change_the_largest_comes_first(diffai, pair):
    records = records_of(diffai(*pair, "--sort-by-change-magnitude")[1])
    sizes = [record["change"]["relative_l2"] for record in records if record["type"] == "tensor"]
    assert sizes == sorted(sizes, reverse=True)


def test_inspect(diffai, pair):
    status, out, err = diffai("inspect", pair[0])
    records = records_of(out)
    assert (status, err) == (0, "")
    assert [record["type"] for record in records] == ["header", *["tensor"] * 8, "summary"]
    assert all(record["new"] is None for record in records[1:-1])
    text = diffai("inspect", pair[0], "-o", "text", "--stats")[1]
    assert "32×48" in text or "32x48" in text
    assert "mean" in text


@pytest.mark.parametrize("command", [[], ["inspect"]])
def test_what_cannot_be_read_is_said_in_one_line(diffai, pair, tmp_path, command):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\xff" * 64)
    status, out, err = diffai(*command, broken, *([] if command else [pair[1]]))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "broken.safetensors" in err


def test_warmup(diffai):
    pytest.importorskip("diffai_stream.warmup")
    assert diffai("warmup")[0] == 0
