"""A content hash of one side: equal bytes of equal encoding and shape, whatever the file, the name and the chunks.

A hash of leaf hashes (a tree of depth one), so that the parts of a tensor can be hashed apart and put together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from diffai_stream.statistics.base import OneSided, Tile
from diffai_stream.statistics.layout import View, leaf_numel


class LeafDigests(NamedTuple):
    """The 16-byte digests of consecutive leaves, and what they are of: `encoding shape`, empty before the first tile."""

    digests: bytes
    label: str


@dataclass(frozen=True)
class ContentHash(OneSided[LeafDigests]):
    """xxh3-128 of the raw bytes of a side (https://xxhash.com): fast, not cryptographic, 2^-64 odds of an accident.

    Bytes are hashed as they are stored, packed codes one byte each: -0 and +0, or two NaN patterns, differ.
    """

    view: View = View.OLD

    @property
    def positional(self) -> bool:
        """Yes: the order of the bytes is hashed."""
        return True

    def empty(self) -> LeafDigests:
        """No leaf."""
        return LeafDigests(b"", "")

    def update(self, state: LeafDigests, tile: Tile) -> LeafDigests:
        """Append the digest of every leaf of the tile."""
        from xxhash import xxh3_128_digest

        new = self.view == View.NEW
        raw, encoding = (tile.raw_new, tile.encoding_new) if new else (tile.raw_old, tile.encoding_old)
        step = leaf_numel(tile.shape) * encoding.itemsize
        digests = b"".join(xxh3_128_digest(raw[start : start + step].data) for start in range(0, raw.size, step))
        label = f"{encoding.name} {'x'.join(map(str, tile.shape))}"
        return self.merge(state, LeafDigests(digests, label))

    def merge(self, left: LeafDigests, right: LeafDigests) -> LeafDigests:
        """The digests of both parts, in order."""
        return LeafDigests(left.digests + right.digests, left.label or right.label)

    def finalize(self, state: LeafDigests) -> dict[str, str | None]:
        """`content_hash`: 32 hexadecimal digits over encoding, shape and leaves; None when there was nothing to hash."""
        from xxhash import xxh3_128_hexdigest

        if not state.label:
            return {"content_hash": None}
        return {"content_hash": xxh3_128_hexdigest(state.label.encode() + b"\n" + state.digests)}
