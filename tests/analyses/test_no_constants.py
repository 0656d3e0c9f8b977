"""No analysis prints constants: over two unrelated models of other sizes, every field takes other values.

Numbers that could be equal in both must be listed with the reason; a word (a string or a truth value) must at least take
two values somewhere, or be listed too.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

from diffai_stream.analyses.catalogue import ANALYSES
from tests.analyses.scenario import Sizes, everything, flat

LIMIT = "a limit or a setting, printed beside what it judges"
ENVELOPE = {"schema_version", "run_id", "seq", "type", "pair", "scope", "subject", "basis"}  # what the catalogue row says
STRUCTURAL = {
    "anomaly": {"threshold": LIMIT},
    "attention_pattern_diff": {"distance": "of `cosine`: 0 by definition", "distances[].distance": "the distances looked at"},
    "clustering_change": {"k": "16 unless there are fewer than 32 rows"},
    "convergence_analysis": {"converged_below": LIMIT},
    "deployment_readiness": {"total_count": "checks that could be told: the list is the same for all models"},
    "embedding_analysis": {"threshold": LIMIT},
    "distribution_shift": {"wasserstein": "null below 2^22 elements; others are in store/test_profiles.py"},
    "gradient_analysis": {"threshold": LIMIT},
    "head_importance": {"prunable_below": LIMIT},
    "layer_impact": {
        "stats.delta": "null: nothing was compared",
        "stats.old": "null: no such side",
        "stats.new": "null: no such side",
    },
    "param_efficiency_analysis": {"sparse_above": LIMIT},
    "quantization": {"threshold": LIMIT},
    "risk_assessment": {"rule_count": "length of the table of rules"},
    "similarity_matrix": {"alike_above": LIMIT, "width": "of the sketch"},
    "spectrum": {"energy_share": LIMIT, "rank_energies[].rank": "the ranks looked at"},
}
_OTHERS = "others are planted in test_attention.py"
WORDS = {
    "distribution_shift": {"keys": "patterns, from 2^22 elements on, are in store/test_profiles.py"},
    "architecture_comparison": {"same_family": "families by roles are in test_structure.py"},
    **{name: {"attention": _OTHERS, "heads_from": _OTHERS} for name in ("attention_analysis", "head_importance")},
    "attention_pattern_diff": {"attention": _OTHERS, "heads_from": _OTHERS},
    "hyperparameter_impact": {"changes[].source": "others are planted in test_context.py"},
}


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """By analysis and path: the values of each of two scenarios."""
    found = defaultdict(lambda: (set(), set()))
    for seed in (0, 1):
        for record in everything(tmp_path_factory.mktemp(f"seed{seed}"), Sizes(seed)):
            for path, value in flat({key: item for key, item in record.items() if key not in ENVELOPE}):
                found[record["type"], path][seed].add(value)
    return found


def is_word(values):
    return any(isinstance(value, (bool, str)) for value in values)


@pytest.mark.parametrize("name", ANALYSES)
def test_every_number_differs(name, values):
    listed = STRUCTURAL.get(name, {})
    same = {path for (kind, path), (a, b) in values.items() if kind == name and a == b and not is_word(a)}
    assert same - listed.keys() == set(), "equal for unrelated models"
    assert listed.keys() - same == set(), "listed, and yet they differ"


@pytest.mark.parametrize("name", ANALYSES)
def test_every_word_takes_other_values(name, values):
    listed = WORDS.get(name, {})
    fixed = {path for (kind, path), (a, b) in values.items() if kind == name and is_word(a | b) and len(a | b) < 2}
    assert fixed - listed.keys() == set(), "one value for all"
    assert listed.keys() - fixed == set(), "listed, and yet they differ"


@pytest.mark.parametrize("name", ANALYSES)
def test_every_declared_field_was_seen(name, values):
    declared = set(ANALYSES[name].fields.__annotations__)
    seen = {path.split(".")[0].removesuffix("[]") for kind, path in values if kind == name}
    assert declared - seen == UNSEEN.get(name, set())


UNSEEN = {"similarity_matrix": {"old_tensors", "new_tensors", "matrix"}}
"""Printed with --histograms only."""
