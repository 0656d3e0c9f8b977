"""Folding: which stored tensors become one weight, and what is said of those that do not."""

import json

import ml_dtypes
import numpy as np
import pytest

from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.formats.quantized.base import Refused
from diffai_stream.formats.quantized.scales import scale_grid
from tests.checkpoints import write_safetensors, write_sharded
from tests.validation import of_type, run, tensors

WEIGHT = "model.layers.0.mlp.up_proj.weight"
VALUES = np.random.default_rng(3).normal(0, 0.02, (300, 520)).astype(np.float32)


def blocks(array, size=128):
    return [[array[r : r + size, c : c + size] for c in range(0, array.shape[1], size)] for r in range(0, array.shape[0], size)]


def fp8_blocks(values):
    """(codes, scales) of 128 x 128 blocks whose largest magnitude becomes 448."""
    scales = np.array([[np.abs(block).max() / 448 for block in row] for row in blocks(values)], np.float32)
    over = np.repeat(np.repeat(scales, 128, 0)[: len(values)], 128, 1)[:, : values.shape[1]]
    return (values / over).astype(ml_dtypes.float8_e4m3fn), scales, over


def f8(codes):
    return ("F8_E4M3", codes.shape, codes.tobytes())


def opened(path):
    checkpoint = open_checkpoint(str(path))
    assert not checkpoint.errors
    return {entry.name: entry for entry in checkpoint.tensors}, checkpoint.oddities


@pytest.mark.parametrize(
    ("weight", "scales", "expected"),
    [
        ((300, 520), (3, 5), (128, 128, (3, 5))),
        ((300, 520), (), (300, 520, (1, 1))),
        ((300, 520), (1,), (300, 520, (1, 1))),
        ((300, 520), (300, 1), (1, 520, (300, 1))),
        ((300, 520), (300,), (1, 520, (300, 1))),
        ((300, 512), (300, 16), (1, 32, (300, 16))),
        ((4, 256, 512), (4, 2, 4), (128, 128, (8, 4))),
        ((4, 256, 512), (4,), (256, 512, (4, 1))),
        ((4, 256, 512), (4, 1, 1), (256, 512, (4, 1))),
        ((4, 256, 512), (4, 256, 1), (1, 512, (1024, 1))),
        ((4, 256, 512), (4, 256), (1, 512, (1024, 1))),
        ((4, 256, 512), (2, 4), (128, 128, (2, 4))),
        ((90, 60), (9, 6), (10, 10, (9, 6))),
        ((17,), (1,), (1, 17, (1, 1))),
    ],
)
def test_how_scales_lie_follows_from_the_shapes(weight, scales, expected):
    assert tuple(scale_grid(weight, scales)) == expected


@pytest.mark.parametrize("scales", [(3,), (7, 5), (300, 7), (2, 2, 2, 2)])
def test_scales_that_do_not_fit_are_refused(scales):
    with pytest.raises(Refused, match="scales"):
        scale_grid((300, 520), scales)


def test_the_configured_block_counts():
    assert scale_grid((200, 200), (4, 4), (64, 64))[:2] == (64, 64)


@pytest.mark.parametrize("config", [True, False])
def test_fp8_blocks_are_compared_with_their_original(tmp_path, config):
    codes, scales, over = fp8_blocks(VALUES)
    old = write_safetensors(tmp_path / "old.safetensors", {WEIGHT: VALUES, "norm.weight": np.ones(8, np.float32)})
    shards = {
        "a-00001-of-00002.safetensors": {WEIGHT: f8(codes), "x.input_scale": np.ones(1, np.float32)},
        "a-00002-of-00002.safetensors": {f"{WEIGHT}_scale_inv": scales, "norm.weight": np.ones(8, np.float32)},
    }
    new = write_sharded(tmp_path / "new", shards)
    if config:
        section = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
        (new / "config.json").write_text(json.dumps({"quantization_config": section}))
    records = run(old, new)
    found = tensors(records)[WEIGHT]
    expected = codes.astype(np.float64) * over
    assert found["new"]["encoding"] == "F8_E4M3_SCALED"
    assert found["new"]["stored_nbytes"] == codes.size + scales.nbytes
    assert found["change"]["relative_l2"] == pytest.approx(np.linalg.norm(expected - VALUES) / np.linalg.norm(VALUES), rel=1e-5)
    assert found["stats"]["new"]["abs_max"] == pytest.approx(np.abs(expected).max(), rel=1e-6)
    assert tensors(records)["x.input_scale"]["status"] == "added"
    assert {warning["code"] for warning in of_type(records, "warning")} <= {"unaligned", "metadata_differs"}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({f"{WEIGHT}_scale_inv": np.ones((2, 5), np.float32)}, "do not divide"),
        ({f"{WEIGHT}_scale_inv": np.ones((3, 5), np.int32)}, "is I32, not"),
        ({f"{WEIGHT}_scale": np.ones(3, np.float32)}, "fused layer"),
        ({f"{WEIGHT}_scale": np.ones((3, 5), np.uint8)}, "groups of 32"),
    ],
)
def test_what_does_not_fit_stays_as_stored(tmp_path, parts, said):
    codes, _, _ = fp8_blocks(VALUES)
    found, oddities = opened(write_safetensors(tmp_path / "x.safetensors", {WEIGHT: f8(codes), **parts}))
    assert set(found) == {WEIGHT, *parts}
    assert found[WEIGHT].encoding == "F8_E4M3"
    (oddity,) = oddities
    assert oddity.code == "quantized_as_stored"
    assert said in oddity.message


def test_names_that_end_like_scales_mean_nothing_by_themselves(tmp_path):
    plain = {name: np.ones(4, np.float32) for name in ("attn.k_scale", "logit_scale", "norm.scale")}
    found, oddities = opened(write_safetensors(tmp_path / "x.safetensors", {**plain, "norm.weight": np.ones(4, np.float32)}))
    assert set(found) == {*plain, "norm.weight"}
    assert not oddities


BROKEN = ("{", "[]", '{"quantization_config": 3}', '{"quantization_config": {"weight_block_size": ["a", {}]}}')


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_configuration_does_not_hinder(tmp_path, text):
    codes, scales, _ = fp8_blocks(VALUES)
    write_safetensors(tmp_path / "model.safetensors", {WEIGHT: f8(codes), f"{WEIGHT}_scale_inv": scales})
    (tmp_path / "config.json").write_text(text)
    found, _ = opened(tmp_path)
    assert found[WEIGHT].encoding == "F8_E4M3_SCALED"
