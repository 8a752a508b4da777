"""What a condition says, as a tree: operands, comparisons of operands, and how comparisons are joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Union


@dataclass(frozen=True)
class Column:
    """A column, or a field within it.

    Attributes:
        path: Names, outermost first.
        at: Where it stands in the condition, counted from 1.
    """

    path: tuple[str, ...]
    at: int


@dataclass(frozen=True)
class Literal:
    """A value: int, Decimal, str, bool, date, datetime, time, or None for NULL."""

    value: Any
    at: int


@dataclass(frozen=True)
class Values:
    """Several values: a list in brackets, or a parameter that is a list."""

    items: tuple[Operand, ...]
    at: int


@dataclass(frozen=True)
class Call:
    """A function of operands; the name is in lower case."""

    name: str
    arguments: tuple[Operand, ...]
    at: int


Operand = Union[Column, Literal, Values, Call]  # noqa: UP007  # evaluated on Python 3.10 too


@dataclass(frozen=True)
class Comparison:
    """``left operator right``; the operator is one of < <= = <> >= >."""

    operator: str
    left: Operand
    right: Operand


@dataclass(frozen=True)
class Member:
    """``operand IN (items)``."""

    operand: Operand
    items: tuple[Operand, ...]


@dataclass(frozen=True)
class Between:
    """``operand BETWEEN low AND high``."""

    operand: Operand
    low: Operand
    high: Operand


@dataclass(frozen=True)
class Like:
    """``operand LIKE pattern``; ``keyword`` is LIKE or ILIKE; after the character ``escape`` a sign is literal."""

    operand: Operand
    pattern: Operand
    keyword: str
    escape: str | None


@dataclass(frozen=True)
class State:
    """``operand IS what``; ``what`` is NULL, TRUE or FALSE."""

    operand: Operand
    what: str


@dataclass(frozen=True)
class Truth:
    """An operand that is itself true or false."""

    operand: Operand


@dataclass(frozen=True)
class Not:
    """The opposite of a condition."""

    part: Node


@dataclass(frozen=True)
class AllOf:
    """Conditions that must all hold."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class AnyOf:
    """Conditions of which one must hold."""

    parts: tuple[Node, ...]


Node = Union[Comparison, Member, Between, Like, State, Truth, Not, AllOf, AnyOf]  # noqa: UP007
