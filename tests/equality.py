"""Does a checkpoint hold the weights it was written with? Asked of a whole comparison with the same weights in safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.checkpoints import Declared, write_safetensors
from tests.validation import of_type, run


def differences(path: Path | str, arrays: Mapping[str, np.ndarray | Declared], folder: Path, **options: Any) -> list[str]:
    """What a comparison with these weights in safetensors says: nothing, or what differs, is missing or cannot be read.

    A tensor counts only when all of its numbers were read and compared.
    """
    reference = write_safetensors(folder / "reference" / "model.safetensors", arrays)
    records = run(reference, path, include_unchanged=True, **options)
    found = [f"{record['message']}" for record in of_type(records, "error")]
    seen = {}
    for record in of_type(records, "tensor"):
        seen[record["name"]] = (record["status"], record["new"] and record["new"]["shape"])
    for name, value in arrays.items():
        shape = list(value[1] if isinstance(value, tuple) else value.shape)
        if seen.get(name) != ("unchanged", shape):
            found.append(f"{name}: {seen.get(name)}")
    return found + [f"extra {name}" for name in seen.keys() - arrays.keys()]
