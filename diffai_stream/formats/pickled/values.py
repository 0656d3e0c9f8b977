"""What a pickle's instructions make here: plain Python values, and inert stand-ins for all the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Blob(NamedTuple):
    """Bytes that were left where they are: `nbytes` from `offset` on in the file; `head` has them when they are few."""

    offset: int
    nbytes: int
    head: bytes = b""


class Python2Text(str):
    """A byte string of Python 2, read as text; it may be an array's data, so it knows where it lies."""

    __slots__ = ("blob",)
    blob: Blob


class Key:
    """A mapping key that is neither text nor a small number: compared by identity, so that hashing it costs nothing."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Broken:
    """A tensor that was described in a way that makes no sense; `reason` says which."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Global:
    """A name that a pickle asks for. `call` makes a value of arguments, `built` of a state; neither is ever the real thing."""

    __slots__ = ("allowed", "built", "call", "module", "name")

    def __init__(
        self,
        module: str,
        name: str,
        allowed: bool = False,
        call: Callable[..., Any] | None = None,
        built: Callable[..., Any] | None = None,
    ) -> None:
        self.module, self.name, self.allowed, self.call, self.built = module, name, allowed, call, built

    @property
    def path(self) -> str:
        """Module and name with a dot between."""
        return f"{self.module}.{self.name}"


class Instance:
    """What calling an unknown name gives: its arguments and, later, its state and what was put into it."""

    __slots__ = ("args", "items", "pairs", "state", "type")

    def __init__(self, kind: object, args: object) -> None:
        self.type, self.args = kind, args
        self.state: Any = None
        self.items: list[Any] | None = None  # made on use: a pickle can hold millions of instances
        self.pairs: dict[Any, Any] | None = None

    @property
    def path(self) -> str:
        """The name that was called, empty when that was no name."""
        return self.type.path if isinstance(self.type, Global) else ""

    def attributes(self) -> dict[str, Any]:
        """The state as attributes by name; a state of two parts is that of a class with slots."""
        states = self.state if isinstance(self.state, tuple) and len(self.state) == 2 else (self.state,)
        found: dict[str, Any] = {}
        for state in states:
            if isinstance(state, dict):
                found |= {key: value for key, value in state.items() if isinstance(key, str)}
        return found
