"""Where weights lie in ONNX models other than in initializers: constants, inner graphs, attributes; every data type."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.formats.onnx_tensors import KINDS
from diffai_stream.formats.wire import FIXED32, MAX_DEPTH
from tests.equality import differences
from tests.messages import (
    field,
    key,
    onnx_attribute,
    onnx_constant,
    onnx_model,
    onnx_node,
    onnx_tensor,
    packed,
    varint,
    write_onnx,
)
from tests.validation import of_type, run, tensors

W = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def open_model(folder, initializers=(), nodes=(), more=b""):
    return open_checkpoint(str(write_onnx(folder / "m.onnx", onnx_model(initializers, nodes, more))))


def names(found):
    assert found.errors == ()
    return {entry.name: entry.shape for entry in found.tensors}


def subgraph(nodes=(), initializers=()):
    return b"".join(field(1, node) for node in nodes) + b"".join(field(5, tensor) for tensor in initializers)


def test_constants_are_weights_and_small_ones_are_hyperparameters(tmp_path):
    found = open_model(
        tmp_path,
        nodes=[
            onnx_constant("w", W),
            onnx_constant("b", W[0, :1]),
            onnx_constant("axes", np.array([-1, 2])),
            onnx_constant("eps", np.float64(1e-5)),
            onnx_constant("mask", np.array(-np.inf, np.float32)),
            onnx_node("Constant", (), ["two"], more=onnx_attribute("value_int", field(3, -2))),
            onnx_node("Constant", (), ["half"], more=onnx_attribute("value_float", key(2, FIXED32) + struct.pack("<f", 0.5))),
            onnx_node("Constant", (), ["typed"], more=onnx_attribute("value", field(5, field(2, 7) + packed(7, [7])))),
        ],
    )
    assert names(found) == {"w": (3, 4), "b": (1,)}
    assert found.hyperparameters == {
        **{"axes": "[-1, 2]", "eps": 1e-5, "mask": "-inf", "two": -2, "half": 0.5, "typed": 7},
    }


def test_initializers_that_exporters_name_are_judged_alike(tmp_path):
    shapes = {name: onnx_tensor(name, np.array([1, 64])) for name in ("val_3", "onnx::Reshape_12", "/a/Constant_1_output_0")}
    kept = [onnx_tensor("onnx::MatMul_7", W), onnx_tensor("num_batches_tracked", np.array(3)), onnx_tensor("val_9", W[0])]
    found = open_model(tmp_path, [*shapes.values(), *kept])
    assert set(names(found)) == {"onnx::MatMul_7", "num_batches_tracked", "val_9"}
    assert found.hyperparameters == dict.fromkeys(shapes, "[1, 64]")


def test_graphs_inside_nodes(tmp_path):
    inner = onnx_node(
        "Loop", name="loop", more=onnx_attribute("body", field(6, subgraph(initializers=[onnx_tensor("w", W * 3)])))
    )
    branches = [subgraph([onnx_constant("w", W * 2), inner]), subgraph([onnx_constant("v", W)])]
    more = onnx_attribute("then_branch", field(6, branches[0])) + onnx_attribute("else_branch", field(6, branches[1]))
    found = open_model(tmp_path, [onnx_tensor("w", W)], [onnx_node("If", name="/if", more=more)])
    assert set(names(found)) == {"w", "v", "/if.then_branch/w", "/if.then_branch/loop.body/w"}


def test_local_functions(tmp_path):
    function = field(1, "block") + field(7, onnx_constant("w", W))
    found = open_model(tmp_path, [onnx_tensor("w", W)], more=field(25, function))
    assert set(names(found)) == {"w", "block/w"}


def test_lists_of_classical_models(tmp_path):
    floats = b"".join(key(7, FIXED32) + struct.pack("<f", value) for value in range(100))
    ints = b"".join(key(8, 0) + varint(value) for value in range(-50, 250))
    small = onnx_attribute("classes", b"".join(key(8, 0) + varint(value) for value in range(3)))
    node = onnx_node(
        "LinearClassifier", name="lc", more=onnx_attribute("coefficients", floats) + small + onnx_attribute("ids", ints)
    )
    path = write_onnx(tmp_path / "m.onnx", onnx_model(nodes=[node]))
    meant = {"lc.coefficients": np.arange(100, dtype=np.float32), "lc.ids": np.arange(-50, 250)}
    assert differences(path, meant, tmp_path) == []


def test_sparse_tensors_are_their_values_and_indices(tmp_path):
    sparse = field(1, onnx_tensor("s", W[0])) + field(2, onnx_tensor("", np.array([1, 5, 6, 7]))) + field(3, 9)
    path = write_onnx(tmp_path / "m.onnx", field(1, 8) + field(7, field(2, "g") + field(15, sparse)))
    found = open_checkpoint(str(path))
    assert names(found) == {"s.values": (4,), "s.indices": (4,)}
    assert [note.code for note in found.oddities] == ["sparse_tensor"]


@pytest.mark.parametrize("depth", [3, MAX_DEPTH, 100_000])
def test_graphs_in_graphs(tmp_path, depth):
    pieces, graph_nbytes = [], 0
    inner = field(5, onnx_tensor("deepest", W))
    graph_nbytes, tail = len(inner), [inner]
    for _ in range(depth):  # written from the inside out, as lengths alone
        attribute = key(6, 2) + varint(graph_nbytes)
        node = key(5, 2) + varint(len(attribute) + graph_nbytes)
        head = field(4, "If")
        outer = key(1, 2) + varint(len(head) + len(node) + len(attribute) + graph_nbytes)
        pieces.append(outer + head + node + attribute)
        graph_nbytes += len(pieces[-1])
    raw = field(1, 8) + key(7, 2) + varint(graph_nbytes) + b"".join(reversed(pieces)) + b"".join(tail)
    found = open_checkpoint(str(write_onnx(tmp_path / "m.onnx", raw)))
    if depth <= MAX_DEPTH:
        assert names(found) == {"deepest": (3, 4)}
    else:
        assert found.tensors == ()
        assert "deep" in found.errors[0].message


def test_names_that_repeat(tmp_path):
    found = open_model(tmp_path, [onnx_tensor("w", W), onnx_tensor("w", W[:1]), onnx_tensor("", W)])
    assert names(found) == {"w": (3, 4), "w#2": (1, 4), "unnamed": (3, 4)}
    assert [note.code for note in found.oddities] == ["duplicate_name"]


# Every data type, as the onnx library writes it.
FLOATS = {
    **{
        "F32": np.float32,
        "F64": np.float64,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    },
    **{"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz},
    **{"F8_E5M2": ml_dtypes.float8_e5m2, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz},
    **{"F4": ml_dtypes.float4_e2m1fn, "F6_E2M3": ml_dtypes.float6_e2m3fn, "F6_E3M2": ml_dtypes.float6_e3m2fn},
    **{"C64": np.complex64, "C128": np.complex128, "BOOL": np.bool_},
    **{"I4": ml_dtypes.int4, "U4": ml_dtypes.uint4, "I2": ml_dtypes.int2, "U2": ml_dtypes.uint2},
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits // 8}") for kind in "IU" for bits in (8, 16, 32, 64)},
}
PACKED = {"F4", "F6_E2M3", "F6_E3M2", "I4", "U4", "I2", "U2"}


def values_of(encoding):
    """Numbers of a type, as many as do not fill whole bytes of packed ones; the reference holds them in a wider type."""
    random = np.random.default_rng(1)
    dtype = np.dtype(FLOATS[encoding])
    if encoding[0] in "IU":
        bits = int(encoding[1:])
        low = -(2 ** (bits - 1)) if encoding[0] == "I" else 0
        values = random.integers(
            low, low + 2**bits - 1, (7, 9), dtype=np.int64 if encoding != "U64" else np.uint64, endpoint=True
        )
    elif encoding == "F8_E8M0":
        values = 2.0 ** random.integers(-20, 20, (7, 9))
    else:
        values = random.normal(size=(7, 9)) * 2
    return values.astype(dtype)


@pytest.mark.parametrize("number", KINDS)
@pytest.mark.parametrize("raw", [True, False])
def test_every_data_type_of_the_onnx_library(tmp_path, number, raw):
    onnx = pytest.importorskip("onnx")
    encoding = KINDS[number].encoding
    values = values_of(encoding)
    content = onnx.numpy_helper.from_array(values, "w").raw_data if raw else values
    tensor = onnx.helper.make_tensor("w", number, values.shape, content, raw=raw)
    assert tensor.data_type == number
    assert bool(tensor.raw_data) == raw
    path = write_onnx(tmp_path / "m.onnx", onnx_model([tensor.SerializeToString()]))
    if encoding == "C128":
        found = open_checkpoint(str(path))
        assert (found.errors, found.tensors[0].encoding, found.tensors[0].shape) == ((), "C128", (7, 9))
    elif encoding in PACKED:  # held against the same numbers, a byte or more each
        same = values.astype(np.float32 if encoding[0] == "F" else np.int8)
        assert differences(path, {"w": same}, tmp_path) == ["w: ('retyped', [7, 9])"]
    else:
        assert differences(path, {"w": (encoding, (7, 9), values.tobytes())}, tmp_path) == []


def test_every_data_type_is_known():
    onnx = pytest.importorskip("onnx")
    types = dict(onnx.TensorProto.DataType.items())
    assert set(types.values()) - set(KINDS) == {types["UNDEFINED"], types["STRING"]}


SILERO = Path(find_spec("silero_vad").origin).parent / "data" if find_spec("silero_vad") else None


@pytest.mark.skipif(SILERO is None, reason="silero-vad is not installed")
@pytest.mark.parametrize("other", ["silero_vad_openvino_16k.onnx", "silero_vad_op18_ifless.onnx", "silero_vad.onnx"])
def test_the_same_weights_in_other_places_of_real_models(other):
    """Initializers against constants, against initializers among others, against constants in the branches of an `If`."""
    records = run(SILERO / "silero_vad_16k_op15.onnx", SILERO / other, include_unchanged=True)
    paired = {name: r for name, r in tensors(records).items() if r["old"] is not None}
    assert len(paired) == 15
    assert {record["status"] for record in paired.values()} == {"unchanged"}
    assert not of_type(records, "error")


@pytest.mark.skipif(SILERO is None, reason="silero-vad is not installed")
def test_a_real_model_against_the_torchscript_it_was_exported_from():
    records = run(SILERO / "silero_vad.jit", SILERO / "silero_vad.onnx", include_unchanged=True)
    paired = [record for record in tensors(records).values() if record["old"] and record["new"]]
    assert len(paired) == 30
    assert {record["status"] for record in paired} == {"unchanged"}


@pytest.mark.skipif(SILERO is None, reason="silero-vad is not installed")
def test_a_real_model_against_safetensors():
    """Two trainings of one network share the fixed Fourier basis, under another name."""
    records = run(SILERO / "silero_vad_16k_op15.onnx", SILERO / "silero_vad_16k.safetensors", include_unchanged=True)
    basis = tensors(records)["model.stft.forward_basis_buffer"]
    assert (basis["status"], basis["match"], basis["new"]["name"]) == ("unchanged", "renamed", "stft_conv.weight")
