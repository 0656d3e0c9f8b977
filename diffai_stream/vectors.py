"""Explicit vectors for kernels: a fixed number of lanes, added in a fixed order on every processor.

The compiler's own vectorizer is not allowed to reorder float sums, and takes seconds to find out. Here a loop says what it
means: `load` some lanes, compute, `store` them or add them up. LLVM cuts a vector into registers of the processor at hand,
and the lanes give the same bits whatever their width. Only kernels use this module; nothing here runs in Python.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

I1, I32, I64, DOUBLE = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.DoubleType()


class Vector(types.Type):
    """`lanes` numbers of one scalar type; a mask is a vector of booleans."""

    def __init__(self, dtype: types.Type, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(f"vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(manager.lookup(vector.dtype).get_value_type(), vector.lanes))


def _is_float(vector: Vector) -> bool:
    return isinstance(vector.dtype, types.Float)


def _is_signed(vector: Vector) -> bool:
    return isinstance(vector.dtype, types.Integer) and vector.dtype.signed


def _scalar(context: Any, dtype: types.Type) -> ir.Type:
    return context.get_value_type(dtype)


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    """Every lane the same value."""
    empty = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(empty, value, I32(0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def _define(function: Callable[..., Any], result: Callable[[Vector], Vector], emit: Callable[..., Any]) -> None:
    """An operator between two vectors of one type, or a vector and a number, which stands in every lane."""

    @type_callable(function)
    def _(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            if isinstance(a, Vector) and (b == a or isinstance(b, types.Number)):
                return result(a)(a, b if b == a else a.dtype)
            return None

        return typer

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = signature.args[0]
        other = arguments[1] if signature.args[1] == vector else _splat(builder, arguments[1], vector.lanes)
        return emit(builder, vector, arguments[0], other)

    lower_builtin(function, Vector, Vector)(generate)
    lower_builtin(function, Vector, types.Number)(generate)


def _arithmetic(of_float: str, of_signed: str, of_unsigned: str = "") -> Callable[..., Any]:
    def emit(builder: Any, vector: Vector, a: Any, b: Any) -> Any:
        unsigned = of_unsigned or of_signed
        return getattr(builder, of_float if _is_float(vector) else of_signed if _is_signed(vector) else unsigned)(a, b)

    return emit


def _comparison(sign: str) -> Callable[..., Any]:
    """A mask; NaN is unequal to everything and in no order."""

    def emit(builder: Any, vector: Vector, a: Any, b: Any) -> Any:
        if _is_float(vector):
            return (builder.fcmp_unordered if sign == "!=" else builder.fcmp_ordered)(sign, a, b)
        return (builder.icmp_signed if _is_signed(vector) else builder.icmp_unsigned)(sign, a, b)

    return emit


def _same(vector: Vector) -> Vector:
    return vector


def _mask(vector: Vector) -> Vector:
    return Vector(types.boolean, vector.lanes)


for _function, _emit in (
    (operator.add, _arithmetic("fadd", "add")),
    (operator.sub, _arithmetic("fsub", "sub")),
    (operator.mul, _arithmetic("fmul", "mul")),
    (operator.and_, _arithmetic("", "and_")),
    (operator.or_, _arithmetic("", "or_")),
    (operator.xor, _arithmetic("", "xor")),
    (operator.lshift, _arithmetic("", "shl")),
    (operator.rshift, _arithmetic("", "ashr", "lshr")),
):
    _define(_function, _same, _emit)
    if (_inplace := getattr(operator, f"i{_function.__name__.rstrip('_')}", None)) is not None:
        _define(_inplace, _same, _emit)
for _function, _name in ((operator.eq, "=="), (operator.ne, "!="), (operator.lt, "<"), (operator.gt, ">"), (operator.le, "<=")):
    _define(_function, _mask, _comparison(_name))


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, pointee: ir.Type) -> Any:
    items = context.make_array(array_type)(context, builder, array)
    return builder.bitcast(builder.gep(items.data, [index]), pointee.as_pointer())


@intrinsic(prefer_literal=True)
def load(typing_context: Any, array: Any, index: Any, lanes: Any) -> Any:
    """`lanes` elements of array from index on, at any alignment."""
    return _load(array, index, Vector(array.dtype, lanes.literal_value), lanes)


@intrinsic(prefer_literal=True)
def load_bytes(typing_context: Any, raw: Any, offset: Any, lanes: Any, dtype: Any) -> Any:
    """`lanes` elements of another type from the byte `offset` of a byte array on, at any alignment."""
    return _load(raw, offset, Vector(dtype.dtype, lanes.literal_value), lanes, dtype)


def _load(array: Any, index: Any, result: Vector, *others: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointee = ir.VectorType(_scalar(context, result.dtype), result.lanes)
        address = _address(context, builder, array, arguments[0], arguments[1], pointee)
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return result(array, types.int64, *others), generate


@intrinsic
def store(typing_context: Any, array: Any, index: Any, vector: Any) -> Any:
    """array[index : index + lanes] = vector."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, array, arguments[0], arguments[1], arguments[2].type)
        builder.store(arguments[2], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), generate


@intrinsic(prefer_literal=True)
def splat(typing_context: Any, value: Any, lanes: Any) -> Any:
    """A vector with the same value in every lane."""
    result = Vector(value, lanes.literal_value)
    return result(value, lanes), lambda context, builder, signature, arguments: _splat(builder, arguments[0], result.lanes)


@intrinsic(prefer_literal=True)
def counting(typing_context: Any, lanes: Any) -> Any:
    """The int64 numbers of the lanes, from 0."""
    result = Vector(types.int64, lanes.literal_value)
    numbers = ir.Constant(ir.VectorType(I64, result.lanes), list(range(result.lanes)))
    return result(lanes), lambda context, builder, signature, arguments: numbers


@intrinsic
def fused(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once (IEEE 754-2019, 5.4.1): the same bits on a processor that has no such instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        name = f"llvm.fma.v{a.lanes}f{a.dtype.bitwidth}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(function, arguments)

    return a(a, a, a), generate


@intrinsic
def where(typing_context: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where the mask is set, else b."""
    return a(mask, a, b), lambda context, builder, signature, arguments: builder.select(*arguments)


@intrinsic
def viewed(typing_context: Any, vector: Any, dtype: Any) -> Any:
    """The same bits as another type of equal width."""
    result = Vector(dtype.dtype, vector.lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.VectorType(_scalar(context, result.dtype), vector.lanes))

    return result(vector, dtype), generate


@intrinsic
def converted(typing_context: Any, vector: Any, dtype: Any) -> Any:
    """The same values as a wider or equally wide type."""
    result = Vector(dtype.dtype, vector.lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = ir.VectorType(_scalar(context, result.dtype), vector.lanes)
        if result == vector:
            return arguments[0]
        if _is_float(vector):
            return builder.fpext(arguments[0], target)
        signed = _is_signed(vector)
        if _is_float(result):
            return (builder.sitofp if signed else builder.uitofp)(arguments[0], target)
        return (builder.sext if signed else builder.zext)(arguments[0], target)

    return result(vector, dtype), generate


def _folded(builder: Any, vector: Any, lanes: int, join: Callable[[Any, Any], Any]) -> Any:
    """One lane from all, by halves: the first half joined with the second, and so on."""
    while lanes > 1:
        lanes //= 2
        halves = [
            builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, lanes), list(range(start, start + lanes))))
            for start in (0, lanes)
        ]
        vector = join(*halves)
    return builder.extract_element(vector, I32(0))


def _paired(builder: Any, a: Any, b: Any, lanes: int, join: Callable[[Any, Any], Any]) -> Any:
    """Neighbouring lanes of a, then of b, joined: as many lanes as each has."""
    even, odd = (ir.Constant(ir.VectorType(I32, lanes), list(range(start, 2 * lanes, 2))) for start in (0, 1))
    return join(builder.shuffle_vector(a, b, even), builder.shuffle_vector(a, b, odd))


@intrinsic
def totals(typing_context: Any, vectors: Any) -> Any:
    """The sums of the lanes of eight float vectors, in float64, as a vector of eight.

    Lanes beyond the eighth are added to the eight first; then neighbours are added, three times.
    """
    lanes = vectors.dtype.lanes

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.VectorType(DOUBLE, 8)
        rows = []
        for row in range(8):
            value, parts = builder.extract_value(arguments[0], row), []
            for start in range(0, lanes, 8):
                part = value
                if lanes > 8:
                    part = builder.shuffle_vector(
                        value, value, ir.Constant(ir.VectorType(I32, 8), list(range(start, start + 8)))
                    )
                parts.append(part if part.type == wide else builder.fpext(part, wide))
            rows.append(parts[0] if lanes == 8 else builder.fadd(*parts))
        while len(rows) > 1:
            rows = [_paired(builder, a, b, 8, builder.fadd) for a, b in zip(rows[::2], rows[1::2], strict=True)]
        return rows[0]

    return Vector(types.float64, 8)(vectors), generate


def _ordered(sign: str) -> Any:
    """Intrinsics for the smaller or larger of two signed integer vectors, and of all lanes of one."""

    def join(builder: Any, a: Any, b: Any) -> Any:
        return builder.select(builder.icmp_signed(sign, a, b), a, b)

    @intrinsic
    def of_two(typing_context: Any, a: Any, b: Any) -> Any:
        return a(a, b), lambda context, builder, signature, arguments: join(builder, *arguments)

    @intrinsic
    def of_lanes(typing_context: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _folded(builder, arguments[0], vector.lanes, lambda a, b: join(builder, a, b))

        return vector.dtype(vector), generate

    return of_two, of_lanes


smaller, smallest = _ordered("<")
larger, largest = _ordered(">")


@intrinsic
def word(typing_context: Any, array: Any, offset: Any) -> Any:
    """The 64-bit word at a byte offset of an array of any type, at any alignment."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        items = context.make_array(array)(context, builder, arguments[0])
        start = builder.bitcast(items.data, ir.IntType(8).as_pointer())
        address = builder.bitcast(builder.gep(start, [arguments[1]]), I64.as_pointer())
        return builder.load(address, align=1)

    return types.uint64(array, types.int64), generate


@intrinsic
def bump(typing_context: Any, table: Any, index: Any) -> Any:
    """table[index] += 1."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        items = context.make_array(table)(context, builder, arguments[0])
        address = builder.gep(items.data, [arguments[1]])
        value = builder.load(address)
        builder.store(builder.add(value, ir.Constant(value.type, 1)), address)
        return context.get_dummy_value()

    return types.void(table, types.uint64), generate


@intrinsic
def any_set(typing_context: Any, vector: Any) -> Any:
    """Whether any bit of a vector of integers is set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        joined = _folded(builder, arguments[0], vector.lanes, builder.or_)
        return builder.icmp_unsigned("!=", joined, ir.Constant(joined.type, 0))

    return types.boolean(vector), generate
