"""A small hostile file must not cost what it claims; that it is told is held by the tests of all of `HOSTILE`."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest

from diffai_stream.errors import FormatError
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.pipeline import inspect
from diffai_stream.report.ndjson import encode
from tests.assets_hostile import HOSTILE
from tests.hostile_messages import MESSAGES

LIMIT = 32 << 20


@pytest.mark.parametrize("flaw", MESSAGES)
def test_memory_follows_the_file_and_not_its_claims(tmp_path, flaw):
    path = str(HOSTILE[flaw](tmp_path))
    tracemalloc.start()
    with suppress(FormatError):
        list(map(encode, inspect(path, stats=True, executor="synchronous")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < LIMIT


@pytest.mark.parametrize("flaw", MESSAGES)
def test_what_is_sound_beside_a_flaw_is_read(tmp_path, flaw):
    try:
        found = open_checkpoint(str(HOSTILE[flaw](tmp_path)))
    except FormatError:
        return
    names = [entry.name for entry in found.tensors]
    assert names == ([] if flaw == "onnx_graphs_of_depth_100000" else ["a"])
