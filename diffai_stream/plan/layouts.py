"""How the tensors of one layout lie in those of another: which views are possible, by shape alone.

Every function lists candidates; `resolve.py` reads a few samples of each and keeps the one that fits. Facts: Conv1D of
GPT-2, Keras and Flax store [in, out]; GGUF permutes the rows of q and k of Llama-like models (the rotary halves of a head
alternate); Gemma and Nemotron norms are stored as weight + 1 by one side; fused projections are cut in blocks, by head, or
by group of heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

from diffai_stream.formats.base import TensorEntry
from diffai_stream.plan.views import View

HEAD_DIMS = (128, 64, 256, 80, 96, 112, 160, 192, 32, 48, 16, 8)  # of published models, the most common first
MAX_AXES = 4
QKV, GATE_UP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
PARTS: Mapping[str, tuple[str, ...]] = {"qkv_proj": QKV, "gate_up_proj": GATE_UP}
ROTARY, SHIFTED = ("attention.q_proj", "attention.k_proj"), "norm"


class Candidate(NamedTuple):
    """One way to see a side as the other: what it is called, the view, and what is added to every value."""

    match: str
    view: View
    offset: float = 0.0


def transposes(view: View, shape: tuple[int, ...]) -> Iterator[Candidate]:
    """Orders of the axes that give `shape`, the reversed one first; the order as it is left out."""
    axes = tuple(range(len(shape)))
    if not 2 <= len(axes) <= MAX_AXES or len(view.shape) != len(axes):
        return
    orders = [axes[::-1], *(order for order in permutations(axes) if order not in (axes, axes[::-1]))]
    for order in orders:
        if tuple(view.shape[a] for a in order) == shape:
            yield Candidate("transposed", view.transposed(order))


def squeezes(view: View, shape: tuple[int, ...]) -> Iterator[Candidate]:
    """The same elements in the same order, when the shapes differ by axes of 1 alone."""
    if [n for n in view.shape if n != 1] == [n for n in shape if n != 1]:
        yield Candidate("squeezed", view)


def rotations(view: View, head_dims: Sequence[int]) -> Iterator[Candidate]:
    """Rows of q and k with the two halves of a head side by side, and the way back, for the sizes that a head may have."""
    for size in head_dims:
        if size % 2 == 0 and view.shape[0] % size == 0:
            for halves in ((size // 2, 2), (2, size // 2)):
                yield Candidate("permuted", _swapped(view.split(view.shape[0] // size, *halves)))


def _swapped(view: View) -> View:
    """Axes 1 and 2 exchanged."""
    return view.transposed((0, 2, 1, *range(3, len(view.shape))))


def offsets(view: View) -> Iterator[Candidate]:
    """Norm weights that one side stores around 1 and the other around 0."""
    yield Candidate("offset", view, 1.0)
    yield Candidate("offset", view, -1.0)


def common_rows(view: View, shape: tuple[int, ...]) -> Iterator[Candidate]:
    """The first rows of a longer table."""
    if len(view.shape) == len(shape) == 2 and view.shape[1] == shape[1] and view.shape[0] > shape[0]:
        yield Candidate("padded", view.rows(0, shape[0]))


def head_dims(checkpoints: Sequence[Mapping[str, str]], rows: int) -> tuple[int, ...]:
    """Sizes that a head may have, of `rows` rows in all: those that follow from head counts in the metadata come first."""
    told = [int(value) for metadata in checkpoints for key, value in metadata.items() if _tells_heads(key, value)]
    exact = tuple(rows // count for count in dict.fromkeys(told) if count > 0 and rows % count == 0)
    return exact + tuple(size for size in HEAD_DIMS if size not in exact)


def _tells_heads(key: str, value: str) -> bool:
    return key.endswith((".attention.head_count", ".attention.head_count_kv")) and value.isdecimal()


def fused(whole: TensorEntry, parts: Sequence[TensorEntry], sizes: Sequence[int]) -> Iterator[tuple[str, list[View]]]:
    """Ways in which parts with these numbers of rows lie in the rows, or columns, of a fused tensor: a view for each part."""
    view = View.of(whole)
    if len(view.shape) == 3:
        yield from _fused_stacks(view, [part.shape for part in parts])
        return
    ways = [("fused", view)] if view.shape[0] == sum(sizes) else []
    if len(view.shape) == 2 and view.shape[1] == sum(sizes):
        ways.append(("fused+transposed", view.transposed()))
    for match, rows in ways:
        for cut in (*_blocks(rows, sizes), *_interleaved(rows, sizes), *_by_group(rows, sizes)):
            if all(piece.numel == part.numel for piece, part in zip(cut, parts, strict=True)):
                yield match, cut


def _fused_stacks(view: View, shapes: Sequence[tuple[int, ...]]) -> Iterator[tuple[str, list[View]]]:
    """Stacks [experts, rows, columns] of several projections in one: along the rows, or along the columns and transposed."""
    if any(len(shape) != 3 for shape in shapes):
        return
    for match, rows in (("fused", view.transposed((1, 0, 2))), ("fused+transposed", view.transposed((2, 0, 1)))):
        sizes = [shape[1] for shape in shapes]
        if rows.shape[0] == sum(sizes) and rows.shape[1:] == (shapes[0][0], shapes[0][2]):
            for cut in (*_blocks(rows, sizes), *_interleaved(rows, sizes)):
                yield match, [_swapped_first(piece) for piece in cut]


def _swapped_first(view: View) -> View:
    """[rows, (more rows,) experts, columns] as [experts, rows, (more rows,) columns]."""
    axes = len(view.shape)
    return view.transposed((axes - 2, *range(axes - 2), axes - 1))


def _blocks(rows: View, sizes: Sequence[int]) -> Iterator[list[View]]:
    """[Q | K | V]."""
    starts = [sum(sizes[:position]) for position in range(len(sizes))]
    yield [rows.rows(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _interleaved(rows: View, sizes: Sequence[int]) -> Iterator[list[View]]:
    """Row by row, or head by head: [q0 k0 v0 q1 k1 v1 ...]."""
    if len(set(sizes)) > 1:
        return
    for size in (1, *HEAD_DIMS):
        if sizes[0] % size == 0 and size < sizes[0]:
            heads = rows.split(sizes[0] // size, len(sizes), size)
            yield [heads.at(position, 1) for position in range(len(sizes))]


def _by_group(rows: View, sizes: Sequence[int]) -> Iterator[list[View]]:
    """By key-value head: [q q q q k v | q q q q k v ...]."""
    if len(sizes) != 3 or sizes[1] != sizes[2] or sizes[0] == sizes[1] or sizes[0] % sizes[1]:
        return
    shared = sizes[0] // sizes[1]
    for size in HEAD_DIMS:
        if sizes[1] % size == 0:
            groups = rows.split(sizes[1] // size, shared + 2, size)
            strides, inner = groups.strides, groups.shape[2:]
            queries = View((groups.shape[0], shared, *inner), strides, groups.start)
            yield [queries, groups.at(shared, 1), groups.at(shared + 1, 1)]


def expert(stacked: TensorEntry, index: int, shape: tuple[int, ...]) -> Iterator[Candidate]:
    """One expert of a stack [experts, ...], as it is or transposed."""
    view = View.of(stacked)
    if len(view.shape) != len(shape) + 1 or index >= view.shape[0]:
        return
    one = view.at(index)
    if one.shape == shape:
        yield Candidate("stacked", one)
    for candidate in transposes(one, shape):
        yield Candidate("stacked+transposed", candidate.view)


def expert_fused(stacked: TensorEntry, index: int, shape: tuple[int, ...], position: int) -> Iterator[Candidate]:
    """Gate (position 0) or up (1) of one expert of a stack that holds both: in blocks or row by row, as rows or as columns."""
    view = View.of(stacked)
    if len(view.shape) != 3 or len(shape) != 2 or index >= view.shape[0]:
        return
    one = view.at(index)
    for match, rows in (("stacked+fused", one), ("stacked+fused+transposed", one.transposed())):
        if rows.shape == (2 * shape[0], shape[1]):
            yield Candidate(match, rows.rows(position * shape[0], (position + 1) * shape[0]))
            yield Candidate(match, rows.rows(position, 2 * shape[0], 2))
