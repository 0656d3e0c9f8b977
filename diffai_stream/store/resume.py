"""What of a plan a store has already: the batches less that, and the tensors when it is their turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diffai_stream.engine.program import Program
from diffai_stream.engine.results import TensorStates
from diffai_stream.plan.chunks import Batch, Slice, slice_nbytes
from diffai_stream.store.keys import Keys
from diffai_stream.store.results import ResultStore

Side = tuple[int, str]  # number of a pair, and which of its sides were scanned


class Resume:
    """One plan and one store. `batches` are what has to be read."""

    def __init__(self, store: ResultStore, batches: Sequence[Batch], program: Program) -> None:
        self.store = store
        keys = Keys(program)
        self._keys: dict[Side, bytes] = {}
        self._kept: dict[Side, Slice] = {}
        for piece in (piece for batch in batches for piece in batch.slices if piece.number == 0):
            if (key := keys.of(piece)) is not None:
                self._keys[piece.pair, piece.side] = key
                if key in store:
                    self._kept[piece.pair, piece.side] = piece
        self.batches = tuple(self._missing(batches)) if self._kept else tuple(batches)

    def states(self, pair: int, side: str) -> TensorStates | None:
        """A tensor that the store has; None for one that is read. Raises TensorError."""
        piece = self._kept.get((pair, side))
        if piece is None:
            return None
        finished, place, extras = self.store.load(self._keys[pair, side])
        return TensorStates(finished, place, dict(zip(piece.statistics, extras, strict=True)))

    def keys(self) -> dict[int, bytes]:
        """The keys of the tensors that the store has by now, by the number of their pair."""
        return {pair: key for (pair, _), key in self._keys.items() if key in self.store}

    def keep(self, piece: Slice, states: TensorStates) -> None:
        """Put a tensor that was read into the store."""
        if (key := self._keys.get((piece.pair, piece.side))) is not None:
            self.store.add(key, states)

    def _missing(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        for batch in batches:
            slices = tuple(piece for piece in batch.slices if (piece.pair, piece.side) not in self._kept)
            if len(slices) == len(batch.slices):
                yield batch
            elif slices:
                yield Batch(batch.index, slices, sum(map(slice_nbytes, slices)))
