"""The laws of a statistic, as a class to inherit from in a test module:

    class TestMine(StatisticLaws):
        statistics = (MyStatistic(),)

Every `test_` method needs nothing but assertions, so any runner that finds classes named Test will do.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Encoding
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.statistics.base import Statistic, Tile
from diffai_stream.statistics.layout import leaf_numel
from diffai_stream.statistics.scanner import Ask, Runs, Scanner

Bytes = NDArray[np.uint8]
PAIRS = (("F32", "F32"), ("BF16", "BF16"), ("F32", "F8_E4M3"), ("F64", "F16"), ("I64", "U8"))
SHAPES = ((), (1,), (0,), (0, 4), (4, 0), (5, 3), (3, 50_001), (300, 512), (100_003,))


def hostile_bytes(encoding: Encoding, numel: int, seed: int = 0) -> Bytes:
    """Read-only bytes of `numel` elements: mostly codes near each other, some zeros, and any pattern at all (NaN, Inf)."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (numel, encoding.itemsize), dtype=np.uint8)
    raw[rng.random(numel) < 0.7, -1] = 0x3C
    raw[rng.random(numel) < 0.1] = 0
    if encoding.bits < 8:
        raw &= (1 << encoding.bits) - 1
    flat = raw.reshape(-1)
    flat.setflags(write=False)
    return flat


def leaf_tiles(old: Bytes, new: Bytes, encodings: tuple[Encoding, Encoding], shape: tuple[int, ...]) -> list[Tile]:
    """The tiles of a pair, one leaf each, as the engine makes them."""
    numel, leaf = prod(shape), leaf_numel(shape)
    found = []
    for start in range(0, numel, leaf):
        stop = min(start + leaf, numel)
        raw = [r[start * e.itemsize : stop * e.itemsize] for r, e in zip((old, new), encodings, strict=True)]
        found.append(Tile(raw[0], raw[1], *encodings, start, shape))
    return found


def same_columns(left: Any, right: Any) -> bool:
    """Whether two results are equal to the last bit; NaN equals NaN."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_columns(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same_columns, left, right))
    if isinstance(left, np.ndarray):
        kept = left.dtype == right.dtype and left.shape == right.shape
        return bool(kept and left.tobytes() == right.tobytes())
    return type(left) is type(right) and bool(left == right or (left != left and right != right))


class StatisticLaws:
    """Checks for every statistic in `statistics`, over every pair of `encodings` and every shape of `shapes`."""

    statistics: ClassVar[tuple[Statistic[Any], ...]] = ()
    encodings: ClassVar[tuple[tuple[str, str], ...]] = (
        ("F32", "F32"),
        ("BF16", "BF16"),
        ("F32", "F8_E4M3"),
        ("F64", "F16"),
        ("I64", "U8"),
    )
    shapes: ClassVar[tuple[tuple[int, ...], ...]] = (
        (),
        (1,),
        (0,),
        (0, 4),
        (4, 0),
        (5, 3),
        (3, 50_001),
        (300, 512),
        (100_003,),
    )

    def cases(self) -> Iterator[tuple[Statistic[Any], list[Tile]]]:
        """(statistic, tiles of one leaf each) of every combination that the statistic does not skip."""
        for shape in self.shapes:
            for names in self.encodings:
                pair = ENCODINGS[names[0]], ENCODINGS[names[1]]
                raw = [hostile_bytes(encoding, prod(shape), seed) for seed, encoding in enumerate(pair)]
                single = leaf_tiles(raw[0], raw[1], pair, shape)
                for statistic in self.statistics:
                    if statistic.skip_reason(shape) is None:
                        yield statistic, single

    @staticmethod
    def state(statistic: Statistic[Any], parts: Sequence[Tile]) -> Any:
        """The state of tiles taken in one after the other."""
        return reduce(statistic.update, parts, statistic.empty())

    def test_empty_is_neutral(self) -> None:
        """merge(empty, s) and merge(s, empty) finish like s."""
        for statistic, parts in self.cases():
            alone = statistic.finalize(self.state(statistic, parts))
            for left, right in ((True, False), (False, True)):
                sides = [statistic.empty() if empty else self.state(statistic, parts) for empty in (left, right)]
                assert same_columns(statistic.finalize(statistic.merge(*sides)), alone), statistic

    def test_merge_is_associative(self) -> None:
        """(a b) c and a (b c) finish alike over neighbouring parts."""
        for statistic, parts in self.cases():
            third = len(parts) // 3
            cut = (parts[:third], parts[third : 2 * third], parts[2 * third :])
            a, b, c = (self.state(statistic, part) for part in cut)
            left = statistic.finalize(statistic.merge(statistic.merge(a, b), c))
            a, b, c = (self.state(statistic, part) for part in cut)
            assert same_columns(left, statistic.finalize(statistic.merge(a, statistic.merge(b, c)))), statistic

    def test_cuts_change_nothing(self) -> None:
        """Tiles and parts of any number of leaves finish like one leaf at a time."""
        for statistic, single in self.cases():
            alone = statistic.finalize(self.state(statistic, single))
            for step in (2, 3, max(len(single), 1)):
                groups = [single[at : at + step] for at in range(0, len(single), step)]
                joined = [joined_tile(group) for group in groups]
                assert same_columns(statistic.finalize(self.state(statistic, joined)), alone), (statistic, step)
                states = [self.state(statistic, group) for group in groups]
                merged = reduce(statistic.merge, states, statistic.empty())
                assert same_columns(statistic.finalize(merged), alone), (statistic, step)

    def test_pairs_of_codes_finish_like_tiles(self) -> None:
        """Where a statistic can be had from the counts of pairs of 8-bit codes, it is what the tiles say, chunk by chunk."""
        for names in (("I8", "I8"), ("F8_E4M3", "F8_E4M3"), ("F8_E5M2", "F8_E4M3"), ("U8", "F8_E8M0"), ("F8_E8M0", "F8_E8M0")):
            pair = ENCODINGS[names[0]], ENCODINGS[names[1]]
            raw = [hostile_bytes(encoding, 70_000, seed) for seed, encoding in enumerate(pair)]
            tiles = leaf_tiles(raw[0], raw[1], pair, (70_000,))
            counted = [pairs_of(tile.raw_old, tile.raw_new) for tile in tiles]
            for statistic in self.statistics:
                states = [statistic.of_pairs(pairs, pair) for pairs in counted]
                if statistic.skip_reason((70_000,)) is None and states[0] is not None:
                    merged = statistic.finalize(reduce(statistic.merge, states))
                    assert same_columns(merged, statistic.finalize(self.state(statistic, tiles))), (statistic, names)

    def test_counted_patterns_finish_like_tiles(self) -> None:
        """Where a statistic follows from the patterns that the scan counts, it is what the tiles say, zeros or not."""
        shape, scanner = (70, 2000), Scanner()
        for name in ("BF16", "F16", "F32", "I32"):
            pair = ENCODINGS[name], ENCODINGS[name]
            for lowest in (0, 1):  # of 1 no pattern is a zero
                raw = [hostile_bytes(pair[0], prod(shape), seed).copy() for seed in range(2)]
                for side in raw:
                    side[:: pair[0].itemsize] |= lowest
                    side.setflags(write=False)
                tiles = leaf_tiles(raw[0], raw[1], pair, shape)
                for statistic in self.statistics:
                    counted = [statistic.of_runs(_runs(scanner, tile), pair, shape) for tile in tiles]
                    if statistic.skip_reason(shape) is None and any(state is not None for state in counted):
                        seen = [statistic.update(statistic.empty(), tile) for tile in tiles]
                        states = [b if a is None else a for a, b in zip(counted, seen, strict=True)]
                        finished = statistic.finalize(reduce(statistic.merge, states))
                        assert same_columns(finished, statistic.finalize(reduce(statistic.merge, seen))), (statistic, name)

    def test_states_travel(self) -> None:
        """A pickled state finishes like the state itself, and equal statistics hash alike."""
        for statistic, parts in self.cases():
            state = self.state(statistic, parts)
            copy = pickle.loads(pickle.dumps(state))
            assert same_columns(statistic.finalize(copy), statistic.finalize(state)), statistic
            assert hash(pickle.loads(pickle.dumps(statistic))) == hash(statistic)

    def test_columns_are_the_same_everywhere(self) -> None:
        """A tensor without elements has the columns of every other one; finite or not, finalize does not raise."""
        for statistic, parts in self.cases():
            columns = statistic.finalize(self.state(statistic, parts))
            assert columns.keys() == statistic.finalize(statistic.empty()).keys(), statistic

    def test_nothing_but_nan_and_infinity(self) -> None:
        """Tiles without a finite element are taken in without a warning."""
        encoding = ENCODINGS["F32"]
        for value in (np.nan, np.inf, -np.inf):
            values = np.full(6, value, np.float32)
            tile = Tile(values.view(np.uint8), values.view(np.uint8), encoding, encoding, 0, (2, 3))
            for statistic in self.statistics:
                with np.errstate(all="raise"):
                    statistic.finalize(self.state(statistic, [tile]))


class CountedPairs(NamedTuple):
    """Pairs of 8-bit codes and how often each occurs."""

    keys: NDArray[np.uint16]
    counts: NDArray[np.int64]


def _runs(scanner: Scanner, tile: Tile) -> tuple[Runs, Runs]:
    """What the scan counts of both sides of a tile."""
    segment = np.array([[0, 0, tile.numel, tile.numel, tile.first]], np.int64)
    return scanner.scan(tile.raw_old, tile.raw_new, (tile.encoding_old, tile.encoding_new), segment, Ask()).runs[:2]


def pairs_of(old: Bytes, new: Bytes) -> CountedPairs:
    """The counts of pairs of one-byte codes, as the scan makes them."""
    keys, counts = np.unique(old.astype(np.uint16) | new.astype(np.uint16) << 8, return_counts=True)
    return CountedPairs(keys, counts.astype(np.int64))


def joined_tile(parts: Sequence[Tile]) -> Tile:
    """Neighbouring tiles as one."""
    old, new = (np.concatenate([getattr(tile, name) for tile in parts]) for name in ("raw_old", "raw_new"))
    old.setflags(write=False)
    new.setflags(write=False)
    return replace(parts[0], raw_old=old, raw_new=new)
