"""How does a training run move? `python examples/trajectory.py FOLDER`

Writes five checkpoints of a run whose steps get smaller, FOLDER/checkpoint-100 to checkpoint-500, and compares each with the
one before it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from diffai_stream import compare

STEPS = (100, 200, 300, 400, 500)


def write_run(folder: Path) -> None:
    random = np.random.default_rng(0)
    weights = {f"layers.{n}.weight": random.normal(0, 0.02, (64, 64)).astype(np.float32) for n in range(3)}
    for number, step in enumerate(STEPS):
        path = folder / f"checkpoint-{step}"
        path.mkdir(parents=True, exist_ok=True)
        save_file(weights, path / "model.safetensors")
        size = 0.004 / 2**number
        weights = {name: (w + random.normal(0, size, w.shape)).astype(np.float32) for name, w in weights.items()}


def main(folder: Path) -> None:
    write_run(folder)
    changes = []
    for record in compare(str(folder), analyses=("learning_progress", "convergence_analysis")):
        if record["type"] == "summary":
            changes.append(record["relative_l2"])
            print(f"pair {record['pair']}: relative change {record['relative_l2']:.4f}")
    print("slowing down" if changes == sorted(changes, reverse=True) else "not slowing down")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
