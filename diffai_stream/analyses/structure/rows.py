"""The rows of structure and resources."""

from __future__ import annotations

from diffai_stream.analyses.base import Analysis
from diffai_stream.analyses.structure.fields import ArchitectureFields, MemoryFields, PerformanceFields, SpeedFields

_HERE = "diffai_stream.analyses.structure"

ROWS = (
    Analysis(
        name="architecture_comparison",
        flag="--architecture-comparison",
        title="family, depth, width, heads and vocabulary of each side, and what differs",
        family="structure",
        scopes=("model",),
        basis="measured",
        module=f"{_HERE}.architecture",
        fields=ArchitectureFields,
        reference="names, shapes and config.json",
    ),
    Analysis(
        name="memory_analysis",
        flag="--memory-analysis",
        title="bytes by layer, encoding and role; cache and optimizer bytes that follow",
        family="resources",
        scopes=("layer", "model"),
        basis="measured",
        module=f"{_HERE}.memory",
        fields=MemoryFields,
        reference="stored bytes; Kingma & Ba 2014 for the two moments of Adam",
    ),
    Analysis(
        name="inference_speed_estimate",
        flag="--inference-speed-estimate",
        title="bounds of decoding and prefill speed from bytes and parameters",
        family="resources",
        scopes=("model",),
        basis="estimated",
        module=f"{_HERE}.speed",
        fields=SpeedFields,
        reference="roofline model, Williams, Waterman & Patterson 2009",
    ),
    Analysis(
        name="performance_impact_estimate",
        flag="--performance-impact-estimate",
        title="latency, throughput and memory of new over old from the same bounds",
        family="resources",
        scopes=("model",),
        basis="estimated",
        module=f"{_HERE}.performance",
        fields=PerformanceFields,
        reference="roofline model, Williams, Waterman & Patterson 2009",
    ),
)
