"""What the rebuild functions of torch describe, as records: storages, tensors on them, wrappers around tensors.

Arguments: `torch/_utils.py` and `torch/_tensor.py`. Strides and offsets count elements of the storage.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from diffai_stream.formats.inert import element_count
from diffai_stream.formats.pickled.values import Blob, Broken, Global, Instance

STORAGES = {
    **{"FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16"},
    **{"LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8"},
    **{"BoolStorage": "bool", "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128"},
    **{"QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32"},
    **{"QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4", "UntypedStorage": "untyped", "_UntypedStorage": "untyped"},
}
"""Storage class -> dtype of its elements; an untyped one counts bytes and the tensor says the dtype."""

ENCODINGS_OF = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "complex64": "C64", "complex128": "C128"},
    **{f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{"bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0"},
    **{"float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "float4_e2m1fn_x2": "F4"},
    **{"qint8": "I8", "quint8": "U8", "qint32": "I32", "quint4x2": "U8", "quint2x4": "U8"},
}
"""dtype -> encoding of the stored codes."""

DTYPES = {*STORAGES.values(), *ENCODINGS_OF, "complex32", "half", "float", "double", "long", "int", "short"}
QUANTIZED = ("qint8", "quint8", "qint32", "quint4x2", "quint2x4")


class Storage(NamedTuple):
    """A storage as a pickle refers to it: `numel` elements of `dtype`; `first` is where a view of another storage begins."""

    key: str
    dtype: str
    numel: int
    first: int = 0


NESTED = "nested"


def nested_storage(data: Any, *_: Any) -> Storage | Broken:
    """`torch.storage._load_from_bytes(bytes)`, how plain pickles hold a storage: `numel` bytes from `first` on."""
    if not isinstance(data, Blob) or data.offset < 0:
        return Broken("its storage was written as text (protocol 2 or older); save it with torch.save")
    return Storage(f"at {data.offset}", NESTED, data.nbytes, data.offset)


class Quantizer(NamedTuple):
    """How codes become numbers: one scale and zero point, or tensors of them along an axis."""

    scale: Any
    zero_point: Any
    axis: int | None = None


class Tensor(NamedTuple):
    """A tensor on a storage, before anything is read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    flipped: str = ""  # "conj" or "neg": the bytes are the conjugate or the negative of the values
    quantizer: Quantizer | None = None


class Wrapper:
    """A tensor subclass without data of its own; the tensors it wraps are attributes of its state."""

    __slots__ = ("dtype", "kind", "shape", "state")

    def __init__(self, kind: str, shape: tuple[int, ...], dtype: str, state: object = None) -> None:
        self.kind, self.shape, self.dtype, self.state = kind, shape, dtype, state


def tensor_v2(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor | Broken:
    """`_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata)`, and v1 with four arguments."""
    metadata = rest[2] if len(rest) > 2 else None
    return _tensor(storage, offset, shape, strides, None, metadata)


def tensor_v3(storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any) -> Any:
    """`_rebuild_tensor_v3`: as v2, with the dtype apart from the storage."""
    return _tensor(storage, offset, shape, strides, dtype, rest[0] if rest else None)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any, metadata: Any) -> Tensor | Broken:
    if not isinstance(storage, Storage):
        return storage if isinstance(storage, Broken) else Broken("it has no storage that can be told")
    if type(offset) is not int or offset < 0:
        raise ValueError(f"storage offset {str(offset)[:40]!r}")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise ValueError("size and stride are no tuples of one length")
    element_count(shape)
    element_count(tuple(stride for stride in strides if stride != 0))
    flags = [flag for flag in ("conj", "neg") if isinstance(metadata, dict) and metadata.get(flag) is True]
    if len(flags) > 1:
        return Broken("it is both conjugated and negated, which is not supported")
    kind = storage.dtype if dtype is None else dtype_name(dtype)
    first = 0 if storage.dtype == NESTED else storage.first
    return Tensor(storage, first + offset, shape, strides, kind, "".join(flags))


def dtype_name(dtype: Any) -> str:
    """The name of a `torch.<dtype>` global. Raises ValueError for anything else."""
    if isinstance(dtype, Global) and dtype.module == "torch" and dtype.name in DTYPES:
        return dtype.name
    raise ValueError("a dtype that is none of torch")


def qtensor(storage: Any, offset: Any, shape: Any, strides: Any, parameters: Any, *_: Any) -> Tensor | Broken:
    """`_rebuild_qtensor`: parameters are (scheme, scale, zero point) or (scheme, scales, zero points, axis)."""
    found = _tensor(storage, offset, shape, strides, None, None)
    if isinstance(found, Broken):
        return found
    if not isinstance(parameters, tuple) or len(parameters) not in (3, 4):
        raise ValueError("quantizer parameters of an unknown kind")
    return found._replace(quantizer=Quantizer(*parameters[1:]))


def first_of(data: Any, *_: Any) -> Any:
    """`_rebuild_parameter` and its like: what they wrap is their first argument."""
    return data


def from_type(function: Any, kind: Any, args: Any, state: Any) -> Any:
    """`_rebuild_from_type_v2(function, type, args, state)`: a subclass or a tensor with attributes."""
    made = function.call(*args) if isinstance(function, Global) and function.call and isinstance(args, tuple) else None
    if made is None:
        return Broken("a tensor subclass with a way of its own to be rebuilt")
    if isinstance(made, Wrapper):
        made.state = state
    return made


def wrapper(kind: Any, dtype: Any, shape: Any, *_: Any) -> Wrapper:
    """`_rebuild_wrapper_subclass(class, dtype, size, ...)`."""
    if not isinstance(shape, tuple):
        raise ValueError("a size that is no tuple")
    element_count(shape)
    return Wrapper(kind.path if isinstance(kind, Global) else "?", shape, dtype_name(dtype))


def sparse(layout: Any, *_: Any) -> Broken:
    """`_rebuild_sparse_tensor(layout, data)`."""
    args = layout.args if isinstance(layout, Instance) and isinstance(layout.args, tuple) else ()
    name = args[0][:40] if args and isinstance(args[0], str) else "sparse"
    return Broken(f"a sparse tensor ({name}) is not compared; save it with to_dense()")


def nested(*_: Any) -> Broken:
    """`_rebuild_nested_tensor`."""
    return Broken("a nested (ragged) tensor is not compared; save its parts with unbind()")


def meta(*_: Any) -> Broken:
    """`_rebuild_meta_tensor_no_storage`."""
    return Broken("a tensor on the meta device holds no data")


def size_of(*args: Any) -> tuple[Any, ...]:
    """`torch.Size(items)`."""
    return args[0] if args and isinstance(args[0], tuple) else tuple(args[0]) if args and isinstance(args[0], list) else ()


def storage_of(identifier: Any) -> Any:
    """The storage of a persistent id ("storage", type, key, location, numel, view); views have (key, offset, size)."""
    if not isinstance(identifier, tuple) or not identifier:
        return Broken("a reference of an unknown kind to something outside of the pickle")
    if identifier[0] == "module" and len(identifier) > 1:
        return identifier[1]  # a class with its source text beside it, in old files
    if identifier[0] != "storage" or len(identifier) not in (5, 6):
        return Broken("a reference of an unknown kind to something outside of the pickle")
    kind, key, numel = identifier[1], identifier[2], identifier[4]
    dtype = STORAGES.get(kind.name) if isinstance(kind, Global) and kind.allowed else None
    if dtype is None:
        return Broken("its storage is of a class that is not known")
    if not isinstance(key, str) or type(numel) is not int or numel < 0:
        return Broken("its storage has no key or no size that makes sense")
    view = identifier[5] if len(identifier) == 6 else None
    if view is None:
        return Storage(key, dtype, numel)
    if not (isinstance(view, tuple) and len(view) == 3 and type(view[1]) is int and view[1] >= 0):
        return Broken("its storage is a view of another one in a way that makes no sense")
    return Storage(key, dtype, numel, view[1])
