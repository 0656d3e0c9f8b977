"""NumPy arrays and scalars as pickles describe them, and joblib's way of writing an array behind its description.

Layouts: `ndarray.__reduce__` and `__setstate__` (version, shape, dtype, fortran order, data), `numpy._core.numeric._frombuffer`
of protocol 5, and `joblib/numpy_pickle.py`: behind a NumpyArrayWrapper follow its bytes, since joblib 1.2 after one byte of
padding length and the padding itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from diffai_stream.formats.inert import element_count
from diffai_stream.formats.pickled.values import Blob, Broken, Instance, Python2Text

if TYPE_CHECKING:
    from diffai_stream.formats.pickled.machine import Machine

_STRUCT_CODES = {"f2": "e", "f4": "f", "f8": "d", "b1": "?"} | {
    f"{kind}{size}": code
    for kind, codes in (("i", "bhiq"), ("u", "BHIQ"))
    for size, code in zip((1, 2, 4, 8), codes, strict=True)
}

_NUMBER_NBYTES = 16


class Field(NamedTuple):
    """A field of a structured dtype."""

    name: str
    dtype: Dtype
    offset: int


class Dtype:
    """A numpy dtype: its code (`f8`, `O8`, `V64`), its byte order, and the fields of a structured one."""

    __slots__ = ("code", "fields", "itemsize", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code.lstrip("<>|="), code[0] if code[:1] in ("<", ">", "|", "=") else "|"
        self.fields: tuple[Field, ...] = ()
        self.itemsize = int(self.code[1:]) if self.code[1:].isdecimal() and len(self.code) < 12 else 0

    def set_state(self, state: Any) -> None:
        """Take (version, byte order, subarray, names, fields, itemsize, alignment, flags)."""
        if not isinstance(state, tuple) or len(state) < 5:
            return
        self.order = state[1] if isinstance(state[1], str) else "|"
        names, fields = state[3], state[4]
        if len(state) > 5 and type(state[5]) is int and state[5] > 0:
            self.itemsize = state[5]
        if isinstance(names, tuple) and isinstance(fields, dict) and len(names) <= 4096:
            self.fields = tuple(_fields(names, fields))

    @property
    def text(self) -> str:
        """As numpy writes it, byte order first."""
        return self.order.replace("=", "<") + self.code


def _fields(names: tuple[Any, ...], fields: dict[Any, Any]) -> list[Field]:
    found = []
    for name in names:
        place = fields.get(name) if isinstance(name, str) else None
        if isinstance(place, tuple) and len(place) >= 2 and isinstance(place[0], Dtype) and type(place[1]) is int:
            found.append(Field(name, place[0], place[1]))
    return found


class Array:
    """An array: `data` is where its bytes lie, a list of objects, or None while it is not known."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(self, shape: Any = (), dtype: Any = None, fortran: bool = False, data: Any = None) -> None:
        self.shape, self.dtype, self.fortran, self.data = shape, dtype, fortran, data

    def set_state(self, state: Any) -> None:
        """Take the state of `ndarray.__setstate__`, and nothing that is not one."""
        if isinstance(state, tuple) and len(state) == 5:
            state = state[1:]
        if isinstance(state, tuple) and len(state) == 4 and isinstance(state[0], tuple):
            self.shape, self.dtype, self.fortran, self.data = state[0], state[1], bool(state[2]), _data(state[3])

    @property
    def is_objects(self) -> bool:
        """Whether its elements are Python objects."""
        return isinstance(self.dtype, Dtype) and self.dtype.code.startswith("O")


def _data(data: Any) -> Any:
    return data.blob if isinstance(data, Python2Text) else data


def _dtype(code: Any, *_: Any) -> Dtype:
    if not isinstance(code, str) or len(code) > 64:
        raise ValueError("a dtype that is no text")
    return Dtype(code)


def _array(*_: Any) -> Array:
    return Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Array:
    return Array(shape, dtype, order == "F", _data(data))


def _scalar(dtype: Any, data: Any = None) -> Any:
    """A number of numpy as one of Python."""
    blob = _data(data)
    code = _STRUCT_CODES.get(dtype.code) if isinstance(dtype, Dtype) else None
    if code is None or not isinstance(blob, Blob) or len(blob.head) != struct.calcsize(code):
        return None  # text, a date: no setting that can be told
    return struct.unpack((">" if dtype.order == ">" else "<") + code, blob.head)[0]


def _encoded(text: Any, *_: Any) -> Any:
    """`_codecs.encode(text, "latin1")`: bytes written as text, whose place is of no use; those of a number are kept."""
    if not isinstance(text, str):
        return Broken("bytes written in a way that is not known")
    return Blob(-1, len(text), text.encode("latin-1", "replace") if len(text) <= _NUMBER_NBYTES else b"")


def joblib_array(machine: Machine, wrapper: Instance) -> Any:
    """The array whose bytes follow its wrapper in the stream; they are skipped. Called when the wrapper has its state."""
    state = wrapper.attributes()
    dtype, shape = state.get("dtype"), state.get("shape")
    if not isinstance(dtype, Dtype) or not isinstance(shape, tuple):
        raise ValueError("a wrapped array without dtype or shape")
    found = Array(shape, dtype, state.get("order") == "F")
    if found.is_objects:
        found.data = _nested(machine)
        return found
    nbytes = element_count(shape) * dtype.itemsize
    if state.get("numpy_array_alignment_bytes") is not None:
        machine.blob(machine.take(1)[0])
    found.data = machine.blob(nbytes)
    return found


def _nested(machine: Machine) -> Any:
    """Objects are a pickle of their own behind the wrapper: an array, which has them as a list."""
    inner = machine.inner()
    found = inner.run()
    machine.resume(inner)
    return found.data if isinstance(found, Array) else None


CALLS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _dtype,
    "numpy.ndarray": _array,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": _encoded,
}
"""The functions of numpy that rebuild arrays, by path."""

BUILT: dict[str, Callable[..., Any]] = {
    "joblib.numpy_pickle.NumpyArrayWrapper": joblib_array,
    "sklearn.externals.joblib.numpy_pickle.NumpyArrayWrapper": joblib_array,
}
"""What becomes of an instance of these when it has its state."""
