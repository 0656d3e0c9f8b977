"""The work of one task: read a batch, scan it, finish the tensors that lie wholly in it. Errors become results."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Encoding
from diffai_stream.engine.program import Program
from diffai_stream.engine.results import BatchResult, FailedResult, FinishedResult, PartResult
from diffai_stream.errors import ChangedFileError, DiffaiError, TensorError
from diffai_stream.plan.chunks import Batch, Slice, chunk_numel, real_shape
from diffai_stream.plan.sources import Bytes, Source, check_size, is_streamed, scanned_encoding
from diffai_stream.plugins import is_ours, told
from diffai_stream.statistics.base import Statistic, Tile
from diffai_stream.statistics.finishing import finish
from diffai_stream.statistics.joint import is_joint, scan_joint
from diffai_stream.statistics.scanner import Domain, Part, Scanner, domain_of, merge_parts
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.windows import read_window, recheck

GAP_NBYTES = 1 << 16  # neighbours in a file closer than this share a window
TILE_NUMEL = 1 << 20  # elements that the other statistics see at once: at 2^18 half of their time went into calling them
Result = PartResult | FinishedResult | FailedResult
_threads = threading.local()


class Reading(NamedTuple):
    """A slice and its two sources (one object twice when a side is scanned alone)."""

    piece: Slice
    old: Source
    new: Source

    @property
    def joint(self) -> bool:
        """Whether pairs of codes are counted: a property of the whole tensor, however it is cut."""
        encodings = self.old.encoding, self.new.encoding
        return encodings[0].pattern_bits == 8 and is_joint(encodings, prod(real_shape(self.piece.old)))


def scanner() -> Scanner:
    """This thread's scanner."""
    if not hasattr(_threads, "scanner"):
        _threads.scanner = Scanner()
    return _threads.scanner  # type: ignore[no-any-return]


def scan_batch(batch: Batch, program: Program) -> BatchResult:
    """Scan the slices of a batch. Never raises for bad input: what cannot be read becomes a FailedResult."""
    results: list[Result] = []
    for group in _groups(_readings(batch, program, results)):
        try:
            results += _scanned(group, program)
        except DiffaiError as error:
            results += _retry(group, program, error)
    return BatchResult(batch.index, tuple(results), batch.nbytes)


def _readings(batch: Batch, program: Program, failures: list[Result]) -> Iterator[Reading]:
    for piece in batch.slices:
        try:
            for entry in {id(e): e for e in (piece.old, piece.new)}.values():
                check_size(entry)
            old = Source(piece.old, program.stamps, program.io)
            new = old if piece.new is piece.old else Source(piece.new, program.stamps, program.io)
            yield Reading(piece, old, new)
        except DiffaiError as error:
            failures.append(FailedResult(piece, error))


def _paths(group: Sequence[Reading]) -> set[str]:
    return {extent.path for r in group for source in (r.old, r.new) for extent in source.extents}


def _retry(group: Sequence[Reading], program: Program, error: DiffaiError) -> list[Result]:
    """Each slice of a failed group by itself, so that only what is unreadable is lost."""
    if len(group) == 1 or isinstance(error, ChangedFileError):  # a changed file fails every slice of the group alike
        return [FailedResult(r.piece, _located(error, r.piece.name)) for r in group]
    results: list[Result] = []
    for reading in group:
        try:
            results += _scanned([reading], program)
        except DiffaiError as failure:
            results += _retry([reading], program, failure)
    return results


def _located(error: DiffaiError, tensor: str) -> DiffaiError:
    return type(error)(error.message, path=error.path, tensor=tensor, offset=error.offset)


def _groups(readings: Iterator[Reading]) -> Iterator[list[Reading]]:
    """Runs of slices that one kernel call can scan: neighbours in the same files with the same encodings."""
    group: list[Reading] = []
    for reading in readings:
        if group and not _neighbours(group[-1], reading):
            yield group
            group = []
        group.append(reading)
    if group:
        yield group


def _neighbours(left: Reading, right: Reading) -> bool:
    if left.piece.statistics or right.piece.statistics or left.piece.side != right.piece.side:
        return False
    if not (left.piece.whole and right.piece.whole) or left.joint != right.joint:
        return False
    for a, b in ((left.old, right.old), (left.new, right.new)):
        if a.encoding is not b.encoding or a.direct is None or b.direct is None:
            return False
        (path_a, offset_a), (path_b, offset_b) = a.direct, b.direct
        end = offset_a + a.entry.components["data"].extents[0].nbytes
        if path_a != path_b or not 0 <= offset_b - end <= GAP_NBYTES:
            return False
    return True


def _scanned(group: Sequence[Reading], program: Program) -> list[Result]:
    """The results of a group whose files are still those that were indexed. Raises DiffaiError."""
    try:
        results = _scan_group(group, program)
    except MemoryError as error:  # before or after a kernel, never within one: they allocate nothing
        path = next(iter(sorted(_paths(group))), None)
        raise TensorError("not enough memory; try fewer --workers or a smaller --chunk-size", path=path) from error
    recheck({program.stamps[path] for path in _paths(group) if path in program.stamps})
    return results


def _scan_group(group: Sequence[Reading], program: Program) -> list[Result]:
    first = group[0]
    if first.piece.streamed:
        return [_scan_streamed(first, program)]
    if len(group) == 1:
        return [_scan_one(first, program)]
    raw_old, segments_old = _window([r.old for r in group], group, program)
    same = first.new is first.old
    raw_new, segments_new = (raw_old, segments_old) if same else _window([r.new for r in group], group, program)
    numel = [r.piece.stop - r.piece.start for r in group]
    leaves = [r.piece.leaf_numel for r in group]
    segments = np.array([segments_old, segments_new, numel, leaves, [0] * len(group)], np.int64).T.copy()
    state = _state(first, raw_old, raw_new, segments, program)
    return [_finish([r.piece for r in group], state, [()] * len(group), program)]


def _state(reading: Reading, old: Bytes, new: Bytes, segments: NDArray[np.int64], program: Program) -> Part:
    """The state of segments of this tensor, or of it and its neighbours."""
    encodings = reading.old.encoding, reading.new.encoding
    if reading.joint:
        return scan_joint(old, new, encodings, segments)
    return scanner().scan(old, new, encodings, segments, program.ask)


def _window(sources: Sequence[Source], group: Sequence[Reading], program: Program) -> tuple[Bytes, list[int]]:
    """One window over neighbouring tensors, and where each begins in it."""
    extents = [source.entry.components["data"].extents[0] for source in sources]
    start, end = extents[0].offset, extents[-1].offset + extents[-1].nbytes
    whole = Extent(extents[0].path, start, end - start)
    raw = read_window(whole, 0, whole.nbytes, program.stamps.get(whole.path), program.io)
    raw.setflags(write=False)
    return raw, [extent.offset - start for extent in extents]


def _scan_one(reading: Reading, program: Program) -> Result:
    piece = reading.piece
    raw_old = reading.old.read(piece.start, piece.stop)
    raw_new = raw_old if reading.new is reading.old else reading.new.read(piece.start, piece.stop)
    state, extras = _scan_raw(reading, raw_old, raw_new, piece.start, piece.stop, program)
    if piece.whole:
        return _finish([piece], state, [extras], program)
    return PartResult(piece, piece.number, piece.number + 1, state, extras)


def _scan_streamed(reading: Reading, program: Program) -> Result:
    """A compressed tensor, chunk by chunk from front to back."""
    piece = reading.piece
    bits = max(source.encoding.bits // source.encoding.components for source in (reading.old, reading.new))
    step = chunk_numel(piece.leaf_numel, bits, program.chunk_nbytes)
    cuts = list(range(0, piece.stop, step)) or [0]
    sizes = [min(step, piece.stop - start) for start in cuts]
    old = _chunks(reading.old, cuts, sizes)
    new = old if reading.new is reading.old else _chunks(reading.new, cuts, sizes)
    parts: list[tuple[Part, tuple[Any, ...]]] = []
    for start, size in zip(cuts, sizes, strict=True):
        raw_old = next(old)
        raw_new = raw_old if new is old else next(new)
        parts.append(_scan_raw(reading, raw_old, raw_new, start, start + size, program))
    state = merge_parts([part for part, _ in parts], _domains(piece))
    extras = merge_extras(piece.statistics, [extra for _, extra in parts])
    return _finish([piece], state, [extras], program)


def _chunks(source: Source, cuts: Sequence[int], sizes: Sequence[int]) -> Iterator[Bytes]:
    if is_streamed(source.entry):
        yield from source.stream(iter(sizes))
    else:
        for start, size in zip(cuts, sizes, strict=True):
            yield source.read(start, start + size)


def _scan_raw(
    reading: Reading, raw_old: Bytes, raw_new: Bytes, start: int, stop: int, program: Program
) -> tuple[Part, tuple[Any, ...]]:
    """State of elements [start, stop) and of the other statistics."""
    piece, encodings = reading.piece, (reading.old.encoding, reading.new.encoding)
    for source, raw in ((reading.old, raw_old), (reading.new, raw_new)):
        if raw.size != (stop - start) * source.encoding.itemsize:
            path = next((extent.path for extent in source.extents), None)
            raise TensorError("has fewer bytes than its shape needs", path=path, tensor=piece.name)
    segments = np.array([[0, 0, stop - start, piece.leaf_numel, start]], np.int64)
    state = _state(reading, raw_old, raw_new, segments, program).compact()
    found = [_counted(statistic, state, reading) for statistic in piece.statistics]
    seeing = [statistic for statistic, counted in zip(piece.statistics, found, strict=True) if counted is None]
    states = {statistic: statistic.empty() for statistic in seeing}
    for tile in _tiles(reading, encodings, raw_old, raw_new, start, stop) if seeing else ():
        states = {statistic: _updated(statistic, s, tile) for statistic, s in states.items()}
    return state, tuple(states.get(statistic, counted) for statistic, counted in zip(piece.statistics, found, strict=True))


def _counted(statistic: Statistic[Any], state: Part, reading: Reading) -> Any:
    """The state of a statistic where it follows from what the scan has counted; else None."""
    encodings = reading.old.encoding, reading.new.encoding
    if reading.joint:
        return statistic.of_pairs(state.runs[3], encodings)
    return statistic.of_runs(state.runs[:2], encodings, real_shape(reading.piece.old))


def _updated(statistic: Statistic[Any], state: Any, tile: Tile) -> Any:
    """The state with the tile taken in. Raises TensorError where a plug-in's statistic fails."""
    try:
        return statistic.update(state, tile)
    except DiffaiError:
        raise
    except Exception as error:
        if is_ours(statistic):
            raise
        raise TensorError(f"the statistic {type(statistic).__name__} of a plug-in failed: {told(error)}") from error


def _tiles(
    reading: Reading, encodings: tuple[Encoding, Encoding], raw_old: Bytes, raw_new: Bytes, start: int, stop: int
) -> Iterator[Tile]:
    """Runs of leaves in order: small enough for the cache, large enough that calling a statistic costs nothing."""
    piece = reading.piece
    shape, step = real_shape(piece.old), piece.leaf_numel * max(1, TILE_NUMEL // piece.leaf_numel)
    for first in range(start, stop, step):
        size = min(step, stop - first)
        at = first - start
        raw = [r[at * e.itemsize : (at + size) * e.itemsize] for r, e in zip((raw_old, raw_new), encodings, strict=True)]
        if raw_new is raw_old:
            raw[1] = raw[0]
        yield Tile(raw[0], raw[1], *encodings, first, shape, (reading.old, reading.new))


def _domains(piece: Slice) -> tuple[Domain, Domain]:
    return domain_of(scanned_encoding(piece.old)), domain_of(scanned_encoding(piece.new))


def _finish(pieces: Sequence[Slice], state: Part, extras: Sequence[tuple[Any, ...]], program: Program) -> FinishedResult:
    shapes = [real_shape(piece.old) for piece in pieces]
    finished = finish(state, _domains(pieces[0]), shapes, program.ask, program.wants)
    named = [
        {statistic: statistic.finalize(s) for statistic, s in zip(piece.statistics, states, strict=True)}
        for piece, states in zip(pieces, extras, strict=True)
    ]
    return FinishedResult(tuple(pieces), finished, tuple(named))


def merge_extras(statistics: Sequence[Any], parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Merge the states of the other statistics of neighbouring parts, left to right."""
    merged = list(parts[0])
    for part in parts[1:]:
        merged = [statistic.merge(a, b) for statistic, a, b in zip(statistics, merged, part, strict=True)]
    return tuple(merged)


def merge_results(results: Sequence[Result], program: Program) -> Result:
    """Neighbouring parts of one tensor as one; finished when they are all of it. A failed part fails the run of them."""
    failed = next((r for r in results if isinstance(r, FailedResult)), None)
    if failed is not None:
        return failed
    parts = [r for r in results if isinstance(r, PartResult)]
    piece = parts[0].piece
    state = merge_parts([part.state for part in parts], _domains(piece))
    extras = merge_extras(piece.statistics, [part.extras for part in parts])
    if parts[0].first == 0 and parts[-1].last == piece.count:
        return _finish([piece], state, [extras], program)
    return PartResult(piece, parts[0].first, parts[-1].last, state, extras)
