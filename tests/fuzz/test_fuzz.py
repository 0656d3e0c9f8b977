"""A seeded part of what `make fuzz` does, and the promise that every format takes part in it."""

import threading

import pytest

from diffai_stream.formats.catalogue import FORMATS, open_checkpoint
from diffai_stream.formats.quantized.catalogue import FAMILIES
from tests.fuzz.corpus import CORPUS, files_of
from tests.fuzz.mutations import KINDS, mutated
from tests.fuzz.target import HangError, damaged_copy, examine, time_limit
from tests.quantized_files import LAYOUTS

SEEDS = range(40)
AVAILABLE = [name for name, seed in CORPUS.items() if seed.is_available]


def test_every_format_and_every_quantized_family_has_a_sound_file():
    assert set(FORMATS) == {seed.format for seed in CORPUS.values()}
    assert {row.name for row in FAMILIES} == {layout.family for name, layout in LAYOUTS.items() if name in CORPUS}


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_sound_file_is_read_as_what_it_is(tmp_path, name):
    path = CORPUS[name].write(tmp_path)
    assert open_checkpoint(str(path)).format == CORPUS[name].format
    assert examine(path) == CORPUS[name].outcome


@pytest.mark.parametrize("name", AVAILABLE)
def test_damage_is_a_clean_error_or_harmless(tmp_path, name):
    (tmp_path / "sound").mkdir()
    sound = CORPUS[name].write(tmp_path / "sound")
    outcomes = {examine(damaged_copy(sound, tmp_path / "copy", f"{name}-{seed}")) for seed in SEEDS}
    assert outcomes - {"read"}, "no mutation was noticed: what is mutated is not what is read"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_damage_is_damage_and_reproducible(kind):
    import random

    sound = bytes(range(48, 58)) * 30
    changed = []
    for seed in range(20):
        raw = bytearray(sound)
        kind(raw, random.Random(seed))
        changed.append(bytes(raw))
    assert any(raw != sound for raw in changed)
    assert mutated(sound, 3) == mutated(sound, 3)


def test_a_hang_is_noticed():
    with pytest.raises(HangError):
        _hang()


def _hang() -> None:
    with time_limit(1):
        threading.Event().wait()


def test_companions_are_files_too(tmp_path):
    path = CORPUS["safetensors"].write(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert [file.name for file in files_of(path)] == ["config.json", "model.safetensors"]
