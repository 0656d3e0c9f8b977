"""How distributions moved: against numpy and scipy, by hand, and where there is nothing to say."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from tests.checkpoints import write_safetensors
from tests.models import llama, tuned
from tests.validation import of_type, run

ASKED = {"analyses": ("distribution_shift",)}


@pytest.fixture
def shifts(tmp_path):
    """Findings by tensor for two models."""

    def found(old, new, **options):
        paths = [write_safetensors(tmp_path / f"{name}.safetensors", model) for name, model in (("a", old), ("b", new))]
        return {record["subject"]: record for record in of_type(run(*paths, **ASKED, **options), "distribution_shift")}

    return found


def coarse(values):
    """Shares of the 1,024 keys: the top 10 bits of a float32, in the order of the values."""
    keys = values.ravel().view(np.uint32) >> 22
    counts = np.bincount(keys, minlength=1024) / values.size
    return np.concatenate([counts[:511:-1], counts[:512]])


def test_figures_are_those_of_the_numbers(shifts):
    old, new = llama(3), tuned(llama(3), 0.3)
    found = shifts(old, new)
    assert found.keys() == old.keys()
    for name, record in found.items():
        a, b = (model[name].astype(np.float64).ravel() for model in (old, new))
        assert record["mean_change"] == pytest.approx(b.mean() - a.mean(), abs=1e-6 * a.std())
        assert record["std_ratio"] == pytest.approx(b.std() / a.std(), rel=1e-6)
        assert record["norm_ratio"] == pytest.approx(np.linalg.norm(b) / np.linalg.norm(a), rel=1e-6)
        p, q = coarse(old[name]), coarse(new[name])
        assert record["ks"] == pytest.approx(np.abs(np.cumsum(p - q)).max(), abs=1e-12)
        assert record["ks"] <= stats.ks_2samp(a, b, method="asymp").statistic + 1e-12
        assert record["js_distance"] == pytest.approx(jensenshannon(p, q, base=2), abs=1e-7)


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (0.5, 4.0)])
def test_a_shift_that_can_be_told_by_hand(shifts, low, high):
    old, new = {"w": np.full((64, 64), low, np.float32)}, {"w": np.full((64, 64), high, np.float32)}
    record = shifts(old, new)["w"]
    assert (record["mean_change"], record["norm_ratio"], record["ks"], record["js_distance"]) == (high - low, high / low, 1, 1)
    assert record["std_ratio"] is None
    fast = shifts(old, new, fast=True)["w"]
    assert (fast["mean_change"], fast["ks"], fast["js_distance"]) == (high - low, None, None)


def test_a_permutation_is_not_seen_and_the_tensor_is_still_changed(shifts):
    old = llama(2)
    new = {name: np.random.default_rng(1).permutation(values.ravel()).reshape(values.shape) for name, values in old.items()}
    assert {(record["ks"], record["js_distance"]) for record in shifts(old, new).values()} == {(0.0, 0.0)}


@pytest.mark.parametrize(("new", "reason"), [({"b": 1}, "no tensor is on both sides"), ({"a": 0}, "is as it was")])
def test_nothing_to_say_is_said(tmp_path, new, reason):
    arrays = [{name: np.full(8, value, np.float32) for name, value in side.items()} for side in ({"a": 0}, new)]
    paths = [write_safetensors(tmp_path / f"{n}.safetensors", model) for n, model in enumerate(arrays)]
    (record,) = [r for r in of_type(run(*paths, **ASKED), "skipped") if r["analysis"] == "distribution_shift"]
    assert reason in record["reason"]
