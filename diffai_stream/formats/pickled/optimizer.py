"""Optimizer state by the names of the parameters it belongs to.

`torch.optim.Optimizer.state_dict()` gives `state` by number and the numbers of each group in `param_groups`, in the order in
which the parameters were handed over. That is nearly always the order of the state dict, often with those that decay before
those that do not; every guess is held against the shapes, and where none fits the numbers stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffai_stream.formats.pickled.torch_values import Tensor
from diffai_stream.formats.pickled.tree import Leaf

Shapes = Mapping[str, tuple[int, ...]]
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_NO_DECAY = ("bias", "norm", "ln_", "bn")


def is_parameter(name: str, tensor: Any) -> bool:
    """Whether an entry of a state dict is trained: buffers and integers are not."""
    return isinstance(tensor, Tensor) and name.rpartition(".")[2] not in _BUFFERS and "int" not in tensor.dtype


def parameter_names(state: object, groups: object, parameters: Shapes) -> dict[str, str]:
    """Number (as text) -> parameter name, empty when no order of the parameters fits the shapes of their state."""
    numbers = list(_numbers(groups))
    if not isinstance(state, dict) or not numbers or len(numbers) > 10_000_000:
        return {}
    named = _given_names(groups)
    orders = [named] if named else list(_orders(parameters))
    for order in orders:
        names = dict(zip(numbers, order, strict=False))
        if len(order) == len(numbers) and _fits(state, names, parameters):
            return {str(number): name for number, name in names.items()}
    return {}


def _numbers(groups: object) -> Iterator[int]:
    for group in groups if isinstance(groups, list) else ():
        numbers = group.get("params") if isinstance(group, dict) else None
        for number in numbers if isinstance(numbers, list) else ():
            if type(number) is int:
                yield number


def _given_names(groups: object) -> list[str]:
    """The names that newer optimizers keep beside the numbers."""
    found: list[str] = []
    for group in groups if isinstance(groups, list) else ():
        names = group.get("param_names") if isinstance(group, dict) else None
        if isinstance(names, list):
            found += [name for name in names if isinstance(name, str)]
    return found


def _orders(parameters: Shapes) -> Iterator[Sequence[str]]:
    """Orders in which parameters are commonly handed over: as they are, decaying ones first, decaying ones last."""
    names = list(parameters)
    yield names
    for decays in (_is_matrix(parameters), _is_no_bias_or_norm):
        first, last = [name for name in names if decays(name)], [name for name in names if not decays(name)]
        yield [*first, *last]
        yield [*last, *first]


def _is_matrix(parameters: Shapes) -> Any:
    return lambda name: len(parameters[name]) >= 2


def _is_no_bias_or_norm(name: str) -> bool:
    return not any(mark in name.lower() for mark in _NO_DECAY)


def _fits(state: Mapping[Any, Any], names: Mapping[int, str], parameters: Shapes) -> bool:
    """Whether all tensors of state, but single numbers, have the shapes of their parameters; at least one must."""
    matched = 0
    for number, slots in state.items():
        shape = parameters.get(names.get(number, ""))
        for value in slots.values() if isinstance(slots, dict) else ():
            if not isinstance(value, Tensor) or value.shape in ((), (1,)):
                continue
            if value.shape != shape:
                return False
            matched += 1
    return matched > 0


def renamed(leaves: Sequence[Leaf], names: Mapping[str, str]) -> list[Leaf]:
    """Leaves of one optimizer, paths from its top, with the numbers below `state` replaced by names."""
    return [
        leaf._replace(path=("state", names[leaf.path[1]], *leaf.path[2:]))
        if len(leaf.path) > 2 and leaf.path[0] == "state" and leaf.path[1] in names
        else leaf
        for leaf in leaves
    ]
