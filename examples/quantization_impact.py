"""What does a smaller type cost? `python examples/quantization_impact.py FOLDER`

Writes a model in float32 to FOLDER and casts it to float16, one tensor with weights that float16 cannot hold. Then it lists the
tensors by what they lost: signal to noise in dB, how the cast was made, and whether the loss is beyond a limit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from diffai_stream import compare

LIMIT = 0.001  # greatest relative change of a tensor
TOO_LARGE = "layers.2.weight"


def write_models(folder: Path) -> tuple[str, str]:
    random = np.random.default_rng(0)
    full = {f"layers.{n}.weight": random.normal(0, 0.02 / 30**n, (64, 64)).astype(np.float32) for n in range(5)}
    full[TOO_LARGE][0, :4] = 1e5  # beyond 65504
    with np.errstate(over="ignore"):
        half = {name: array.astype(np.float16) for name, array in full.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(full, folder / "full.safetensors")
    save_file(half, folder / "half.safetensors")
    return str(folder / "full.safetensors"), str(folder / "half.safetensors")


def main(folder: Path) -> None:
    comparison = compare(*write_models(folder), analyses=("quantization",), precision_loss_threshold=LIMIT)
    for loss in comparison.findings:
        if loss["type"] == "quantization" and loss["scope"] == "tensor":
            noise = "" if loss["sqnr_db"] is None else f"{loss['sqnr_db']:6.1f} dB"
            verdict = "too much" if loss["exceeds_threshold"] else "fine"
            print(f"{loss['subject']:16} {noise:10} cast {loss['cast'] or 'unknown':10} {verdict}")
        elif loss["type"] == "anomaly" and loss["kind"] == "nonfinite":
            print(f"{loss['subject']:16} {loss['severity']}: {loss['kind']}")
    total = next(r for r in comparison.findings if r["type"] == "quantization" and r["scope"] == "model")
    print(f"the whole model takes 1/{total['compression_ratio']:.0f} of the bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
