"""The proof of each analysis: which tests hold it against an oracle, a planted case, and a case where it must be skipped.

The fourth kind, laws, runs over every analysis in test_laws.py. An analysis that is not in this table fails here.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import numpy as np
import pytest

from diffai_stream.analyses.catalogue import ANALYSES
from tests.analyses import test_laws
from tests.checkpoints import write_safetensors
from tests.validation import run


class Proof(NamedTuple):
    """`module:test` of each kind; `skipped` is empty for those that always can say something (NEVER_SKIPPED)."""

    oracle: str
    planted: str
    skipped: str = ""


ATTENTION = "test_attention:test_skipped"
PROOF = {
    "layer_impact": Proof(
        "test_layer_impact:test_figures_are_those_of_all_elements_of_the_layer", "test_layer_impact:test_roles_and_ranking"
    ),
    "quantization": Proof(
        "test_quantization:test_integers_are_judged_after_the_best_scale_of_each_row",
        "test_quantization:test_cast_forensics",
        "test_quantization:test_nothing_to_report_is_said_when_asked",
    ),
    "distribution_shift": Proof(
        "test_distribution_shift:test_figures_are_those_of_the_numbers",
        "test_distribution_shift:test_a_shift_that_can_be_told_by_hand",
        "test_distribution_shift:test_nothing_to_say_is_said",
    ),
    "anomaly": Proof(
        "test_oracles:test_exploding_and_spikes_are_ratios_to_the_median", "test_anomaly:test_a_plant_is_found_on_its_side"
    ),
    "architecture_comparison": Proof("test_structure:test_facts_and_what_differs", "test_structure:test_families_by_roles"),
    "memory_analysis": Proof(
        "test_structure:test_bytes_by_layer_encoding_and_role", "test_structure:test_without_a_configuration_heads_are_unknown"
    ),
    "inference_speed_estimate": Proof(
        "test_structure:test_bounds_of_speed_follow_from_bytes_and_parameters", "test_structure:test_only_active_experts_count"
    ),
    "performance_impact_estimate": Proof(
        "test_structure:test_bounds_of_speed_follow_from_bytes_and_parameters",
        "test_structure:test_swapping_the_sides_inverts_the_ratios",
    ),
    "param_efficiency_analysis": Proof(
        "test_efficiency:test_against_numpy",
        "test_efficiency:test_two_of_four_pruning_is_told",
        "test_efficiency:test_nothing_to_read_is_said",
    ),
    "embedding_analysis": Proof(
        "test_representation:test_rows_against_numpy",
        "test_representation:test_a_resized_vocabulary_is_compared_over_the_common_rows",
        "test_representation:test_without_an_embedding_it_says_so",
    ),
    "clustering_change": Proof(
        "test_oracles:test_clusters_and_rand_index_by_scikit_learn_and_by_hand",
        "test_representation:test_unrelated_embeddings_agree_by_chance_only",
        "test_representation:test_without_an_embedding_it_says_so",
    ),
    "similarity_matrix": Proof(
        "test_similarity:test_against_numpy",
        "test_similarity:test_a_shifted_stack_is_seen_off_the_diagonal",
        "test_similarity:test_vectors_alone_are_skipped",
    ),
    "attention_analysis": Proof(
        "test_attention:test_moves_of_heads_against_numpy",
        "test_attention:test_focus_is_the_share_of_the_first_singular_value",
        ATTENTION,
    ),
    "head_importance": Proof(
        "test_attention:test_importance_against_numpy", "test_attention:test_a_pruned_head_is_found", ATTENTION
    ),
    "attention_pattern_diff": Proof(
        "test_attention:test_forms_at_a_distance_against_rotation_matrices",
        "test_attention:test_what_looks_alike_up_close_may_not_from_afar",
        ATTENTION,
    ),
    "learning_progress": Proof(
        "test_training:test_progress_against_numpy",
        "test_training:test_the_trend_of_updates",
        "test_training:test_nothing_in_common_is_skipped",
    ),
    "convergence_analysis": Proof(
        "test_training:test_convergence_against_numpy",
        "test_training:test_planted_trajectories",
        "test_training:test_nothing_in_common_is_skipped",
    ),
    "gradient_analysis": Proof(
        "test_training:test_gradients_against_numpy",
        "test_training:test_an_exploding_layer",
        "test_training:test_ignored_state_gives_no_gradients",
    ),
    "learning_rate_analysis": Proof(
        "test_training:test_rates_beside_the_update",
        "test_training:test_planted_schedules",
        "test_training:test_without_a_rate_it_is_skipped",
    ),
    "hyperparameter_impact": Proof(
        "test_training:test_settings_that_changed",
        "test_training:test_one_change_is_not_confounded",
        "test_training:test_without_settings_it_is_skipped",
    ),
    "spectrum": Proof(
        "test_updates:test_a_merged_adapter_is_told_exactly",
        "test_updates:test_a_model_of_two_kinds_of_update",
        "test_updates:test_nothing_changed",
    ),
    "merge_analysis": Proof(
        "test_updates:test_task_vectors_against_numpy",
        "test_updates:test_opposite_task_vectors_conflict_everywhere",
        "test_updates:test_what_the_base_has_not",
    ),
    "change_summary": Proof(
        "test_oracles:test_the_summary_of_a_change_counts_what_changed", "test_gates:test_the_kind_of_a_planted_change"
    ),
    "regression_test": Proof(
        "test_oracles:test_gates_and_alerts_hold_measured_changes", "test_gates:test_frozen_size_and_sqnr_gates"
    ),
    "alert": Proof(
        "test_oracles:test_gates_and_alerts_hold_measured_changes",
        "test_gates:test_a_new_nan_is_critical_everywhere_and_an_old_one_is_not",
    ),
    "risk_assessment": Proof(
        "test_oracles:test_risk_and_readiness_follow_from_the_measured_change",
        "test_gates:test_the_level_is_the_worst_rule_that_fired",
    ),
    "deployment_readiness": Proof(
        "test_oracles:test_risk_and_readiness_follow_from_the_measured_change",
        "test_gates:test_a_tokenizer_of_another_text_blocks",
    ),
}
NEVER_SKIPPED = [name for name, proof in PROOF.items() if not proof.skipped]
PLANTED = {
    "one head pruned": "test_attention:test_a_pruned_head_is_found",
    "learning rate decayed by a cosine": "test_training:test_planted_schedules",
    "LoRA of rank 8 merged": "test_updates:test_a_merged_adapter_is_told_exactly",
    "vocabulary resized": "test_representation:test_a_resized_vocabulary_is_compared_over_the_common_rows",
    "layer duplicated": "test_anomaly:test_duplicate_layers_need_the_flag",
    "norms stored plus one": "test_anomaly:test_a_norm_stored_less_one",
    "frozen block touched": "test_gates:test_frozen_size_and_sqnr_gates",
    "INT8 rounding": "test_quantization:test_integers_are_judged_after_the_best_scale_of_each_row",
    "--ignore-optimizer-state": "test_training:test_ignored_state_gives_no_gradients",
    "--quantization-aware": "test_comparing_options:test_what_rounding_explains_is_no_change",
    "--model-type": "test_comparing_options:test_roles_of_names_that_tell_nothing",
    "--tolerance-per-layer": "test_gates:test_the_last_pattern_that_matches_counts_and_tensors_have_gates_of_their_own",
}
LAWS = ("scaling_both_sides", "order_and_shards", "an_unchanged_tensor", "swapping_the_sides")


def found(place):
    module, _, name = place.partition(":")
    return import_module(f"tests.analyses.{module}"), name


@pytest.mark.parametrize("name", ANALYSES)
def test_every_analysis_is_proven(name):
    for place in PROOF[name]:
        if place:
            module, test = found(place)
            assert callable(getattr(module, test, None)), place
            assert test.startswith("test_")


def test_the_table_holds_no_other():
    assert PROOF.keys() == ANALYSES.keys()


@pytest.mark.parametrize("case", PLANTED)
def test_every_planted_case_has_its_test(case):
    module, test = found(PLANTED[case])
    assert callable(getattr(module, test, None))


@pytest.mark.parametrize("law", LAWS)
def test_every_law_runs_over_every_analysis(law):
    (test,) = [getattr(test_laws, name) for name in dir(test_laws) if name.startswith(f"test_{law}")]
    (marks,) = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    assert set(marks.args[1]) == set(ANALYSES)


@pytest.mark.parametrize("name", NEVER_SKIPPED)
def test_those_that_are_never_skipped_speak_even_of_nothing_in_common(name, tmp_path):
    sides = {"a": np.ones((3, 5), np.float32)}, {"b": np.zeros(4, np.float32)}
    old, new = (write_safetensors(tmp_path / f"{n}.safetensors", side) for n, side in enumerate(sides))
    records = run(old, new, analyses=(name,))
    assert not [r for r in records if r["type"] == "skipped" and r["analysis"] == name]
    assert [r for r in records if r["type"] == name] or name == "alert"
