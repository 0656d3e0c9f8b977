"""Content hashes: equal for equal content however it is cut, different for anything else."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash

from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.statistics.content_hash import ContentHash
from diffai_stream.statistics.layout import View
from diffai_stream.testing.statistics import StatisticLaws, hostile_bytes, leaf_tiles

OLD, NEW = ContentHash(View.OLD), ContentHash(View.NEW)


class TestContentHashLaws(StatisticLaws):
    statistics = (OLD, NEW)


def digest(statistic: ContentHash, raw: np.ndarray, name: str, shape: tuple[int, ...], other: np.ndarray | None = None) -> str:
    raw.setflags(write=False)
    encodings = (ENCODINGS[name], ENCODINGS[name])
    tiles = leaf_tiles(raw, raw if other is None else other, encodings, shape)
    return statistic.finalize(StatisticLaws.state(statistic, tiles))["content_hash"]


def test_is_the_hash_of_the_leaf_hashes():
    raw = hostile_bytes(ENCODINGS["BF16"], 3 * 20_000)
    leaves = [raw[start : start + 40_000].tobytes() for start in range(0, raw.size, 40_000)]  # one row of 20,000 a leaf
    expected = xxhash.xxh3_128(b"BF16 3x20000\n" + b"".join(xxhash.xxh3_128_digest(leaf) for leaf in leaves)).hexdigest()
    assert digest(OLD, raw, "BF16", (3, 20_000)) == expected


def test_one_bit_order_encoding_and_shape_all_count():
    raw = hostile_bytes(ENCODINGS["U8"], 70_000).copy()
    flipped = raw.copy()
    flipped[69_999] ^= 1
    found = [
        digest(OLD, raw, "U8", (70_000,)),
        digest(OLD, flipped, "U8", (70_000,)),
        digest(OLD, raw[::-1].copy(), "U8", (70_000,)),
        digest(OLD, raw, "I8", (70_000,)),
        digest(OLD, raw, "U8", (70, 1000)),
    ]
    assert len(set(found)) == len(found)
    assert all(len(text) == 32 for text in found)


def test_sides_are_hashed_apart_and_alike():
    one, two = (hostile_bytes(ENCODINGS["F32"], 100, seed) for seed in (1, 2))
    assert digest(NEW, one, "F32", (100,), two) == digest(OLD, two, "F32", (100,))
    assert digest(NEW, one, "F32", (100,), two) != digest(OLD, one, "F32", (100,), two)


def test_nothing_to_hash_and_wrong_views():
    assert OLD.finalize(OLD.empty()) == {"content_hash": None}
    with pytest.raises(ValueError, match="PAIR"):
        ContentHash(View.PAIR)
