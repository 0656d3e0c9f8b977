"""A small checkpoint of every quantized layout, packed here by its published formula, and what it stands for.

Each holds the same weights, rounded to the nearest code: the fuzzer damages them (`tests/fuzz/corpus.py`), the table of
`tests/formats/test_proof.py` compares them with what they must decode to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tests.quantized import write

NAME = "model.layers.0.mlp.up_proj"
WEIGHT = f"{NAME}.weight"
ROWS, COLUMNS, GROUP = 32, 128, 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # AutoAWQ: nibble i of a word holds column order[i]
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
        *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)
FP4 = np.array([0, 0.005208333, 0.6666667, 1, 0.3333333, 0.5, 0.1666667, 0.25], np.float32)


class Made(NamedTuple):
    """What is stored, the weights it stands for (none when they are not decoded), and what lies beside it."""

    tensors: Mapping[str, Any]
    expected: Mapping[str, np.ndarray]
    encoding: str = ""
    quantization: object = None
    metadata: Mapping[str, str] | None = None
    key: str = "quantization_config"


class Layout(NamedTuple):
    """One layout of a family; `make` gives it."""

    family: str
    make: Callable[[], Made]

    @property
    def decoded(self) -> bool:
        """Whether it is compared by its weights, not by its stored tensors."""
        return self.family != "opaque"

    def write(self, folder: Path) -> Path:
        """A directory of it."""
        made = self.make()
        return write(folder, made.tensors, made.quantization, made.metadata, made.key)


def weights(rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """float32 [rows, columns], as a trained layer has them."""
    return np.random.default_rng(0).normal(0, 0.02, (rows, columns)).astype(np.float32)


def grouped(values: np.ndarray, size: int = GROUP) -> np.ndarray:
    return values.reshape(*values.shape[:-1], -1, size)


def pack_rows(codes: np.ndarray, bits: int) -> np.ndarray:
    """int32 [n * bits / 32, columns]: the stream of codes down each column, lowest bit first (AutoGPTQ `pack`)."""
    stream = (codes.T[:, :, None] >> np.arange(bits)) & 1
    stream = stream.reshape(codes.shape[1], -1).astype(np.uint8)
    stream = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
    return np.ascontiguousarray(np.packbits(stream, axis=1, bitorder="little").view("<i4").T)


def pack_columns(codes: np.ndarray, bits: int) -> np.ndarray:
    """int32 [rows, n * bits / 32]: the same along each row."""
    return np.ascontiguousarray(pack_rows(codes.T, bits).T)


def awq_words(codes: np.ndarray) -> np.ndarray:
    """int32 [n, columns / 8] of AutoAWQ's gemm layout."""
    words = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for place, column in enumerate(AWQ_ORDER):
        words |= codes[:, column::8].astype(np.uint32) << np.uint32(4 * place)
    return words.view(np.int32)


def nibbles(codes: np.ndarray) -> np.ndarray:
    """uint8: two codes a byte, the even one low."""
    return (codes[..., ::2] | codes[..., 1::2] << 4).astype(np.uint8)


def f8(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """The values as E4M3."""
    return "F8_E4M3", array.shape, array.astype(ml_dtypes.float8_e4m3fn).tobytes()


def e8m0(exponents: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """Bytes as powers of two."""
    return "F8_E8M0", exponents.shape, exponents.astype(np.uint8).tobytes()


def nearest(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The index of the entry of the table that is nearest to each value."""
    return np.abs(values[..., None] - table).argmin(-1)


def asymmetric(values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes, float16 scales, zero points) of groups along the last axis."""
    low, high = np.minimum(values.min(-1), 0), np.maximum(values.max(-1), 0)
    scales = ((high - low) / ((1 << bits) - 1)).astype(np.float16)
    zeros = np.clip(np.rint(-low / scales.astype(np.float32)), 1, (1 << bits) - 1).astype(np.int64)
    codes = np.clip(np.rint(values / scales.astype(np.float32)[..., None]) + zeros[..., None], 0, (1 << bits) - 1)
    return codes.astype(np.int64), scales, zeros


def restored(codes: np.ndarray, scales: Any, zeros: Any = 0, shape: tuple[int, ...] = (ROWS, COLUMNS)) -> np.ndarray:
    """(code - zero) * scale over groups along the last axis, in float64."""
    scales, zeros = np.asarray(scales, np.float64), np.asarray(zeros, np.float64)
    return ((codes - zeros[..., None]) * scales[..., None]).reshape(shape)


def gptq(bits: int, version: str = "gptq", act_order: bool = False) -> Made:
    codes, scales, zeros = asymmetric(grouped(weights()), bits)
    index = np.arange(COLUMNS) // GROUP
    flat, expected = codes.reshape(ROWS, COLUMNS), restored(codes, scales, zeros)
    if act_order:
        order = np.random.default_rng(1).permutation(COLUMNS)
        index, flat, expected = index[order], flat[:, order], expected[:, order]
    stored = zeros - (version == "gptq")
    tensors = {
        f"{NAME}.qweight": pack_rows(flat.T, bits),
        f"{NAME}.qzeros": pack_columns(stored.T, bits),
        f"{NAME}.scales": np.ascontiguousarray(scales.T),
        f"{NAME}.g_idx": index.astype(np.int32),
    }
    config = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "checkpoint_format": version, "desc_act": act_order}
    return Made(tensors, {WEIGHT: expected}, f"GPTQ_I{bits}", config)


def awq_gemm() -> Made:
    codes, scales, zeros = asymmetric(grouped(weights()), 4)
    words, points = awq_words(codes.reshape(ROWS, COLUMNS).T), awq_words(zeros.T)
    tensors = {f"{NAME}.qweight": words, f"{NAME}.qzeros": points, f"{NAME}.scales": np.ascontiguousarray(scales.T)}
    config = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"}
    return Made(tensors, {WEIGHT: restored(codes, scales, zeros)}, "AWQ_I4", config)


def awq_gemv() -> Made:
    codes, scales, zeros = asymmetric(grouped(weights()), 4)
    padding = ((0, 0), (0, 32 - zeros.shape[1]))  # four words of zero points a row for groups of 32
    tensors = {
        f"{NAME}.qweight": pack_columns(codes.reshape(ROWS, COLUMNS), 4),
        f"{NAME}.qzeros": pack_columns(np.pad(zeros, padding), 4),
        f"{NAME}.scales": np.pad(scales, padding),
    }
    config = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemv"}
    return Made(tensors, {WEIGHT: restored(codes, scales, zeros)}, "AWQ_I4", config)


def packed(bits: int, with_zeros: bool = False, dense: bool = True) -> Made:
    """compressed-tensors pack-quantized; `dense` false as it was before May 2026."""
    codes, scales, zeros = asymmetric(grouped(weights()), bits)
    each = 32 // bits

    def words(numbers: np.ndarray) -> np.ndarray:
        if dense:
            return pack_columns(numbers, bits)
        filled = np.pad(numbers, ((0, 0), (0, -numbers.shape[1] % each))).reshape(len(numbers), -1, each)
        return (filled << (bits * np.arange(each))).sum(2).astype(np.uint32).view(np.int32)

    tensors = {
        f"{WEIGHT}_packed": words(codes.reshape(ROWS, COLUMNS)),
        f"{WEIGHT}_scale": scales,
        f"{WEIGHT}_shape": np.array([ROWS, COLUMNS]),
    }
    if with_zeros:
        tensors[f"{WEIGHT}_zero_point"] = np.ascontiguousarray(words(zeros.T).T)
    section = {"weights": {"num_bits": bits, "type": "int", "strategy": "group", "group_size": GROUP}}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": section}}
    expected = restored(codes, scales, zeros if with_zeros else np.full_like(zeros, 1 << (bits - 1)))
    return Made(tensors, {WEIGHT: expected}, f"I{bits}_PACKED", config)


def nvfp4(writer: str) -> Made:
    """compressed-tensors divides by the scale over all, modelopt multiplies with it."""
    groups = grouped(weights(), 16)
    overall = np.float32(np.abs(groups).max() / 6 / 448)
    scales = (np.abs(groups).max(-1) / 6 / overall).astype(ml_dtypes.float8_e4m3fn)
    factors = scales.astype(np.float64) * np.float64(overall)
    codes = nearest(groups / factors[..., None], E2M1)
    stored = nibbles(codes.reshape(ROWS, COLUMNS))
    if writer == "modelopt":
        tensors = {WEIGHT: stored, f"{WEIGHT}_scale": f8(scales), f"{WEIGHT}_scale_2": np.array(overall)}
        config = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    else:
        divisor = np.float32(1 / overall).reshape(1)
        factors = scales.astype(np.float64) / divisor.astype(np.float64)
        tensors = {f"{WEIGHT}_packed": stored, f"{WEIGHT}_scale": f8(scales), f"{WEIGHT}_global_scale": divisor}
        config = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}
    return Made(tensors, {WEIGHT: restored(E2M1[codes], factors)}, "NVFP4", config)


def _mx(values: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """(exponents, values divided by them) of groups of 32 along the last axis; 2^largest is the codes' highest power."""
    groups = grouped(values, 32)
    exponents = np.floor(np.log2(np.abs(groups).max(-1))).astype(int) - largest
    return exponents, groups / np.exp2(exponents)[..., None]


def mxfp4(writer: str) -> Made:
    values = weights().reshape(2, 16, COLUMNS) if writer == "gpt-oss" else weights()
    exponents, scaled = _mx(values, 2)
    codes, stored = nearest(scaled, E2M1), exponents + 127
    expected = restored(E2M1[codes], np.exp2(exponents), 0 * exponents, values.shape)
    raw = nibbles(codes.reshape(values.shape))
    if writer == "gpt-oss":
        tensors = {"mlp.experts.up_proj_blocks": raw.reshape(2, 16, -1, 16), "mlp.experts.up_proj_scales": stored.astype("u1")}
        return Made(tensors, {"mlp.experts.up_proj": expected.swapaxes(1, 2)}, "MXFP4", {"quant_method": "mxfp4"})
    if writer == "deepseek":
        return Made({WEIGHT: raw.view(np.int8), f"{NAME}.scale": e8m0(stored)}, {WEIGHT: expected}, "MXFP4")
    tensors = {f"{WEIGHT}_packed": raw, f"{WEIGHT}_scale": stored.astype("u1")}
    return Made(tensors, {WEIGHT: expected}, "MXFP4", {"quant_method": "compressed-tensors"})


def fp8(scales: str, suffix: str = "_scale") -> Made:
    """One scale for the tensor, for each row, or for each 128 x 128 block with a part of a block at both edges."""
    values = weights(160, 200) if scales == "block" else weights()
    rows, columns = {"tensor": values.shape, "row": (1, values.shape[1]), "block": (128, 128)}[scales]
    starts = np.arange(0, values.shape[0], rows), np.arange(0, values.shape[1], columns)
    largest = np.maximum.reduceat(np.maximum.reduceat(np.abs(values), starts[0], 0), starts[1], 1)
    factors = (largest / 448).astype(np.float32)
    spread = np.repeat(np.repeat(factors, rows, 0), columns, 1)[: values.shape[0], : values.shape[1]]
    codes = (values / spread).astype(ml_dtypes.float8_e4m3fn)
    stored = factors.reshape(()) if scales == "tensor" else factors
    tensors = {WEIGHT: f8(codes), f"{WEIGHT if suffix[0] == '_' else NAME}{suffix}": stored}
    config = {"quant_method": "fp8", "weight_block_size": [128, 128]} if scales == "block" else {"quant_method": "fbgemm_fp8"}
    expected = codes.astype(np.float64) * spread
    return Made(tensors, {WEIGHT: expected}, "F8_E4M3_SCALED", config if scales != "tensor" else None)


def mxfp8() -> Made:
    exponents, scaled = _mx(weights(), 8)
    codes = scaled.astype(ml_dtypes.float8_e4m3fn)
    tensors = {WEIGHT: f8(codes.reshape(ROWS, COLUMNS)), f"{WEIGHT}_scale": (exponents + 127).astype(np.uint8)}
    expected = restored(codes.astype(np.float64), np.exp2(exponents), 0 * exponents)
    return Made(tensors, {WEIGHT: expected}, "MXFP8", {"quant_method": "compressed-tensors"})


def int8(writer: str) -> Made:
    values = weights()
    largest = np.abs(values).max(1)
    codes = np.rint(values * 127 / largest[:, None]).astype(np.int8)
    if writer == "bitsandbytes":
        tensors = {WEIGHT: codes, f"{NAME}.SCB": largest, f"{NAME}.weight_format": np.zeros((), np.uint8)}
        config, encoding, factors = {"quant_method": "bitsandbytes", "load_in_8bit": True}, "BNB_I8", largest / np.float64(127)
    else:
        scales = (largest / 127).astype(np.float32)
        tensors = {WEIGHT: codes, f"{WEIGHT}_scale": scales[:, None]}
        config, encoding, factors = {"quant_method": "compressed-tensors", "format": "int-quantized"}, "I8_SCALED", scales
    return Made(tensors, {WEIGHT: codes * np.asarray(factors, np.float64)[:, None]}, encoding, config)


def bitsandbytes(kind: str, nested: bool = False) -> Made:
    """Blocks of 64; with `nested` their absmax is quantized itself, in blocks of 256 of a table of 256 values."""
    table = NF4 if kind == "nf4" else np.concatenate([FP4, -FP4])
    blocks = weights().reshape(-1, 64)
    absmax = np.abs(blocks).max(1)
    state = {"quant_type": kind, "blocksize": 64, "dtype": "float32", "shape": [ROWS, COLUMNS]}
    tensors: dict[str, Any] = {}
    factors = absmax.astype(np.float64)
    if nested:
        offset, values = float(absmax.mean()), np.linspace(-1, 1, 256).astype(np.float32)
        outer = np.abs(absmax - offset).max().reshape(1)
        places = nearest((absmax - offset) / outer, values)
        factors = values[places].astype(np.float64) * outer + offset
        tensors = {f"{WEIGHT}.nested_absmax": outer, f"{WEIGHT}.nested_quant_map": values}
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
    codes = nearest(blocks / factors[:, None], table).reshape(-1)
    tensors |= {
        WEIGHT: (codes[::2] << 4 | codes[1::2]).astype(np.uint8)[:, None],
        f"{WEIGHT}.absmax": places.astype(np.uint8) if nested else absmax,
        f"{WEIGHT}.quant_map": table,
        f"{WEIGHT}.quant_state.bitsandbytes__{kind}": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }
    expected = table[codes].astype(np.float64) * np.repeat(factors, 64)
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    return Made(tensors, {WEIGHT: expected.reshape(ROWS, COLUMNS)}, f"BNB_{kind.upper()}", config)


def mlx(bits: int) -> Made:
    groups = grouped(weights(), 64)
    biases = groups.min(-1).astype(np.float16)
    scales = ((groups.max(-1) - biases) / ((1 << bits) - 1)).astype(np.float16)
    shifted = groups - biases[..., None].astype(np.float32)
    codes = np.clip(np.rint(shifted / scales[..., None].astype(np.float32)), 0, (1 << bits) - 1).astype(int)
    words = pack_columns(codes.reshape(ROWS, COLUMNS), bits).view(np.uint32)
    tensors = {WEIGHT: words, f"{NAME}.scales": scales, f"{NAME}.biases": biases}
    expected = codes * scales[..., None].astype(np.float64) + biases[..., None].astype(np.float64)
    config = {"group_size": 64, "bits": bits}
    return Made(tensors, {WEIGHT: expected.reshape(ROWS, COLUMNS)}, f"MLX_I{bits}", config, key="quantization")


def hqq(bits: int, axis: int = 1) -> Made:
    """Codes of the matrix of groups, cut into as many parts as an item holds, the first part in the highest bits."""
    values = weights().reshape(-1, GROUP) if axis == 1 else weights().reshape(GROUP, -1)
    codes, scales, zeros = asymmetric(values if axis == 1 else values.T, bits)
    scales, zeros = scales.astype(np.float32), zeros.astype(np.float32)
    expected = restored(codes, scales, zeros, codes.shape)
    codes, expected = (codes, expected) if axis == 1 else (codes.T, expected.T)
    parts = 8 // bits
    pieces = np.split(codes, parts)
    stored = sum(piece << (8 - bits * (place + 1)) for place, piece in enumerate(pieces)).astype(np.uint8)
    texts = {"packing": f"{bits}bit_u8", "compute_dtype": "torch.float32"}
    numbers = {"nbits": bits, "group_size": GROUP, "axis": axis, "quant_scale": 0, "quant_zero": 0}
    plane = (-1, 1) if axis == 1 else (1, -1)
    tensors = {
        f"{NAME}.shape": np.array([ROWS, COLUMNS]),
        **{f"{NAME}.{key}": np.array(number) for key, number in numbers.items()},
        f"{NAME}.scale": scales.reshape(plane),
        f"{NAME}.zero": zeros.reshape(plane),
        f"{NAME}.W_q": stored,
        **{f"{NAME}.{key}": np.frombuffer(text.encode(), np.uint8) for key, text in texts.items()},
    }
    return Made(tensors, {WEIGHT: expected.reshape(ROWS, COLUMNS)}, f"HQQ_I{bits}", {"quant_method": "hqq"})


def torchao(kind: str) -> Made:
    values = weights()
    largest = np.abs(values).max(1)
    if kind == "Float8Tensor":
        scales = (largest / 448).astype(np.float32)[:, None]
        codes = (values / scales).astype(ml_dtypes.float8_e4m3fn)
        parts, encoding = {"qdata": f8(codes), "scale": scales}, "F8_E4M3_SCALED"
        expected = codes.astype(np.float64) * scales
    elif kind == "Int8Tensor":
        scales = (largest / 127).astype(np.float32)[:, None]
        codes = np.rint(values / scales).astype(np.int8)
        parts, encoding, expected = {"qdata": codes, "scale": scales}, "I8_SCALED", codes * scales.astype(np.float64)
    else:  # W = q * scale + zero, scale and zero [groups, out], q from -8 to 7
        groups = grouped(values)
        scales = ((groups.max(-1) - groups.min(-1)) / 15).astype(np.float32)
        zeros = (groups.min(-1) + 8 * scales).astype(np.float32)
        codes = np.clip(np.rint((groups - zeros[..., None]) / scales[..., None]), -8, 7).astype(int)
        turned = {"scale": np.ascontiguousarray(scales.T), "zero_point": np.ascontiguousarray(zeros.T)}
        parts, encoding = {"qdata": nibbles(codes.reshape(values.shape) & 15), **turned}, "I4_SCALED"
        expected = (codes * scales[..., None].astype(np.float64) + zeros[..., None]).reshape(values.shape)
    block = [1, GROUP if kind == "Int4Tensor" else COLUMNS]
    told = {"_type": kind, "_data": {"block_size": block}, "_tensor_data_names": list(parts)}
    metadata = {WEIGHT: json.dumps(told), "tensor_names": json.dumps([WEIGHT])}
    return Made({f"{NAME}._weight_{key}": part for key, part in parts.items()}, {WEIGHT: expected}, encoding, None, metadata)


def opaque(*names: str) -> Made:
    return Made({f"{NAME}.{name}": np.arange(256, dtype=np.int16).reshape(16, 16) for name in names}, {})


LAYOUTS: dict[str, Layout] = {
    "gptq-4": Layout("gptq", partial(gptq, 4)),
    "gptq-3-act-order": Layout("gptq", partial(gptq, 3, "gptq_v2", True)),
    "gptq-8": Layout("gptq", partial(gptq, 8)),
    "gptq-2": Layout("gptq", partial(gptq, 2, "gptq_v2")),
    "awq-gemm": Layout("awq", awq_gemm),
    "awq-gemv": Layout("awq", awq_gemv),
    "packed-4": Layout("packed", partial(packed, 4)),
    "packed-4-zeros": Layout("packed", partial(packed, 4, True)),
    "packed-3-padded": Layout("packed", partial(packed, 3, True, False)),
    "nvfp4-compressed-tensors": Layout("fp4", partial(nvfp4, "compressed-tensors")),
    "nvfp4-modelopt": Layout("fp4", partial(nvfp4, "modelopt")),
    "mxfp4-compressed-tensors": Layout("fp4", partial(mxfp4, "compressed-tensors")),
    "mxfp4-gpt-oss": Layout("fp4", partial(mxfp4, "gpt-oss")),
    "mxfp4-deepseek": Layout("fp4", partial(mxfp4, "deepseek")),
    "fp8-blocks": Layout("fp8", partial(fp8, "block", "_scale_inv")),
    "fp8-rows": Layout("fp8", partial(fp8, "row")),
    "fp8-tensor": Layout("fp8", partial(fp8, "tensor", ".scale_weight")),
    "mxfp8": Layout("fp8", mxfp8),
    "int8-compressed-tensors": Layout("int8", partial(int8, "compressed-tensors")),
    "int8-bitsandbytes": Layout("int8", partial(int8, "bitsandbytes")),
    "nf4": Layout("bitsandbytes", partial(bitsandbytes, "nf4")),
    "nf4-nested": Layout("bitsandbytes", partial(bitsandbytes, "nf4", True)),
    "fp4": Layout("bitsandbytes", partial(bitsandbytes, "fp4")),
    "mlx-4": Layout("mlx", partial(mlx, 4)),
    "mlx-3": Layout("mlx", partial(mlx, 3)),
    "hqq-4": Layout("hqq", partial(hqq, 4)),
    "hqq-2-columns": Layout("hqq", partial(hqq, 2, 0)),
    "torchao-float8": Layout("torchao", partial(torchao, "Float8Tensor")),
    "torchao-int8": Layout("torchao", partial(torchao, "Int8Tensor")),
    "torchao-int4": Layout("torchao", partial(torchao, "Int4Tensor")),
    "exl2": Layout("opaque", partial(opaque, "q_weight", "q_groups", "q_scale", "q_invperm")),
    "aqlm": Layout("opaque", partial(opaque, "codes", "codebooks", "scales")),
}
