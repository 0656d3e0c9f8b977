"""The rows of training."""

from __future__ import annotations

from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.training.fields import (
    ConvergenceFields,
    GradientFields,
    LearningRateFields,
    ProgressFields,
    SettingsFields,
)

_HERE = "diffai_stream.analyses.training"

ROWS = (
    Analysis(
        name="learning_progress",
        flag="--learning-progress",
        title="how far and how fast the weights moved, what is frozen, where the loss goes",
        family="training",
        scopes=("model",),
        basis="measured",
        module=f"{_HERE}.progress",
        fields=ProgressFields,
        needs=("agreement",),
        reference="least squares, Student's t above 2",
    ),
    Analysis(
        name="convergence_analysis",
        flag="--convergence-analysis",
        title="whether updates shrink, grow or turn back, over three checkpoints or more",
        family="training",
        scopes=("model",),
        basis="measured",
        module=f"{_HERE}.convergence",
        fields=ConvergenceFields,
        needs=("agreement", "sketch"),
        reference="count-sketch, Charikar, Chen & Farach-Colton 2002; the rules of this page",
    ),
    Analysis(
        name="gradient_analysis",
        flag="--gradient-analysis",
        title="gradients by layer, from what is stored of them or of Adam's moments",
        family="training",
        scopes=("layer",),
        basis="measured",
        module=f"{_HERE}.gradients",
        fields=GradientFields,
        needs=("moments", "agreement"),
        looks_at_state=True,
        reference="Kingma & Ba 2015, arXiv 1412.6980, for the ratio of the moments",
    ),
    Analysis(
        name="learning_rate_analysis",
        flag="--learning-rate-analysis",
        title="learning rates by parameter group, their schedule, and the update a unit of it made",
        family="training",
        scopes=("model",),
        basis="measured",
        module=f"{_HERE}.learning_rate",
        fields=LearningRateFields,
        needs=("agreement",),
        reference="cosine decay: Loshchilov & Hutter 2017, arXiv 1608.03983",
    ),
    Analysis(
        name="hyperparameter_impact",
        flag="--hyperparameter-impact",
        title="settings that changed, beside the update that was measured",
        family="training",
        scopes=("model",),
        basis="derived",
        module=f"{_HERE}.settings",
        fields=SettingsFields,
        needs=("agreement",),
        reference="the classes of settings of this page",
    ),
)
