"""What did a fine-tune do? `python examples/finetuning_analysis.py BASE FINETUNED`

Which layers it reached and how far, what it left alone, what kind of change it is, and what broke on the way.
"""

from __future__ import annotations

import sys

from diffai_stream import compare

comparison = compare(sys.argv[1], sys.argv[2], analyses=("change_summary",), include_unchanged=True)

print("layers, the largest change first:")
layers = [layer for layer in comparison.layers if layer["relative_l2"] is not None]
for layer in sorted(layers, key=lambda layer: -layer["relative_l2"])[:5]:
    roles = sorted(layer["roles"], key=lambda role: -(role["relative_l2"] or 0))
    print(f"  {layer['subject']:24} {layer['relative_l2']:10.4f}  most of all {roles[0]['role']}")

frozen = [tensor["name"] for tensor in comparison.tensors if tensor["status"] == "unchanged"]
print(f"left alone: {', '.join(frozen) or 'nothing'}")

for finding in comparison.findings:
    if finding["type"] == "change_summary":
        print(f"kind of change: {', '.join(kind['kind'] for kind in finding['classes']) or 'none that is known'}")
    elif finding["type"] == "anomaly" and finding["severity"] == "critical":
        print(f"broken: {finding['kind']} in {finding['subject']}")
