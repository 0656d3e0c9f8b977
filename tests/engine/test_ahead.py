"""What a plan reads ahead: every byte of plainly stored tensors, in plan order."""

import numpy as np
import pytest

from diffai_stream.engine.ahead import GAP_NBYTES, pieces_of
from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.options import Options
from diffai_stream.pipeline import compare
from diffai_stream.plan.align import align
from diffai_stream.plan.chunks import Batch, Slice
from diffai_stream.session import prepare
from diffai_stream.storage import read_ahead
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.read_ahead import Piece
from tests.checkpoints import write_safetensors


def slice_of(entry, start, stop):
    return Slice(0, entry.name, "both", entry, entry, start, stop, 1, 0, 2, (), False)


def entry_of(*components):
    return TensorEntry("w", (100,), "F32", {str(number): component for number, component in enumerate(components)})


def test_a_slice_is_its_share_of_every_component_and_extent():
    split = Component((Extent("a", 1000, 300), Extent("b", 0, 100)), "F32", (100,))
    small = Component((Extent("scales", 0, 8),), "F16", (4,))
    pieces = pieces_of(Batch(0, (slice_of(entry_of(split, small), 50, 100),), 0))
    assert pieces == [Piece("a", 1200, 100), Piece("b", 0, 100), Piece("scales", 4, 4)]


def test_compressed_bytes_are_left_to_their_reader():
    packed = Component((Extent("a", 1000, 400, "deflate:0:30"),), "F32", (100,))
    assert pieces_of(Batch(0, (slice_of(entry_of(packed), 0, 100),), 0)) == []


def test_neighbours_are_one_piece():
    entries = [entry_of(Component((Extent("a", offset, 400),), "F32", (100,))) for offset in (0, 400, 900 + GAP_NBYTES)]
    pieces = pieces_of(Batch(0, tuple(slice_of(entry, 0, 100) for entry in entries), 0))
    assert pieces == [Piece("a", 0, 800), Piece("a", 900 + GAP_NBYTES, 400)]


@pytest.fixture
def pair(tmp_path):
    values = {"large": np.arange(200_000, dtype=np.float32), "small": np.ones(10, np.float32), "other": np.ones(20, np.float16)}
    old = write_safetensors(tmp_path / "old.safetensors", values)
    return str(old), str(write_safetensors(tmp_path / "new.safetensors", {name: v * 2 for name, v in values.items()}))


def test_the_plan_covers_all_bytes_of_all_tensors(pair):
    old, new = map(open_checkpoint, pair)
    aligned = align(old, new, ())
    session = prepare(old, new, aligned.pairs, aligned.oddities, Options(chunk_size=1 << 16))
    read = {path: bytearray(1 << 20) for path in pair}
    for batch in session.batches:
        for path, offset, nbytes in pieces_of(batch):
            read[path][offset : offset + nbytes] = b"1" * nbytes
    for checkpoint in (old, new):
        for entry in checkpoint.tensors:
            extent = entry.components["data"].extents[0]
            assert all(read[extent.path][extent.offset : extent.offset + extent.nbytes])


@pytest.mark.parametrize("executor", ["synchronous", "threads"])
def test_a_run_reads_ahead_in_plan_order_however_little_at_a_time(pair, executor, monkeypatch):
    fetched = []
    monkeypatch.setattr(read_ahead, "AHEAD_NBYTES", 1)
    monkeypatch.setattr(read_ahead, "fetch", fetched.append)
    records = list(compare(*pair, executor=executor, chunk_size=1 << 16, workers=2))
    assert records[-1]["counts"]["changed"] == 3
    for path in pair:
        offsets = [piece.offset for piece in fetched if piece.path == path]
        assert offsets
        assert offsets == sorted(offsets)
