"""TensorFlow checkpoints, SavedModels and frozen graphs, written by independent writers."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.errors import FormatError
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.formats.ordered_code import slice_key
from diffai_stream.formats.tensorflow_tensors import KINDS
from tests.checkpoints import read_extents
from tests.equality import differences
from tests.messages import (
    field,
    packed,
    table,
    tf_const,
    tf_entry,
    tf_graph,
    tf_node,
    tf_shape,
    tf_tensor,
    write_bundle,
)

RANDOM = np.random.default_rng(0)
W = {
    "dense/kernel": RANDOM.normal(size=(6, 4)).astype(np.float32),
    "dense/bias": RANDOM.normal(size=4).astype(np.float16),
    "empty": np.zeros((0, 3), np.float32),
    "ids": np.arange(7),
}


def messages_of(path) -> list[str]:
    return [f"{error.tensor}: {error.message}" for error in open_checkpoint(str(path)).errors]


# Checkpoints.
@pytest.mark.parametrize("shards", [1, 3])
def test_a_checkpoint_and_safetensors_of_its_weights_are_equal(tmp_path, shards):
    assert differences(write_bundle(tmp_path / "ckpt-7", W, shards), W, tmp_path) == []


def test_every_way_to_name_a_checkpoint(tmp_path):
    write_bundle(tmp_path / "run" / "ckpt-7", W, 2)
    (tmp_path / "run" / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/ckpt-7"\n')
    for path in ("run/ckpt-7.index", "run/ckpt-7.data-00001-of-00002", "run/ckpt-7", "run"):
        found = open_checkpoint(str(tmp_path / path))
        assert (found.format, found.path, len(found.tensors)) == ("tensorflow", str(tmp_path / path), 4)
        assert len(found.stamps) == 3


def test_the_latest_checkpoint_of_a_directory_counts(tmp_path):
    write_bundle(tmp_path / "ckpt-1", {"old": W["ids"]})
    write_bundle(tmp_path / "ckpt-2", {"new": W["ids"]})
    with pytest.raises(FormatError, match=r"2 TensorFlow checkpoints .* name one of them: 'ckpt-1', 'ckpt-2'"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "ckpt-1"\n')
    assert [entry.name for entry in open_checkpoint(str(tmp_path)).tensors] == ["new"]


def test_variables_of_objects_and_of_the_optimizer(tmp_path):
    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    names = {
        f"model/kernel{end}": W["dense/kernel"],
        f"model/kernel/.OPTIMIZER_SLOT/optimizer/m{end}": W["dense/kernel"],
        f"optimizer/learning_rate{end}": np.float32(0.5),
        f"save_counter{end}": np.array(3),
        "dense/kernel/Adam_1": W["dense/kernel"],
    }
    graph = {b"_CHECKPOINTABLE_OBJECT_GRAPH": field(1, 7) + field(5, 10)}
    found = open_checkpoint(str(write_bundle(tmp_path / "ckpt", names, more=graph)))
    assert found.errors == found.oddities == ()
    parts = {"model/kernel": "weights", "model/kernel/.OPTIMIZER_SLOT/optimizer/m": "optimizer"}
    assert {entry.name: entry.part for entry in found.tensors} == {**parts, "dense/kernel/Adam_1": "optimizer"}
    assert found.hyperparameters == {"optimizer.learning_rate": 0.5, "save_counter": 3}


def test_strings_are_left_out_and_said(tmp_path):
    text = {b"vocabulary": field(1, 7) + field(2, tf_shape([2])) + field(5, 20)}
    found = open_checkpoint(str(write_bundle(tmp_path / "ckpt", W, more=text)))
    assert len(found.tensors) == 4
    assert [(note.code, note.tensor) for note in found.oddities] == [("text_tensor", "vocabulary")]


def test_big_endian_checkpoints(tmp_path):
    one = W["dense/bias"]
    path = write_bundle(tmp_path / "ckpt", {"b": one.byteswap()}, header=field(2, 1))
    assert differences(path, {"b": one}, tmp_path) == []


def extent(start=None, length=None):
    return field(1, (field(1, start) if start else b"") + (field(2, length) if length is not None else b""))


def write_slices(folder: Path, full: np.ndarray, cuts, drop=(), lies=()):
    """A tensor cut into [start, stop) ranges of both axes; None takes an axis whole."""
    slices, parts, keys = b"", {}, {}
    data = bytearray(b"unused")
    for number, cut in enumerate(cuts):
        places = [(0, -1) if ends is None else (ends[0], ends[1] - ends[0]) for ends in cut]
        part = full[tuple(slice(None) if ends is None else slice(*ends) for ends in cut)]
        slices += field(7, b"".join(extent(start, None if length < 0 else length) for start, length in places))
        key = slice_key(b"w", places)
        if number not in drop:
            keys[key] = tf_entry(part[:-1] if number in lies else part, offset=len(data))
        parts[key] = part
        data += np.ascontiguousarray(part).tobytes()
    path = write_bundle(folder / "ckpt", {}, more={b"w": tf_entry(full, size=0, more=slices), **keys})
    Path(f"{folder / 'ckpt'}.data-00000-of-00001").write_bytes(data)
    return path


FULL = RANDOM.normal(size=(130, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "cuts",
    [
        [((0, 65), None), ((65, 130), None)],
        [((100, 130), (0, 3)), ((0, 100), (0, 3))],
        [(None, None)],
    ],
)
def test_partitioned_variables_are_joined(tmp_path, cuts):
    assert differences(write_slices(tmp_path, FULL, cuts), {"w": FULL}, tmp_path) == []


def test_slices_across_rows_are_compared_each(tmp_path):
    path = write_slices(tmp_path, FULL, [(None, (0, 1)), (None, (1, 3))])
    parts = {"w[0:130, 0:1]": FULL[:, :1], "w[0:130, 1:3]": FULL[:, 1:]}
    assert differences(path, parts, tmp_path) == []
    assert [note.code for note in open_checkpoint(str(path)).oddities] == ["sliced_tensor"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cuts": [((0, 65), None)]}, "1 slices do not cover it once"),
        ({"cuts": [((0, 70), None), ((65, 130), None)]}, "2 slices do not cover it once"),
        ({"cuts": [((0, 65), None), ((65, 130), None)], "drop": [1]}, "65,65:- has no entry of its own"),
        ({"cuts": [((0, 65), None), ((65, 130), None)], "lies": [1]}, "of another shape"),
        ({"cuts": [((0, 65),), ((65, 130),)]}, "not as many axes"),
    ],
)
def test_slices_that_contradict_each_other(tmp_path, options, message):
    (found,) = [text for text in messages_of(write_slices(tmp_path, FULL, **options)) if text.startswith("w:")]
    assert message in found


def test_keys_of_slices_as_tensorflow_writes_them():
    assert slice_key(b"w", [(0, -1), (64, 8192)]) == b"\x00w\x00\x01\x01\x02\x80\x7f\xc0\x40\xe0\x20\x00"
    assert slice_key(b"a\0b\xff", [(-65, 63)]) == b"\x00a\x00\xffb\xff\x00\x00\x01\x01\x01\x3f\xbf\xbf"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1)), min_size=2, max_size=2))
def test_keys_sort_as_places_do(pair):
    assert (slice_key(b"w", pair[:1]) < slice_key(b"w", pair[1:])) == (pair[0] < pair[1])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (tf_entry(FULL, size=10), "take 1560 bytes, its entry has 10"),
        (tf_entry(FULL, offset=50), "has 123: truncated"),
        (tf_entry(FULL, offset=-8), "truncated"),
        (tf_entry(FULL, shard=1), "data file 1 of 1 cannot be"),
        (field(1, 27) + field(2, tf_shape([1])) + field(5, 1), "float8_e4m3b11fnuz has no encoding"),
        (field(1, 77) + field(5, 4), "data type 77"),
        (field(5, 4), "no data type"),
        (field(1, 1) + field(2, tf_shape([2**40, 2**40])) + field(5, 4), "larger than any array"),
        (field(1, 1) + field(2, tf_shape([-1])) + field(5, 4), "-1"),
        (field(1, 1) + field(2, field(3, 1)) + field(5, 4), "rank is not known"),
    ],
)
def test_one_bad_entry_costs_one_tensor(tmp_path, entry, message):
    path = write_bundle(tmp_path / "ckpt", {"a": np.arange(123, dtype=np.uint8)}, more={b"bad": entry})
    found = open_checkpoint(str(path))
    assert [one.name for one in found.tensors] == ["a"]
    assert [error.tensor for error in found.errors] == ["bad"]
    assert message in found.errors[0].message


def test_a_missing_data_file_is_named(tmp_path):
    path = write_bundle(tmp_path / "ckpt", W, 2)
    Path(f"{tmp_path / 'ckpt'}.data-00001-of-00002").unlink()
    found = open_checkpoint(str(path))
    assert {error.tensor for error in found.errors} == {"dense/bias", "ids"}
    assert all("no such file" in error.message and error.path.endswith("00001-of-00002") for error in found.errors)


def test_a_damaged_index_keeps_the_tensors_before_the_damage(tmp_path):
    names = {f"layer/{number:02}": np.full(3, number) for number in range(20)}
    path = write_bundle(tmp_path / "ckpt", names)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"layer/15")] ^= 1
    path.write_bytes(raw)
    found = open_checkpoint(str(path))
    assert 4 <= len(found.tensors) < 16
    assert "checksum" in found.errors[0].message


# Frozen graphs.
CONSTS = [tf_const("dense/kernel", tf_tensor(W["dense/kernel"])), tf_const("ids", tf_tensor(np.arange(100)))]


def graph(folder, nodes, more=b"", name="model.pb"):
    (folder / name).write_bytes(tf_graph(nodes, more))
    return folder / name


def test_constants_of_a_frozen_graph(tmp_path):
    meant = {"dense/kernel": W["dense/kernel"], "ids": np.arange(100)}
    path = graph(tmp_path, [*CONSTS, tf_node("y", "MatMul", {})], field(4, field(1, 1087)))
    assert differences(path, meant, tmp_path) == []


def test_small_constants_are_hyperparameters(tmp_path):
    shape, eps = tf_tensor(np.array([-1, 64], np.int32)), tf_tensor(np.array(0.5, np.float32), packed(5, ()) + b"")
    half = field(1, 1) + field(2, b"") + field(5, struct.pack("<f", 0.5))
    names = [tf_const("shape", shape), tf_const("half", half), tf_const("names", field(1, 7) + field(8, "text"))]
    found = open_checkpoint(str(graph(tmp_path, [*CONSTS, *names, tf_const("zero", eps)])))
    assert (found.errors, found.oddities, len(found.tensors)) == ((), (), 2)
    assert found.hyperparameters == {"shape": "[-1, 64]", "half": 0.5, "zero": 0.0}


FIELDS = {
    **{"float32": 5, "float64": 6, "complex64": 9, "complex128": 12, "float16": 13, "bfloat16": 13},
    **{"int64": 10, "bool": 11, "uint32": 16, "uint64": 17},
    **dict.fromkeys(("int8", "uint8", "int16", "uint16", "int32"), 7),
    **dict.fromkeys(("float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz"), 18),
}
NAMES = {"bfloat16": "BF16", "float8_e5m2": "F8_E5M2", "float8_e4m3fn": "F8_E4M3"} | {
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}


def typed(name: str, count: int) -> tuple[np.ndarray, bytes]:
    """Numbers of a type, and the field that lists them."""
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    values = RANDOM.integers(-100, 100, count).astype(dtype)
    if FIELDS[name] in (5, 6, 9, 12, 18):
        return values, field(FIELDS[name], values.tobytes())
    if dtype.itemsize == 2 and dtype.name in ("float16", "bfloat16"):
        return values, packed(13, values.view(np.uint16).tolist())
    return values, packed(FIELDS[name], values.astype(object).tolist())


@pytest.mark.parametrize("name", FIELDS)
def test_lists_of_every_type(tmp_path, name):
    values, listed = typed(name, 99)
    path = graph(tmp_path, [tf_const("w", tf_tensor(values.reshape(9, 11), listed))])
    if name == "complex128":  # which safetensors does not know
        (entry,) = open_checkpoint(str(path)).tensors
        assert np.array_equal(np.frombuffer(read_extents(entry), name), values)
        return
    declared = values.reshape(9, 11)
    reference = (NAMES[name], (9, 11), values.tobytes()) if name in NAMES else declared
    assert differences(path, {"w": reference}, tmp_path) == []


@pytest.mark.parametrize("name", ["float32", "int32", "float16", "int64"])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_lists_that_are_continued(tmp_path, name, count):
    values, listed = typed(name, count)
    last = values[-1] if count else values.dtype.type(0)
    full = np.concatenate([values, np.full(9 * 11 - count, last, values.dtype)]).reshape(9, 11)
    path = graph(tmp_path, [tf_const("w", tf_tensor(full, listed if count else b""))])
    assert differences(path, {"w": full}, tmp_path) == []


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (field(1, 1) + field(2, tf_shape([2])) + field(4, bytes(12)), "take 8 bytes, it has 12"),
        (field(1, 1) + field(2, tf_shape([2])) + field(4, bytes(4)), "take 8 bytes, it has 4"),
        (field(1, 1) + field(2, tf_shape([1])) + field(5, bytes(8)), "take 4 bytes, it has 8"),
        (field(1, 1) + field(2, tf_shape([10**9])) + field(5, bytes(4)), "one number repeated are not plausible"),
        (field(1, 3) + field(2, tf_shape([2])) + packed(7, [1, 2, 3]), "take 8 bytes, it has 12"),
        (field(1, 3) + field(2, tf_shape([99])) + field(7, b"\xff" * 20), "varint"),
        (field(1, 29) + field(2, tf_shape([99])) + field(4, bytes(99)), "int4 has no encoding"),
    ],
)
def test_one_bad_constant_costs_one_tensor(tmp_path, tensor, message):
    found = open_checkpoint(str(graph(tmp_path, [*CONSTS, tf_const("bad", tensor)])))
    assert [entry.name for entry in found.tensors] == ["dense/kernel", "ids"]
    assert [error.tensor for error in found.errors] == ["bad"]
    assert message in found.errors[0].message


def test_constants_inside_functions(tmp_path):
    function = field(1, field(1, "block")) + field(3, tf_const("w", tf_tensor(np.arange(100))))
    found = open_checkpoint(str(graph(tmp_path, CONSTS, field(2, field(1, function)))))
    assert [entry.name for entry in found.tensors] == ["dense/kernel", "ids", "block/w"]


# SavedModel directories.
def saved_model(folder: Path, nodes=(), more=b"") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    meta = field(1, field(5, "2.16.1")) + field(2, tf_graph(nodes, more))
    (folder / "saved_model.pb").write_bytes(field(1, 1) + field(2, meta))
    return folder


def test_a_saved_model_is_its_variables_and_its_constants(tmp_path):
    write_bundle(tmp_path / "m" / "variables" / "variables", {"kernel/.ATTRIBUTES/VARIABLE_VALUE": W["dense/kernel"]})
    function = field(1, field(1, "block")) + field(3, tf_const("w", tf_tensor(np.arange(100))))
    saved_model(tmp_path / "m", [tf_const("Const", tf_tensor(np.arange(100)))], field(2, field(1, function)))
    meant = {"kernel": W["dense/kernel"], "Const": np.arange(100)}
    for path in ("m", "m/saved_model.pb"):
        assert differences(tmp_path / path, meant, tmp_path) == []
        found = open_checkpoint(str(tmp_path / path))
        assert found.metadata == {"tensorflow_version": "2.16.1"}
        assert [note.code for note in found.oddities] == ["function_constants"]
    only = open_checkpoint(str(tmp_path / "m" / "variables"))
    assert [entry.name for entry in only.tensors] == ["kernel"]


def test_a_saved_model_without_variables(tmp_path):
    path = saved_model(tmp_path / "m", [tf_const("Const", tf_tensor(np.arange(100)))])
    assert [entry.name for entry in open_checkpoint(str(path)).tensors] == ["Const"]


@pytest.mark.parametrize("raw", [b"\x0a", b"\x0a\x05hello", b"\x0a\x02\x0a\x00", field(1, field(1, "\x00\xff")), b"\x08\x01"])
def test_other_messages_are_no_graphs(tmp_path, raw):
    (tmp_path / "x.bin").write_bytes(raw)
    with pytest.raises(FormatError):
        open_checkpoint(str(tmp_path / "x.bin"))


def test_every_kind_is_written_here():
    assert {kind.field for kind in KINDS.values()} == set(FIELDS.values())


def test_other_tables_are_told(tmp_path):
    (tmp_path / "x.index").write_bytes(table({b"a": b"b"}))
    with pytest.raises(FormatError, match="without a header"):
        open_checkpoint(str(tmp_path / "x.index"))


MODELS = Path(find_spec("basic_pitch").origin).parent / "saved_models" / "icassp_2022" if find_spec("basic_pitch") else None
SAME = {  # by name in the SavedModel: the name in the ONNX model that tf2onnx made of it
    "layer_with_weights-3/kernel": "const_fold_opt__710",
    "layer_with_weights-4/kernel": "const_fold_opt__738",
    "layer_with_weights-7/kernel": "const_fold_opt__702",
    "layer_with_weights-8/kernel": "const_fold_opt__680",
    "Const": "const_fold_opt__655",
    "Const_1": "const_fold_opt__664",
}


@pytest.mark.skipif(MODELS is None, reason="basic-pitch is not installed")
def test_a_real_saved_model_has_the_weights_of_its_onnx_export():
    """Kernels are [height, width, in, out] in TensorFlow and [out, in, height, width] in ONNX."""
    saved, exported = (open_checkpoint(str(MODELS / name)) for name in ("nmp", "nmp.onnx"))
    assert saved.errors == exported.errors == ()
    assert [sum(entry.part == part for entry in saved.tensors) for part in ("weights", "optimizer")] == [27, 36]
    assert saved.hyperparameters["optimizer.iter"] == 17900
    for name, other in SAME.items():
        (old,), (new,) = ([one for one in side.tensors if one.name == key] for side, key in ((saved, name), (exported, other)))
        kernel = np.frombuffer(read_extents(old), np.float32).reshape(old.shape)
        turned = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel
        np.testing.assert_array_equal(turned.reshape(-1), np.frombuffer(read_extents(new), np.float32))
