"""Hostile ONNX and TensorFlow files, added to `HOSTILE` when this is imported: bombs, claims, cycles, escapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffai_stream.formats.ordered_code import slice_key
from tests.assets_hostile import ARRAY, HOSTILE
from tests.messages import (
    BYTES,
    field,
    key,
    onnx_external,
    onnx_model,
    onnx_node,
    onnx_tensor,
    packed,
    pairs,
    table,
    tf_const,
    tf_entry,
    tf_graph,
    tf_shape,
    varint,
    write_bundle,
    write_onnx,
)

SOUND = onnx_tensor("a", ARRAY)
MESSAGES = []


def _add(flaw: str, make: Callable[[Path], Path]) -> None:
    HOSTILE[flaw] = make
    MESSAGES.append(flaw)


def _onnx(flaw: str, *tensors: bytes, more: bytes = b"", nodes: tuple[bytes, ...] = ()) -> None:
    """A model of a sound tensor `a` and these."""
    _add(flaw, lambda folder: write_onnx(folder / "model.onnx", onnx_model([SOUND, *tensors], nodes, more)))


def nested(depth: int, inner: bytes, number: int) -> bytes:
    """A message in itself, over and over: only lengths, since each level is written around the one before."""
    heads, nbytes = [], len(inner)
    for _ in range(depth):
        heads.append(key(number, BYTES) + varint(nbytes))
        nbytes += len(heads[-1])
    return b"".join(reversed(heads)) + inner


def graphs_in_graphs(depth: int) -> bytes:
    """A graph whose node holds a graph whose node holds a graph, and so on."""
    pieces, nbytes = [], 0
    for _ in range(depth):
        graph = key(6, BYTES) + varint(nbytes)
        attribute = key(5, BYTES) + varint(len(graph) + nbytes) + graph
        node = field(4, "If") + attribute
        pieces.append(key(1, BYTES) + varint(len(node) + nbytes) + node)
        nbytes += len(pieces[-1])
    return b"".join(reversed(pieces))


DIMS = b"".join(field(1, 2**20) for _ in range(2))  # 2^40 elements
_onnx("onnx_varint_bomb", field(2, 1) + field(1, 2) + field(8, "b") + b"\x80" * 100_000)
_onnx("onnx_dims_bomb", field(2, 1) + field(1, b"\x01" * 100_000) + field(8, "b"))
_onnx("onnx_claims_terabytes", field(2, 1) + DIMS + field(8, "b"))
_onnx("onnx_claims_terabytes_of_varints", field(2, 10) + DIMS + field(8, "b") + packed(5, range(9)))
_onnx("onnx_raw_data_claims_a_gigabyte", field(2, 1) + field(1, 2) + field(8, "b") + field(9, b"x", length=10**9))
_onnx("onnx_name_claims_a_gigabyte", field(2, 1) + field(1, 2) + field(8, b"b", length=10**9))
_onnx("onnx_name_of_a_megabyte", field(2, 1) + field(1, 2) + field(8, "b" * 10**6) + field(9, bytes(8)))
_onnx("onnx_varints_too_few", field(2, 10) + field(1, 9) + field(8, "b") + packed(5, [70_000] * 5))
_onnx("onnx_varints_endless", field(2, 10) + field(1, 9) + field(8, "b") + field(5, b"\xff" * 80))
_onnx("onnx_values_in_thousands_of_pieces", field(2, 10) + field(1, 9) + field(8, "b") + packed(5, [1]) * 5000)
_onnx("onnx_values_of_the_wrong_kind", field(2, 1) + field(1, 2) + field(8, "b") + field(4, 7) * 2)
_onnx("onnx_location_escapes", onnx_external("b", ARRAY, location="../../../etc/passwd"))
_onnx("onnx_location_absolute", onnx_external("b", ARRAY, location="/etc/passwd"))
_onnx("onnx_location_is_the_model_and_too_short", onnx_external("b", np.zeros(10**6), location="model.onnx"))
_onnx(
    "onnx_external_claims_terabytes", field(2, 1) + DIMS + field(8, "b") + pairs(13, {"location": "model.onnx"}) + field(14, 1)
)
_onnx("onnx_group", more=key(9, 3) + key(9, 4))
_onnx("onnx_attributes_in_attributes", nodes=(onnx_node("If", name="if", more=nested(100_000, b"", 5)),))
DEEP = field(1, 8) + field(7, graphs_in_graphs(100_000))
_add("onnx_graphs_of_depth_100000", lambda folder: write_onnx(folder / "m.onnx", DEEP))
_add("onnx_empty_model", lambda folder: write_onnx(folder / "m.onnx", field(1, 8)))
_add("onnx_cut_off", lambda folder: write_onnx(folder / "m.onnx", onnx_model([SOUND, onnx_tensor("b", ARRAY)])[:-30]))


def _tf(flaw: str, tensor: bytes, more: bytes = b"") -> None:
    def make(folder: Path) -> Path:
        sound = field(1, 1) + field(2, tf_shape(ARRAY.shape)) + field(4, ARRAY.tobytes())
        (folder / "model.pb").write_bytes(tf_graph([tf_const("a", sound), tf_const("b", tensor)], more))
        return folder / "model.pb"

    _add(flaw, make)


_tf("tf_fill_of_terabytes", field(1, 1) + field(2, tf_shape([2**20, 2**20])) + field(5, bytes(4)))
_tf("tf_zeros_of_terabytes", field(1, 1) + field(2, tf_shape([2**20, 2**20])))
_tf("tf_shape_overflows", field(1, 1) + field(2, tf_shape([2**62] * 3)))
_tf("tf_shape_of_thousands", field(1, 1) + field(2, tf_shape([1] * 5000)))
_tf("tf_content_claims_a_gigabyte", field(1, 1) + field(2, tf_shape([2])) + field(4, b"x", length=10**9))
_tf("tf_varints_endless", field(1, 3) + field(2, tf_shape([99])) + field(7, b"\xff" * 200))


def _bundle(flaw: str, more: dict[bytes, bytes], header: bytes = b"") -> None:
    _add(flaw, lambda folder: write_bundle(folder / "ckpt", {"a": ARRAY}, more=more, header=header))


WHOLE = field(7, field(1, b""))
CYCLE = tf_entry(ARRAY[0], more=WHOLE)
_bundle("tf_slices_of_slices", {b"b": CYCLE, slice_key(b"b", [(0, -1)]): CYCLE})
_bundle("tf_data_file_of_another_number", {b"b": tf_entry(ARRAY, shard=7)})
_bundle("tf_data_files_2_to_31", {}, field(1, 2**31))
_bundle("tf_entry_beyond_the_file", {b"b": tf_entry(ARRAY, offset=2**62)})
_bundle("tf_entry_claims_terabytes", {b"b": field(1, 1) + field(2, tf_shape([2**40])) + field(5, 2**42)})


def _index(flaw: str, raw: bytes) -> None:
    def make(folder: Path) -> Path:
        path = write_bundle(folder / "ckpt", {"a": ARRAY})
        path.write_bytes(raw)
        return path

    _add(flaw, make)


FOOTER = 0xDB4775248B80FB57.to_bytes(8, "little")
_index("tf_index_of_nothing", bytes(40) + FOOTER)
_index("tf_index_places_at_the_end_of_time", (varint(2**63) * 4).ljust(40, b"\0") + FOOTER)
_index("tf_index_of_varints", b"\xff" * 40 + FOOTER)
_index("tf_index_compressed", table({b"": field(1, 1)}, kind=1))
_index("tf_index_without_a_header", table({b"a": tf_entry(ARRAY)}))
_index("tf_index_cut_off", table({b"": field(1, 1), b"a": tf_entry(ARRAY)})[:-20])


def checkpoint_file_names_itself(folder: Path) -> Path:
    (folder / "checkpoint").write_text('model_checkpoint_path: "checkpoint"\n')
    return folder


_add("tf_checkpoint_names_itself", checkpoint_file_names_itself)
