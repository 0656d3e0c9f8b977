"""One function an instruction of pickles, and the table of them by the byte they are written as (`Lib/pickletools.py`)."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diffai_stream.formats.pickled.machine import HEAD_NBYTES, MAX_INTEGER_NBYTES, InstructionError, Stopped, items_in
from diffai_stream.formats.pickled.values import Global, Instance, Key, Python2Text

if TYPE_CHECKING:
    from diffai_stream.formats.pickled.machine import Machine

Handler = Callable[["Machine"], None]
_SMALL = 1 << 60  # the hash of larger integers can be chosen, which makes a dict slow
_U8, _U16, _I32, _U32, _U64 = (struct.Struct(code).unpack_from for code in ("<B", "<H", "<i", "<I", "<Q"))


def key_of(value: object) -> Any:
    """A key that is cheap to hash: the value itself when it is text, a number or None, else a stand-in by identity."""
    if type(value) is int:
        return value if -_SMALL < value < _SMALL else Key(value)
    if value is None or isinstance(value, str | float | bool | Instance | Global):
        return value
    return Key(value)


def _set_pairs(machine: Machine, target: object, items: list[Any]) -> None:
    if isinstance(target, Instance):
        target.pairs = {} if target.pairs is None else target.pairs
    pairs = target.pairs if isinstance(target, Instance) else target
    if not isinstance(pairs, dict):
        return
    if len(items) % 2:
        raise InstructionError("a mapping gets a key without a value")
    machine.charge(len(items))
    for place in range(0, len(items), 2):
        pairs[key_of(items[place])] = items[place + 1]


def _append(machine: Machine, target: object, items: list[Any]) -> None:
    if isinstance(target, Instance):
        target.items = [] if target.items is None else target.items
    found = target.items if isinstance(target, Instance) else target
    if isinstance(found, list):
        machine.charge(len(items))
        found.extend(items)


def _proto(m: Machine) -> None:
    version = m.data[m.at]
    m.at += 1
    if version > 5:
        raise InstructionError(f"protocol {version} is not known (0 to 5 are)")


def _frame(m: Machine) -> None:
    m.number(_U64, 8)


def _stop(m: Machine) -> None:
    if not m.stack:
        raise InstructionError("it ends without a value")
    raise Stopped


def _mark(m: Machine) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _pop_mark(m: Machine) -> None:
    m.pop_mark()


def _dup(m: Machine) -> None:
    m.stack.append(m.stack[-1])


def _push(value: object) -> Handler:
    return lambda m: m.stack.append(value)


def _push_new(kind: Callable[[], object]) -> Handler:
    def handler(m: Machine) -> None:
        m.budget -= 1
        m.stack.append(kind())

    return handler


def _push_number(code: str, nbytes: int) -> Handler:
    unpack = struct.Struct(code).unpack_from

    def handler(m: Machine) -> None:
        m.stack.append(unpack(m.data, m.at)[0])
        m.at += nbytes

    return handler


def _long(size: int) -> Handler:
    def handler(m: Machine) -> None:
        nbytes = m.data[m.at] if size == 1 else _I32(m.data, m.at)[0]
        m.at += size
        if nbytes < 0:
            raise InstructionError("an integer of negative length")
        raw = m.take(nbytes) if nbytes <= MAX_INTEGER_NBYTES else None
        m.stack.append(int.from_bytes(raw, "little", signed=True) if raw is not None else m.blob(nbytes))

    return handler


def _text_integer(m: Machine) -> None:
    line = m.line().strip()
    if line in (b"00", b"01"):
        m.stack.append(line == b"01")
        return
    line = line.removesuffix(b"L")
    if len(line) > 2 * MAX_INTEGER_NBYTES:
        raise InstructionError("an integer of more digits than are plausible")
    m.stack.append(int(line))


def _text_float(m: Machine) -> None:
    m.stack.append(float(m.line()[:64]))


def _text_string(m: Machine) -> None:
    line = m.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
        raise InstructionError("a quoted string without its quotes")
    raw = codecs.escape_decode(line[1:-1])[0]
    m.charge(len(line) >> 6)
    m.stack.append(raw.decode("latin-1"))


def _text_unicode(m: Machine) -> None:
    line = m.line()
    m.charge(len(line) >> 6)
    m.stack.append(line.decode("raw-unicode-escape"))


def _unicode(unpack: Callable[..., Any], size: int) -> Handler:
    def handler(m: Machine) -> None:
        nbytes = unpack(m.data, m.at)[0]
        m.at += size
        m.stack.append(m.text(nbytes))

    return handler


def _bytes(unpack: Callable[..., Any], size: int) -> Handler:
    def handler(m: Machine) -> None:
        nbytes = unpack(m.data, m.at)[0]
        m.at += size
        m.stack.append(m.blob(nbytes))

    return handler


def _string(unpack: Callable[..., Any], size: int) -> Handler:
    """Byte strings of Python 2, which may be text or data."""

    def handler(m: Machine) -> None:
        nbytes = unpack(m.data, m.at)[0]
        m.at += size
        if nbytes < 0:
            raise InstructionError("a string of negative length")
        blob = m.blob(nbytes)
        if nbytes > HEAD_NBYTES:
            m.stack.append(blob)
            return
        text = Python2Text(blob.head.decode("utf-8", "replace"))
        text.blob = blob
        m.stack.append(text)

    return handler


def _tuple(m: Machine) -> None:
    items = tuple(m.pop_mark())  # first: it changes which list the stack is
    m.stack.append(items)


def _tuple_of(count: int) -> Handler:
    def handler(m: Machine) -> None:
        stack = m.stack
        if len(stack) < count:
            raise IndexError
        items = tuple(stack[-count:])
        del stack[-count:]
        stack.append(items)

    return handler


def _list(m: Machine) -> None:
    items = m.pop_mark()
    m.stack.append(items)


def _dict(m: Machine) -> None:
    items, found = m.pop_mark(), dict[Any, Any]()
    _set_pairs(m, found, items)
    m.stack.append(found)


def _append_one(m: Machine) -> None:
    value = m.stack.pop()
    _append(m, m.stack[-1], [value])


def _append_many(m: Machine) -> None:
    items = m.pop_mark()
    _append(m, m.stack[-1], items)


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _set_pairs(m, m.stack[-1], [key, value])


def _set_items(m: Machine) -> None:
    items = m.pop_mark()
    _set_pairs(m, m.stack[-1], items)


def _get(unpack: Callable[..., Any], size: int) -> Handler:
    def handler(m: Machine) -> None:
        number = unpack(m.data, m.at)[0]
        m.at += size
        m.stack.append(_remembered(m, number))

    return handler


def _remembered(m: Machine, number: int) -> object:
    try:
        return m.memo[number]
    except KeyError:
        raise InstructionError(f"it refers to value {number}, which it never stored") from None


def _put(unpack: Callable[..., Any], size: int) -> Handler:
    def handler(m: Machine) -> None:
        m.memo[unpack(m.data, m.at)[0]] = m.stack[-1]
        m.at += size

    return handler


def _text_get(m: Machine) -> None:
    m.stack.append(_remembered(m, int(m.line()[:20])))


def _text_put(m: Machine) -> None:
    m.memo[int(m.line()[:20])] = m.stack[-1]


def _memoize(m: Machine) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


def _global(m: Machine) -> None:
    module, name = m.line(), m.line()
    m.stack.append(m.look_up(module.decode("utf-8", "replace"), name.decode("utf-8", "replace")))


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.stack.append(m.look_up(module, name))


def _extension(unpack: Callable[..., Any], size: int) -> Handler:
    """Codes of a registry that only the writer's program has."""

    def handler(m: Machine) -> None:
        m.stack.append(m.look_up("copyreg", f"extension {unpack(m.data, m.at)[0]}"))
        m.at += size

    return handler


def _reduce(m: Machine) -> None:
    args, kind = m.stack.pop(), m.stack.pop()
    m.stack.append(m.call(kind, args))


def _new_object_ex(m: Machine) -> None:
    _, args, kind = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.stack.append(m.call(kind, args))


def _instance(m: Machine) -> None:
    module, name = m.line(), m.line()
    kind = m.look_up(module.decode("utf-8", "replace"), name.decode("utf-8", "replace"))
    args = tuple(m.pop_mark())
    m.stack.append(m.call(kind, args))


def _object(m: Machine) -> None:
    items = m.pop_mark()
    if not items:
        raise IndexError
    m.stack.append(m.call(items[0], tuple(items[1:])))


def _build(m: Machine) -> None:
    state, target = m.stack.pop(), m.stack[-1]
    if isinstance(target, Instance):
        target.state = state
        if isinstance(target.type, Global) and target.type.built is not None:
            m.charge(items_in((state,)))
            m.stack[-1] = target.type.built(m, target)
    elif hasattr(target, "set_state"):
        m.charge(items_in(state) if isinstance(state, tuple) else 0)
        target.set_state(state)


def _persistent(m: Machine) -> None:
    m.stack.append(m.persist(m.stack.pop()))


def _text_persistent(m: Machine) -> None:
    m.stack.append(m.persist(m.line().decode("utf-8", "replace")))


def _next_buffer(m: Machine) -> None:
    raise InstructionError("its data was written apart from it (out-of-band buffers of protocol 5)")


def _nothing(m: Machine) -> None:
    pass


def _unknown(m: Machine) -> None:
    raise InstructionError(f"there is no instruction {m.data[m.at - 1]:#04x}")


_TABLE: dict[bytes, Handler] = {
    b"\x80": _proto,
    b"\x95": _frame,
    b".": _stop,
    b"(": _mark,
    b"0": _pop,
    b"1": _pop_mark,
    b"2": _dup,
    b"N": _push(None),
    b"\x88": _push(True),
    b"\x89": _push(False),
    b")": _push(()),
    b"]": _push_new(list),
    b"}": _push_new(dict),
    b"\x8f": _push_new(list),
    b"J": _push_number("<i", 4),
    b"K": _push_number("<B", 1),
    b"M": _push_number("<H", 2),
    b"G": _push_number(">d", 8),
    b"\x8a": _long(1),
    b"\x8b": _long(4),
    b"I": _text_integer,
    b"L": _text_integer,
    b"F": _text_float,
    b"S": _text_string,
    b"V": _text_unicode,
    b"\x8c": _unicode(_U8, 1),
    b"X": _unicode(_U32, 4),
    b"\x8d": _unicode(_U64, 8),
    b"C": _bytes(_U8, 1),
    b"B": _bytes(_U32, 4),
    b"\x8e": _bytes(_U64, 8),
    b"\x96": _bytes(_U64, 8),
    b"U": _string(_U8, 1),
    b"T": _string(_I32, 4),
    b"t": _tuple,
    b"\x85": _tuple_of(1),
    b"\x86": _tuple_of(2),
    b"\x87": _tuple_of(3),
    b"l": _list,
    b"d": _dict,
    b"\x91": _list,
    b"a": _append_one,
    b"e": _append_many,
    b"\x90": _append_many,
    b"s": _set_item,
    b"u": _set_items,
    b"h": _get(_U8, 1),
    b"j": _get(_U32, 4),
    b"q": _put(_U8, 1),
    b"r": _put(_U32, 4),
    b"g": _text_get,
    b"p": _text_put,
    b"\x94": _memoize,
    b"c": _global,
    b"\x93": _stack_global,
    b"i": _instance,
    b"o": _object,
    b"R": _reduce,
    b"\x81": _reduce,
    b"\x92": _new_object_ex,
    b"b": _build,
    b"P": _text_persistent,
    b"Q": _persistent,
    b"\x82": _extension(_U8, 1),
    b"\x83": _extension(_U16, 2),
    b"\x84": _extension(_I32, 4),
    b"\x97": _next_buffer,
    b"\x98": _nothing,
}
HANDLERS: tuple[Handler, ...] = tuple(_TABLE.get(bytes([code]), _unknown) for code in range(256))
"""What each byte does, by its value."""
