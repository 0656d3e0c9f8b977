"""The names a pickle may ask for without a word: what they mean here, and which are known to be plain data.

A name that is on no list still does nothing. It is reported, because `torch.load` or `joblib.load` would import and call it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from diffai_stream.formats.inert import printable
from diffai_stream.formats.pickled import arrays
from diffai_stream.formats.pickled import torch_values as torch
from diffai_stream.formats.pickled.values import Global, Instance

MAX_TOLD = 100
_MAX_NAME = 200
_GETATTR = "builtins.getattr"
_ENUMERATION = "torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING"
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "torch.tensor": "torch._tensor"}


def _mapping(*args: Any) -> dict[Any, Any]:
    """An ordered dict, of the pairs that protocol 0 gives as a list."""
    pairs = args[0] if args and isinstance(args[0], list) else []
    two = (pair for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2)
    return {key: value for key, value in two if isinstance(key, str)}


def _new_mapping(*_: Any) -> dict[Any, Any]:
    return {}


def _items(*args: Any) -> Any:
    """A list, tuple or set of something: the items themselves, not copied."""
    return args[0] if args and isinstance(args[0], list | tuple) else []


def _with_source(meta: Any, *_: Any) -> Any:
    """An object that StyleGAN saves with the source of its class, which loading would run: only its state is taken."""
    found = Instance(None, ())
    found.state = meta.get("state") if isinstance(meta, dict) else None
    return found


def _reconstructed(kind: Any, *_: Any) -> Any:
    """`copyreg._reconstructor(class, base, state)`, of protocols 0 and 1."""
    return {} if isinstance(kind, Global) and kind.call in (_mapping, _new_mapping) else Instance(kind, ())


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "collections.Counter": _new_mapping,
    "collections.defaultdict": _new_mapping,
    "builtins.dict": _mapping,
    **dict.fromkeys(("builtins.list", "builtins.tuple", "builtins.set", "builtins.frozenset", "collections.deque"), _items),
    "copyreg._reconstructor": _reconstructed,
    "torch.Size": torch.size_of,
    "torch.storage._load_from_bytes": torch.nested_storage,
    "torch._utils._rebuild_tensor": torch.tensor_v2,
    "torch._utils._rebuild_tensor_v2": torch.tensor_v2,
    "torch._utils._rebuild_tensor_v3": torch.tensor_v3,
    "torch._utils._rebuild_parameter": torch.first_of,
    "torch._utils._rebuild_parameter_with_state": torch.first_of,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": torch.first_of,
    "torch._utils._rebuild_device_tensor_from_numpy": torch.first_of,
    "torch._utils._rebuild_xla_tensor": torch.first_of,
    "torch._utils._rebuild_qtensor": torch.qtensor,
    "torch._utils._rebuild_sparse_tensor": torch.sparse,
    "torch._utils._rebuild_nested_tensor": torch.nested,
    "torch._utils._rebuild_meta_tensor_no_storage": torch.meta,
    "torch._utils._rebuild_wrapper_subclass": torch.wrapper,
    "torch._tensor._rebuild_from_type_v2": torch.from_type,
    "torch._tensor._rebuild_from_type": torch.from_type,
    "torch.nn.parameter.Parameter": torch.first_of,
    **{f"torch.jit._pickle.{name}": torch.first_of for name in ("build_tensorlist", "build_intlist", "build_doublelist")},
    **{f"torch.jit._pickle.{name}": torch.first_of for name in ("build_boollist", "restore_type_tag", "build_tensor_from_id")},
    **arrays.CALLS,
}
_UNLISTED_CALLS: dict[str, Callable[..., Any]] = {"torch_utils.persistence._reconstruct_persistent_obj": _with_source}
_STORAGES = {f"{module}.{name}" for module in ("torch", "torch.cuda", "torch.storage") for name in torch.STORAGES}
_PLAIN = {
    *("builtins.bytearray", "builtins.bytes", "builtins.complex", "builtins.float", "builtins.int", "builtins.str"),
    *("builtins.bool", "builtins.slice", "builtins.range", "builtins.object", "argparse.Namespace", "types.SimpleNamespace"),
    *("datetime.datetime", "datetime.date", "datetime.timedelta", "datetime.timezone", "decimal.Decimal", "uuid.UUID"),
    *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath", "pathlib.Path"),
    *("pathlib._local.PosixPath", "pathlib._local.WindowsPath", "fractions.Fraction", "copyreg.__newobj__"),
    *("torch.device", "torch.Tensor", "torch._utils._rebuild_tensor", "torch.serialization._get_layout"),
    *("torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.per_channel_affine", "torch.per_channel_symmetric"),
    *("torch.per_channel_affine_float_qparams", "sklearn.tree._tree.Tree", "numpy.random._pickle.__randomstate_ctor"),
    *(f"numpy.random._pickle.__{kind}_ctor" for kind in ("generator", "bit_generator")),
    *("numpy.random._mt19937.MT19937", "numpy.random._pcg64.PCG64", "numpy.ma.core._mareconstruct"),
    *arrays.BUILT,
}
_CLASSES = re.compile(
    r"torch\.nn\.modules\.\w+\.[A-Z]\w*"  # the layers of torch, which a whole model is made of
    r"|torch\.(ao\.)?nn\.(intrinsic\.)?quantized\.modules\.\w+\.[A-Z]\w*"
    r"|torch\.optim\.(\w+\.)?[A-Z]\w*"
    r"|torch\.distributed\.checkpoint\.(metadata|filesystem|planner)\._?[A-Z]\w*"
    r"|torch\.distributed\.(tensor|_tensor)(\.\w+)*\.[A-Z]\w*|torch\.distributed\.device_mesh\.DeviceMesh"
    r"|torch\.[A-Z]\w+Tensor"
    r"|__torch__\.[\w.]+"  # names of a TorchScript archive, which are no Python
    r"|sklearn(\.\w+)+\.[A-Z]\w*"
    r"|scipy\.sparse(\.\w+)*\.[a-z]{3}_(matrix|array)"
    r"|numpy\.(bool_?|(u?int|float|complex)\d+|dtypes\.\w+DType)"
)


class Names:
    """Gives the stand-in of each name that a pickle asks for, and remembers those that are on no list."""

    def __init__(self) -> None:
        self.unlisted: dict[str, None] = {}
        self._members = self._other_attributes = 0

    def find(self, module: str, name: str) -> Global:
        """The stand-in of a name. Nothing is imported."""
        module = _OLD_MODULES.get(module, module)
        path = f"{module}.{name}"
        allowed = path in _CALLS or path in _PLAIN or path in _STORAGES or _is_dtype(module, name)
        if not allowed and not _CLASSES.fullmatch(path):
            if len(self.unlisted) < MAX_TOLD:
                self.unlisted[printable(path)[:_MAX_NAME]] = None
            return Global(module, name, False, self._attribute if path == _GETATTR else _UNLISTED_CALLS.get(path))
        return Global(module, name, True, _CALLS.get(path), arrays.BUILT.get(path))

    def told(self) -> tuple[str, ...]:
        """The names that are on no list, in order."""
        plain = {_GETATTR} if self._members and not self._other_attributes else set()
        return tuple(sorted(self.unlisted.keys() - plain))

    def _attribute(self, *args: Any) -> Instance:
        """`getattr(enumeration, name)`: CPython 3.11.0 to 3.11.3 pickle members of an enumeration so.

        Only for the one that checkpoints of torch.distributed hold is it nothing to report.
        """
        kind, name = args if len(args) == 2 else (None, None)
        if isinstance(kind, Global) and kind.path == _ENUMERATION and isinstance(name, str) and name.isupper():
            self._members += 1
        else:
            self._other_attributes += 1
        return Instance(kind, (name,))


def _is_dtype(module: str, name: str) -> bool:
    return module == "torch" and name in torch.DTYPES
