"""Reading ahead: what is ahead lands in the page cache, in order, never further than allowed, and nothing is an error."""

import os
import time

import pytest

from diffai_stream.storage import read_ahead
from diffai_stream.storage.files import FILES
from diffai_stream.storage.read_ahead import PIECE_NBYTES, Piece, ReadAhead, cut, fetch, is_cached, start_early

MIB = 1 << 20


def until(condition):
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


@pytest.fixture
def evicted(tmp_path):
    """A file that the page cache does not hold, and a descriptor of it."""
    path = tmp_path / "weights"
    path.write_bytes(b"w" * (3 * MIB + 1))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    if is_cached(descriptor, Piece(str(path), 0, MIB)):
        pytest.skip("the file system keeps files in memory")
    yield str(path), descriptor
    os.close(descriptor)


@pytest.fixture
def fetched(monkeypatch):
    """Lists the pieces instead of reading them."""
    seen = []
    monkeypatch.setattr(read_ahead, "fetch", seen.append)
    return seen


def test_what_is_fetched_is_cached(evicted):
    path, descriptor = evicted
    piece = Piece(path, 5, 3 * MIB - 5)
    fetch(piece)
    assert is_cached(descriptor, piece)


def test_a_system_that_cannot_send_to_null_reads(evicted, monkeypatch):
    def refuse(*_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sendfile", refuse)
    path, descriptor = evicted
    fetch(Piece(path, 0, 3 * MIB))
    assert is_cached(descriptor, Piece(path, 0, 3 * MIB))


def test_network_files_are_only_advised(evicted, monkeypatch):
    path, _ = evicted
    read = []
    monkeypatch.setattr(read_ahead, "_read", lambda *given: read.append(given))
    monkeypatch.setattr("diffai_stream.storage.files.is_network_file", lambda _: True)
    FILES.close()
    fetch(Piece(path, 0, MIB))
    FILES.close()
    assert read == []


def test_a_range_past_the_end_and_a_missing_file_are_no_error(tmp_path):
    (tmp_path / "short").write_bytes(b"w")
    fetch(Piece(str(tmp_path / "short"), 0, MIB))
    fetch(Piece(str(tmp_path / "missing"), 0, MIB))


def test_long_pieces_take_turns():
    long, short = Piece("old", 7, 2 * PIECE_NBYTES + 1), Piece("new", 0, 5)
    assert list(cut([long, short])) == [
        Piece("old", 7, PIECE_NBYTES),
        short,
        Piece("old", 7 + PIECE_NBYTES, PIECE_NBYTES),
        Piece("old", 7 + 2 * PIECE_NBYTES, 1),
    ]


def test_it_stays_as_far_ahead_as_allowed(fetched, monkeypatch):
    monkeypatch.setattr(read_ahead, "AHEAD_NBYTES", 25)
    pieces = [Piece("file", number, 1) for number in range(10)]
    reading = ReadAhead([([piece], 10) for piece in pieces])
    assert until(lambda: len(fetched) == 3)
    time.sleep(0.05)
    assert fetched == pieces[:3]
    reading.used(10)
    assert until(lambda: len(fetched) == 4)
    reading.stop()
    reading.used(1000)
    time.sleep(0.05)
    assert fetched == pieces[:4]


def test_it_starts_early_with_what_is_there(tmp_path, fetched):
    os.mkfifo(tmp_path / "pipe")
    shards = tmp_path / "shards"
    shards.mkdir()
    for name in ("b.safetensors", "a.safetensors", "0.json"):
        (shards / name).write_bytes(b"w")
    single = tmp_path / "single"
    single.write_bytes(b"w")
    start_early([str(tmp_path / "pipe"), str(shards), str(single), str(tmp_path / "missing")])
    assert until(lambda: len(fetched) > 3)
    assert {piece.path for piece in fetched} == {str(shards / "a.safetensors"), str(single)}
