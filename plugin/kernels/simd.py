"""Vectors with a fixed number of lanes for numba kernels; LLVM keeps them in the registers of the CPU it compiles for.

A plain numba loop over 16-bit numbers stays scalar: numba widens them, and cannot prove that arrays do not overlap.
Here a value of type ``i16 × lanes`` or ``f32 × lanes`` is one operand, and each operation below is one instruction or a
few. ``lanes`` must be a constant where a kernel is compiled. Loads and stores do not check bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.registry import cpu_target
from numba.extending import intrinsic, register_model

__all__ = [
    "add",
    "add_pairs",
    "add_quads",
    "any_greater",
    "fma",
    "has_byte_products",
    "load",
    "maximum",
    "multiplied",
    "prefetch",
    "rounded",
    "scaled",
    "splat",
    "store",
    "to_floats",
    "to_shorts",
]


def has_byte_products() -> bool:
    """Whether loops are compiled for a processor with `add_quads`, an instruction of AVX-512 VNNI."""
    context: Any = cpu_target.target_context
    return "+avx512vnni" in context.codegen().magic_tuple()[2].split(",")


def _operation(build: Callable[..., Any]) -> Any:
    """An operation for kernels: ``build`` takes the types of the arguments and returns a signature and a generator."""
    return intrinsic(prefer_literal=True)(build)


class Lanes(types.Type):
    """The numba type of a vector: a scalar type and the number of lanes."""

    def __init__(self, scalar: types.Type, count: int) -> None:
        self.scalar = scalar
        self.count = count
        super().__init__(name=f"Lanes({scalar} x {count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        scalar = manager.lookup(kind.scalar).get_value_type()
        super().__init__(manager, kind, ir.VectorType(scalar, kind.count))


def _pointer(context: Any, builder: Any, kind: types.Array, array: Any, index: Any, vector: ir.VectorType) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _lanes_of(kind: types.Array, lanes: Any) -> Lanes | None:
    if not isinstance(lanes, types.IntegerLiteral):
        return None
    return Lanes(kind.dtype, lanes.literal_value)


@_operation
def load(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """The ``lanes`` numbers of a flat array from ``index`` on, as a vector."""
    kind = _lanes_of(array, lanes)
    if kind is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(kind)
        pointer = _pointer(context, builder, array, arguments[0], arguments[1], vector)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return kind(array, types.intp, lanes), generate


@_operation
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a vector into a flat array from ``index`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(value)
        pointer = _pointer(context, builder, array, arguments[0], arguments[1], vector)
        builder.store(arguments[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@_operation
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Start to load the numbers at ``index`` of a flat array into the cache."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        called = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        to_read, keep, data_cache = (ir.Constant(number, value) for value in (0, 3, 1))
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(called, [pointer, to_read, keep, data_cache])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@_operation
def splat(typing: Any, scalar: Any, lanes: Any) -> Any:
    """A vector with ``scalar`` in every lane."""
    if not isinstance(lanes, types.IntegerLiteral):
        return None
    kind = Lanes(types.unliteral(scalar), lanes.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, context.get_value_type(kind), arguments[0])

    return kind(kind.scalar, lanes), generate


@_operation
def add(typing: Any, a: Any, b: Any) -> Any:
    """The sum a + b, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return (builder.fadd if _is_float(a) else builder.add)(*arguments)

    return a(a, b), generate


@_operation
def fma(typing: Any, accumulator: Any, a: Any, b: Any) -> Any:
    """The sum accumulator + a · b, lane by lane, rounded once; float lanes, and ``b`` may be a scalar."""
    kind = b if isinstance(b, Lanes) else accumulator.scalar

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(accumulator)
        function = ir.FunctionType(vector, [vector] * 3)
        bits = accumulator.scalar.bitwidth
        name = f"llvm.fma.v{accumulator.count}f{bits}"
        called = cgutils.get_or_insert_function(builder.module, function, name)
        factor = arguments[2] if isinstance(b, Lanes) else _splat(builder, vector, arguments[2])
        return builder.call(called, [arguments[1], factor, arguments[0]])

    return accumulator(accumulator, a, kind), generate


@_operation
def scaled(typing: Any, a: Any, scalar: Any) -> Any:
    """The product a · scalar, lane by lane; float lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(arguments[0], _splat(builder, context.get_value_type(a), arguments[1]))

    return a(a, a.scalar), generate


@_operation
def multiplied(typing: Any, a: Any, b: Any) -> Any:
    """The product a · b, lane by lane; float lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments)

    return a(a, b), generate


@_operation
def rounded(typing: Any, a: Any) -> Any:
    """Float lanes to the nearest 16-bit integers, ties to even; undefined for numbers outside their range."""
    kind = Lanes(types.int16, a.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(a)
        name = f"llvm.rint.v{a.count}f{a.scalar.bitwidth}"
        called = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), name)
        return builder.fptosi(builder.call(called, arguments), context.get_value_type(kind))

    return kind(a), generate


@_operation
def to_floats(typing: Any, a: Any) -> Any:
    """Integer lanes as 32-bit floats."""
    return _converted(a, types.float32, "sitofp")


@_operation
def to_shorts(typing: Any, a: Any) -> Any:
    """8-bit integer lanes as 16-bit ones."""
    return _converted(a, types.int16, "sext")


@_operation
def add_pairs(typing: Any, accumulator: Any, a: Any, pair: Any) -> Any:
    """32-bit lanes, each plus the sum of two products: the lane's two 16-bit numbers in ``a``, times those in ``pair``.

    ``pair`` is a 32-bit integer that holds two of 16 bits. CPUs have one instruction for this, which LLVM finds.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = accumulator.count
        one, both = (ir.VectorType(ir.IntType(32), n) for n in (lanes, 2 * lanes))
        pairs = builder.bitcast(_splat(builder, one, arguments[2]), ir.VectorType(ir.IntType(16), 2 * lanes))
        product = builder.mul(builder.sext(arguments[1], both), builder.sext(pairs, both))
        halves = [ir.Constant(one, [ir.Constant(one.element, 2 * i + k) for i in range(lanes)]) for k in (0, 1)]
        even, odd = (builder.shuffle_vector(product, ir.Constant(both, ir.Undefined), half) for half in halves)
        return builder.add(arguments[0], builder.add(even, odd))

    return accumulator(accumulator, a, types.int32), generate


@_operation
def add_quads(typing: Any, accumulator: Any, a: Any, quad: Any) -> Any:
    """32-bit lanes, each plus the sum of four products: the lane's four bytes in ``a``, times those in ``quad``.

    The bytes of ``a`` are unsigned, ``quad`` is a 32-bit integer that holds four signed ones, and lanes are a multiple
    of 16. Only for processors with `has_byte_products`: with other instructions `add_pairs` is faster.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, operand, number = arguments
        register, lanes = ir.VectorType(ir.IntType(32), 16), accumulator.count
        function = ir.FunctionType(register, [register] * 3)
        called = cgutils.get_or_insert_function(builder.module, function, "llvm.x86.avx512.vpdpbusd.512")
        operand = builder.bitcast(operand, ir.VectorType(ir.IntType(32), lanes))
        quads = _splat(builder, register, number)
        parts = [
            builder.call(called, [_part(builder, total, first, 16), _part(builder, operand, first, 16), quads])
            for first in range(0, lanes, 16)
        ]
        while len(parts) > 1:
            parts = [_joined(builder, *parts[i : i + 2]) for i in range(0, len(parts), 2)]
        return parts[0]

    return accumulator(accumulator, a, types.int32), generate


@_operation
def any_greater(typing: Any, a: Any, b: Any) -> Any:
    """Whether a > b in any lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        compare = builder.fcmp_ordered if _is_float(a) else builder.icmp_signed
        mask = builder.bitcast(compare(">", *arguments), ir.IntType(a.count))
        return builder.icmp_unsigned("!=", mask, ir.Constant(mask.type, 0))

    return types.boolean(a, a), generate


@_operation
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """The greater of a and b, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        compare = builder.fcmp_ordered if _is_float(a) else builder.icmp_signed
        return builder.select(compare(">", *arguments), *arguments)

    return a(a, b), generate


def _is_float(kind: Lanes) -> bool:
    return isinstance(kind.scalar, types.Float)


def _part(builder: ir.IRBuilder, vector: Any, first: int, count: int) -> Any:
    chosen = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(first, first + count)))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), chosen)


def _joined(builder: ir.IRBuilder, a: Any, b: Any) -> Any:
    both = a.type.count + b.type.count
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), both), list(range(both))))


def _splat(builder: Any, vector: ir.VectorType, scalar: Any) -> Any:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _converted(kind: Lanes, scalar: types.Type, instruction: str) -> Any:
    to = Lanes(scalar, kind.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(arguments[0], context.get_value_type(to))

    return to(kind), generate
