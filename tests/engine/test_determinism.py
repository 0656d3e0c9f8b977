"""Nothing but the clock and the cost may follow from who computed, where, and in how large pieces."""

from importlib.util import find_spec

import numpy as np
import pytest

from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors
from tests.models import cast, llama, random_bytes, tuned
from tests.validation import COST, printed, stable

ENCODINGS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I8", "U16", "I32", "I64", "BOOL", "C64")
EVERYTHING = {"stats": True, "histograms": True, "include_unchanged": True, "analyses": ("anomaly", "quantization")}
SMALL = 1 << 16


def large_pair(random):
    """Tensors of many chunks, several encodings, on both sides; some of other shapes, some NaN."""
    old, new = {}, {}
    for name, encoding, shape in (("long", "F32", (7, 9, 4001)), ("tall", "BF16", (300, 1100)), ("row", "F16", (2, 90_001))):
        values = random.normal(size=shape) * 0.03
        old[f"model.layers.0.{name}.weight"] = cast(values, encoding)
        new[f"model.layers.0.{name}.weight"] = cast(values + (random.random(shape) < 0.3) * 0.001, encoding)
    wide = random.normal(size=(130, 1025))
    wide[3, 7], wide[129, 1024] = np.nan, np.inf
    old["model.layers.1.wide.weight"], new["model.layers.1.wide.weight"] = cast(wide, "F32"), cast(wide, "BF16")
    old["model.layers.1.cut.weight"], new["model.layers.1.cut.weight"] = cast(wide, "F64"), cast(wide[:100], "F64")
    for name, pair in (("codes", ("I8", "I8")), ("floats", ("F8_E4M3", "F8_E5M2")), ("flags", ("U8", "BOOL"))):
        old[f"model.layers.1.{name}.weight"] = random_bytes(random, pair[0], (350, 301))  # counted by pairs of codes
        new[f"model.layers.1.{name}.weight"] = random_bytes(random, pair[1], (350, 301))
    old["model.layers.1.turn.weight"] = cast(random.normal(size=(110, 700)) * (1 + 2j), "C64")
    new["model.layers.1.turn.weight"] = cast(random.normal(size=(110, 700)) * (1 + 3j), "C64")
    return old, new


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two checkpoints with everything that could make a difference."""
    random = np.random.default_rng(5)
    old, new = large_pair(random)
    for number, encoding in enumerate(ENCODINGS):
        for shape in ((), (0, 3), (1,), (37,), (3, 5, 7), (2, 4096)):
            name = f"model.layers.{2 + number}.{len(shape)}_{shape[-1] if shape else 'scalar'}"
            old[name] = random_bytes(random, encoding, shape)
            new[name] = random_bytes(random, encoding, shape) if number % 3 else old[name]
    old |= llama(2, 32)
    new |= tuned(llama(2, 32))
    folder = tmp_path_factory.mktemp("pair")
    metadata = {"padding": "x" * 3}
    return tuple(
        str(write_safetensors(folder / name, tensors, metadata, aligned=False))
        for name, tensors in (("old.safetensors", old), ("new.safetensors", new))
    )


@pytest.fixture(scope="module")
def reference(pair):
    records = list(compare(*pair, **EVERYTHING))
    printed(records)
    return stable(records)


@pytest.mark.parametrize("chunk_size", [SMALL, 1 << 20, 1 << 24])
@pytest.mark.parametrize(
    "how",
    [{"executor": "synchronous"}, {"workers": 1}, {"workers": 2}, {"workers": 4}, {"io": "pread"}],
    ids=lambda how: "-".join(map(str, how.values())),
)
def test_every_way_to_compute_prints_the_same_bytes(pair, reference, how, chunk_size):
    assert stable(compare(*pair, chunk_size=chunk_size, **how, **EVERYTHING)) == reference


@pytest.mark.parametrize("options", [{}, {"fast": True}, {"epsilon": 1e-4}, {"sort_by_change_magnitude": True}], ids=str)
def test_so_do_other_options(pair, options):
    assert stable(compare(*pair, **options)) == stable(compare(*pair, chunk_size=SMALL, workers=1, **options))


@pytest.mark.skipif(
    not (find_spec("diffai_stream.engine.cluster") and find_spec("distributed")), reason="needs the distributed executor"
)
def test_a_cluster_prints_the_same_bytes(pair, reference):
    records = list(compare(*pair, executor="distributed", workers=2, chunk_size=1 << 20, **EVERYTHING))
    assert records[0]["plan"]["executor"] == "distributed"
    assert stable(records) == reference


def test_the_plan_tells_the_bytes_whatever_the_chunks(pair):
    plans = []
    for chunk_size in (SMALL, 1 << 20):
        first, *_, last = compare(*pair, chunk_size=chunk_size, **EVERYTHING)
        stored = sum(first[side]["stored_nbytes"] for side in ("old", "new"))
        assert first["plan"]["read_nbytes"] == last["read_nbytes"] == stored
        plans.append(first["plan"])
    assert plans[0]["batch_count"] > plans[1]["batch_count"] > 1
    assert plans[0].keys() > COST


def test_the_run_id_follows_inputs_and_figures_only(pair):
    def run_id(*sides, **options):
        return next(iter(compare(*sides, **options)))["run_id"]

    same = [{}, {"workers": 1}, {"chunk_size": SMALL}, {"strict": True}, {"exit_zero": True}, {"fail_on": ("critical",)}]
    assert len({run_id(*pair, **options) for options in [*same, {"io": "pread"}, {"memory_limit": 1 << 40}]}) == 1
    others = [{}, {"stats": True}, {"epsilon": 1e-9}, {"fast": True}, {"top": 3}, {"include": ("*layers.0*",)}]
    assert len({run_id(*pair, **options) for options in others}) == len(others)
    assert run_id(*pair[::-1]) != run_id(*pair)
