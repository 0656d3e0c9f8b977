"""From stored tensors to logical ones: `X.qweight`, `X.qzeros`, `X.scales` become one `X.weight`.

Names, element types and shapes decide; the configuration beside the weights (`quantization_config` of `config.json`) fills in
what they leave open. What does not fit together stays as it is stored, and a warning says why.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from diffai_stream.errors import FormatError, TensorError
from diffai_stream.formats.base import Checkpoint, Oddity, TensorEntry
from diffai_stream.formats.inert import Notes, read_json
from diffai_stream.formats.quantized.base import Folded, Found, Opaque, Refused, Settings
from diffai_stream.formats.quantized.catalogue import FAMILIES, FamilyRow

CONFIG_LIMIT = 16_000_000
_CONFIGS = ("config.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json")
_KEYS = ("quantization_config", "compression_config", "quantization")
_ENDINGS = tuple({trigger for row in FAMILIES for trigger in row.triggers})


def fold(checkpoint: Checkpoint, directory: str) -> Checkpoint:
    """The checkpoint with its quantized weights as logical tensors, each in the place of the first of its parts."""
    telling = [entry.name for entry in checkpoint.tensors if entry.name.endswith(_ENDINGS)]
    if not telling:
        return checkpoint
    notes = Notes(checkpoint.path)
    tensors = {entry.name: entry for entry in checkpoint.tensors}
    settings, oddities = read_settings(directory, checkpoint.metadata)
    found = _folded(telling, tensors, settings, notes)
    if found and settings.values.get("transform_config"):
        notes.add(
            "rotated_weights", "the weights were rotated before quantization: they do not equal the original element by element"
        )
    if found:
        checkpoint = checkpoint._replace(tensors=_replaced(checkpoint.tensors, found))
    return checkpoint._replace(oddities=(*checkpoint.oddities, *oddities, *notes.oddities()))


def _folded(telling: list[str], tensors: Mapping[str, TensorEntry], settings: Settings, notes: Notes) -> list[Folded]:
    """The logical tensors that the telling names give; no stored tensor is part of two."""
    found: list[Folded] = []
    taken: set[str] = set()
    for name in telling:
        if name in taken:
            continue
        try:
            folded = _ask(name, tensors, settings)
            if folded is not None:
                _check(folded, tensors, taken)
                found.append(folded)
                taken.update(folded.consumed)
                if folded.remark is not None:
                    code, message = folded.remark
                    notes.add(code, f"{folded.entry.name!r}: {message}", folded.entry.name)
        except Opaque as reason:
            notes.add("opaque_quantization", f"the tensors of {name!r} are compared as they are stored: {reason}", name)
        except (Refused, TensorError) as reason:
            notes.add("quantized_as_stored", f"{name!r} looks quantized but is compared as it is stored: {reason}", name)
    return found


def _ask(name: str, tensors: Mapping[str, TensorEntry], settings: Settings) -> Folded | None:
    """What the first family that knows the tensor makes of it."""
    for row in FAMILIES:
        for trigger in _triggers(row, name):
            folded = row.load().fold(Found(name[: -len(trigger)], trigger, tensors, settings))
            if folded is not None:
                return folded
    return None


def _triggers(row: FamilyRow, name: str) -> list[str]:
    return [trigger for trigger in row.triggers if name.endswith(trigger)]


def _check(folded: Folded, tensors: Mapping[str, TensorEntry], taken: set[str]) -> None:
    name = folded.entry.name
    if name in tensors and name not in folded.consumed:
        raise Refused(f"{name!r} is stored too")
    if taken.intersection(folded.consumed):
        raise Refused("one of its parts belongs to another weight")


def _replaced(tensors: tuple[TensorEntry, ...], found: list[Folded]) -> tuple[TensorEntry, ...]:
    owner = {name: folded for folded in found for name in folded.consumed}
    placed: set[str] = set()
    result = []
    for entry in tensors:
        folded = owner.get(entry.name)
        if folded is None:
            result.append(entry)
        elif folded.entry.name not in placed:
            placed.add(folded.entry.name)
            result.append(folded.entry)
    return tuple(result)


def read_settings(directory: str, metadata: Mapping[str, str]) -> tuple[Settings, tuple[Oddity, ...]]:
    """The quantization settings of the first configuration that has some; a broken file is an oddity."""
    oddities = []
    for name in _CONFIGS:
        path = os.path.join(directory, name)
        if not os.path.lexists(path):
            continue
        try:
            config, _ = read_json(path, CONFIG_LIMIT)
        except FormatError as error:
            if name != "config.json":  # that one is told where tied weights are looked up
                oddities.append(Oddity("broken_config", f"{name} was not used: {error.message}", path))
            continue
        values = _section(config) if name == "config.json" else config
        if values is not None:
            method = values.get("quant_method")
            return Settings(method if isinstance(method, str) else "", values, metadata), tuple(oddities)
    return Settings(metadata=metadata), tuple(oddities)


def _section(config: Mapping[str, object]) -> Mapping[str, object] | None:
    """The part of config.json about quantization, at the top or in the part about text."""
    inner = config.get("text_config")
    for source in (config, inner if isinstance(inner, dict) else {}):
        for key in _KEYS:
            value = source.get(key)
            if isinstance(value, dict):
                return value
    return None
