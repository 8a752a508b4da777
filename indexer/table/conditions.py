"""Conditions over the columns of a table: checked against its schema, and written as SQL that LanceDB takes.

LanceDB hands its SQL to a large engine. A few characters of it can take any amount of memory or time, or end the
process. So a condition is read in a small language (`condition_language`), each value gets the type of the column that
it is compared with (`condition_values`), and what is written here is all that LanceDB reads.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import pyarrow as pa

from ...onnx_export.errors import InputError
from . import condition_tree as tree
from .condition_language import parse, refusal
from .condition_tree import Call, Column, Literal, Operand, Values
from .condition_values import compared, kind_of, list_value, string_value
from .lance_errors import condition_problem
from .schema import CODE_FIELDS, IndexHeader, build_column, internal_fields

# The time of a comparison grows with both.
_PATTERN_CHARACTERS, _PATTERN_WILDCARDS = 1_000, 50
_HIDDEN = {*CODE_FIELDS} - {"token_count"}


class Condition:
    """A condition with parameters, so that values need not be written into its text.

    Args:
        text: The condition. ``?`` and ``$1`` stand for ``values``, ``$name`` stands for one of ``named``.
        values: Values of the parameters in order.
        named: Values of the parameters by name. A list may stand after IN.

    Raises:
        InputError: Both kinds of values are given.

    Example:
        >>> from tansaku import Condition
        >>> Condition("year < $year AND genre IN $genres", year=1950, genres=["寺", "神社"])
        Condition('year < $year AND genre IN $genres', year=1950, genres=['寺', '神社'])
    """

    def __init__(self, text: str, *values: Any, **named: Any) -> None:
        if values and named:
            raise InputError("a condition has values in order or by name, not both; name all of them")
        self.text = text
        self.parameters: Sequence[Any] | Mapping[str, Any] = named or values

    def __repr__(self) -> str:
        if isinstance(self.parameters, Mapping):
            values = [f"{name}={value!r}" for name, value in self.parameters.items()]
        else:
            values = [repr(value) for value in self.parameters]
        return f"Condition({', '.join([repr(self.text), *values])})"


@dataclass(frozen=True)
class UncheckedSQL:
    """A condition in LanceDB's own SQL, which nothing checks.

    SQL of another can take all memory, never end, or crash the process: use it for your own text only. The command
    line, HTTP and MCP do not offer it.

    Args:
        text: The SQL condition.

    Example:
        >>> from tansaku import UncheckedSQL
        >>> UncheckedSQL("year % 2 = 0")
        UncheckedSQL(text='year % 2 = 0')
    """

    text: str


Where = Union[str, Condition, UncheckedSQL]  # noqa: UP007  # evaluated on Python 3.10 too
"""A condition, in the language of the page "Conditions" of the documentation."""


def condition_sql(where: Where, schema: pa.Schema, header: IndexHeader, *, if_empty: str) -> str:
    """A condition as SQL for LanceDB.

    Args:
        where: The condition.
        schema: The table's schema.
        header: The table's settings.
        if_empty: What to do about an empty condition; the error ends with it.

    Returns:
        SQL with quoted column names and typed values. An `UncheckedSQL` is returned as it is.

    Raises:
        InputError: The condition is empty or not in the language, names an unknown column, or compares a column with a
            value of another type.
    """
    if isinstance(where, UncheckedSQL):
        return where.text
    text, parameters = (where.text, where.parameters) if isinstance(where, Condition) else (where, ())
    if not isinstance(text, str):
        kind = type(text).__name__
        raise InputError(f'the condition is of type {kind}; give text such as "year < 1950", or a Condition')
    if not text.strip():
        raise InputError(f"the condition is empty; {if_empty}")
    hidden = _HIDDEN | {build_column(header)}
    fields = {field.name: field.type for field in schema if field.name not in hidden}
    internal = internal_fields(header)  # of which some may be compared, but are not the caller's
    return _Writer(text, fields, [name for name in fields if name not in internal]).node(parse(text, parameters))


@contextlib.contextmanager
def condition_errors(place: str, condition: object) -> Iterator[None]:
    """Turn what LanceDB raises for a condition that it cannot use into InputError."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{place}: the condition {condition!r} cannot be used ({condition_problem(error)})") from error


def _folded(name: str) -> str:
    """A name without the differences that are not seen or are of no account: Unicode form, and case."""
    return unicodedata.normalize("NFC", name).casefold()


@dataclass(frozen=True)
class _Typed:
    """SQL of a column or a function of columns, with its type."""

    sql: str
    type: pa.DataType
    name: str
    at: int


class _Writer:
    """Writes the nodes of one condition. The language has limited how deep they are nested."""

    def __init__(self, text: str, fields: dict[str, pa.DataType], listed: Sequence[str]) -> None:
        self._text = text
        self._fields = fields
        self._listed = listed  # names of the fields that errors offer

    def node(self, node: tree.Node) -> str:
        if isinstance(node, (tree.AllOf, tree.AnyOf)):
            return _balanced([self.node(part) for part in node.parts], "AND" if isinstance(node, tree.AllOf) else "OR")
        if isinstance(node, tree.Not):
            return f"NOT ({self.node(node.part)})"
        if isinstance(node, tree.Comparison):
            return self._comparison(node.operator, node.left, node.right)
        if isinstance(node, tree.Member):
            return self._member(node)
        if isinstance(node, tree.Between):
            low, high = (
                self._comparison(operator, node.operand, bound)
                for operator, bound in ((">=", node.low), ("<=", node.high))
            )
            return f"({low} AND {high})"
        if isinstance(node, tree.Like):
            return self._like(node)
        if isinstance(node, tree.State):
            return self._state(node)
        return self._truth(node.operand)

    def _comparison(self, operator: str, left: Operand, right: Operand) -> str:
        if isinstance(left, Literal) and not isinstance(right, Literal):
            turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
            return self._comparison(turned.get(operator, operator), right, left)
        if isinstance(left, Literal) and isinstance(right, Literal):
            return self._constant(operator, left, right)
        typed = self._typed(left)
        if isinstance(right, Literal):
            self._not_null(right)
            return self._fitting(right.at, lambda: compared(typed.sql, typed.type, operator, right.value, typed.name))
        other = self._typed(right)
        if kind_of(typed.type) != kind_of(other.type) or kind_of(typed.type) in ("list", "other"):
            raise refusal(
                self._text, other.at, f"{typed.name} ({typed.type}) and {other.name} ({other.type}) cannot be compared"
            )
        return f"{typed.sql} {operator} {other.sql}"

    def _constant(self, operator: str, left: Literal, right: Literal) -> str:
        if operator == "=" and left.value == right.value and left.value is not None:
            return "TRUE"  # 1 = 1, with which programs begin a list of conditions
        hint = self._column_in_quotes(left) or self._column_in_quotes(right) or "compare a column with a value"
        raise refusal(self._text, left.at, f"two values are compared; {hint}")

    def _member(self, node: tree.Member) -> str:
        typed = self._typed(node.operand)
        found = []
        for item in node.items:
            if not isinstance(item, Literal):
                raise refusal(self._text, item.at, "only values may stand in the brackets of IN")
            if item.value is None:
                raise refusal(self._text, item.at, "NULL in IN is never found; add OR column IS NULL")
            found.append(item)
        if not found:
            return f"{typed.sql} <> {typed.sql}" if kind_of(typed.type) not in ("list", "other") else "FALSE"
        return self._fitting(
            found[0].at, lambda: compared(typed.sql, typed.type, "IN", [item.value for item in found], typed.name)
        )

    def _like(self, node: tree.Like) -> str:
        typed = self._typed(node.operand)
        if kind_of(typed.type) != "string":
            raise refusal(
                self._text,
                typed.at,
                f"{node.keyword} needs a column of strings; {typed.name} has the type {typed.type}",
            )
        if not isinstance(node.pattern, Literal) or not isinstance(node.pattern.value, str):
            raise refusal(
                self._text, node.pattern.at, f"{node.keyword} needs a pattern in single quotes, such as '京都%'"
            )
        pattern = node.pattern.value
        if len(pattern) > _PATTERN_CHARACTERS or pattern.count("%") + pattern.count("_") > _PATTERN_WILDCARDS:
            raise refusal(
                self._text,
                node.pattern.at,
                f"the pattern is long; at most {_PATTERN_CHARACTERS} characters and {_PATTERN_WILDCARDS} signs % and _ "
                "are allowed",
            )
        if node.escape is not None:
            if len(node.escape) != 1:
                raise refusal(self._text, node.pattern.at, f"ESCAPE {node.escape!r} has to be one character")
            pattern = _with_backslashes(pattern, node.escape)
        return f"{typed.sql} {node.keyword} {string_value(pattern)}"

    def _state(self, node: tree.State) -> str:
        if node.what == "NULL":
            return f"{self._typed(node.operand).sql} IS NULL"
        typed = self._typed(node.operand)
        if kind_of(typed.type) != "boolean":
            raise refusal(
                self._text, typed.at, f"IS {node.what} needs a boolean column; {typed.name} has the type {typed.type}"
            )
        return f"{typed.sql} IS {node.what}"

    def _truth(self, operand: Operand) -> str:
        if isinstance(operand, Literal):
            if not isinstance(operand.value, bool):
                raise refusal(self._text, operand.at, "a value alone is no condition; compare a column with it")
            return "TRUE" if operand.value else "FALSE"
        typed = self._typed(operand)
        if kind_of(typed.type) != "boolean":
            raise refusal(
                self._text,
                typed.at,
                f"{typed.name} is not boolean but has the type {typed.type}; compare it with a value",
            )
        return typed.sql

    def _typed(self, operand: Operand) -> _Typed:
        if isinstance(operand, Column):
            return self._column(operand)
        if isinstance(operand, Call):
            return self._call(operand)
        at = operand.at
        if isinstance(operand, Values):
            raise refusal(self._text, at, "a list may only stand after IN, or in array_has_any and array_has_all")
        hint = self._column_in_quotes(operand) or "compare a column with a value"
        raise refusal(self._text, at, f"a column is missing; {hint}")

    def _column_in_quotes(self, literal: Literal) -> str:
        """What to do about a value that is the name of a column; empty for other values."""
        value = literal.value
        if not isinstance(value, str) or _folded(value) not in map(_folded, self._fields):
            return ""
        plain = value if value.isidentifier() else f'"{value}"'
        return f"the name of a column takes no single quotes: {plain}"

    def _column(self, column: Column) -> _Typed:
        first, *rest = column.path
        found = [first] if first in self._fields else [n for n in self._fields if _folded(n) == _folded(first)]
        if len(found) != 1:
            hint = ""
            if self._text[column.at - 1] == '"':
                hint = f"; a value takes single quotes: {string_value(first)}"
            known = ", ".join(self._listed)
            raise refusal(
                self._text,
                column.at,
                f"there is no column {first[:40]!r}{hint}; the columns are {known}; the field of --id-field is now id, "
                "and those of --text-field and --title-field are text and title",
            )
        path, data_type = [found[0]], self._fields[found[0]]
        for name in rest:
            inside = [data_type.field(i) for i in range(data_type.num_fields)] if pa.types.is_struct(data_type) else []
            field = next((field for field in inside if field.name == name), None)
            if field is None:
                known = f"; its fields are {', '.join(field.name for field in inside)}" if inside else ""
                raise refusal(self._text, column.at, f"the column {'.'.join(path)} has no field {name!r}{known}")
            path.append(name)
            data_type = field.type
        if any("`" in name for name in path):
            raise refusal(self._text, column.at, f"the column {'.'.join(path)!r} has a backtick in its name; rename it")
        if pa.types.is_dictionary(data_type):
            data_type = data_type.value_type
        return _Typed(".".join(f"`{name}`" for name in path), data_type, ".".join(path), column.at)

    def _call(self, call: Call) -> _Typed:
        function = _FUNCTION_OF.get(call.name)
        if function is None:
            known = ", ".join(names[0] for names in _FUNCTIONS)
            raise refusal(self._text, call.at, f"there is no function {call.name[:40]!r}; the functions are {known}")
        if len(call.arguments) != len(function.arguments):
            raise refusal(self._text, call.at, f"{call.name} takes {len(function.arguments)} arguments")
        first = self._typed(call.arguments[0])
        if kind_of(first.type) not in function.arguments[0]:
            wanted = " or ".join(function.arguments[0])
            is_text = "date" in function.arguments[0] and kind_of(first.type) == "string"
            remedy = f"; index it with dates (--column-type {first.name}=date)" if is_text else ""
            raise refusal(
                self._text,
                first.at,
                f"{call.name} needs a {wanted} column; {first.name} has the type {first.type}{remedy}",
            )
        rest = [
            self._argument(call.name, argument, wanted[0], first)
            for argument, wanted in zip(call.arguments[1:], function.arguments[1:], strict=True)
        ]
        sql = function.sql.format(first.sql, *rest)
        return _Typed(sql, first.type if function.result is None else function.result, f"{call.name}(…)", call.at)

    def _argument(self, function: str, argument: Operand, wanted: str, column: _Typed) -> str:
        if wanted == "string":
            if not isinstance(argument, Literal) or not isinstance(argument.value, str):
                raise refusal(self._text, argument.at, f"{function} needs a string in single quotes")
            return string_value(argument.value)
        element = column.type.value_type
        items = argument.items if isinstance(argument, Values) else (argument,)
        values = []
        for item in items:
            if not isinstance(item, Literal):
                raise refusal(self._text, item.at, f"{function} needs values")
            self._not_null(item)
            values.append(item.value)
        if wanted == "value" and isinstance(argument, Values):
            raise refusal(
                self._text, argument.at, f"{function} needs one value; array_has_any and array_has_all take several"
            )
        written = self._fitting(argument.at, lambda: [list_value(element, value, column.name) for value in values])
        return written[0] if wanted == "value" else f"[{', '.join(written)}]"

    def _not_null(self, literal: Literal) -> None:
        if literal.value is None:
            raise refusal(self._text, literal.at, "nothing is equal to NULL; use IS NULL or IS NOT NULL")

    def _fitting(self, at: int, write: Callable[[], Any]) -> Any:
        try:
            return write()
        except InputError as error:
            raise refusal(self._text, at, str(error)) from None


@dataclass(frozen=True)
class _Function:
    """A function: the kinds of its arguments, its SQL, and the type of what it gives (None: that of its argument)."""

    arguments: tuple[tuple[str, ...], ...]
    sql: str
    result: pa.DataType | None


_TEXT = ("string",)
_FUNCTIONS: dict[tuple[str, ...], _Function] = {
    ("lower",): _Function((_TEXT,), "lower({})", pa.string()),
    ("upper",): _Function((_TEXT,), "upper({})", pa.string()),
    ("length", "char_length", "character_length"): _Function(
        (_TEXT,), "CAST(character_length({}) AS BIGINT)", pa.int64()
    ),
    ("starts_with",): _Function((_TEXT, _TEXT), "starts_with({}, {})", pa.bool_()),
    ("ends_with",): _Function((_TEXT, _TEXT), "ends_with({}, {})", pa.bool_()),
    ("contains",): _Function((_TEXT, _TEXT), "contains({}, {})", pa.bool_()),
    ("year",): _Function((("date", "timestamp"),), "CAST(date_part('year', {}) AS BIGINT)", pa.int64()),
    ("month",): _Function((("date", "timestamp"),), "CAST(date_part('month', {}) AS BIGINT)", pa.int64()),
    ("day",): _Function((("date", "timestamp"),), "CAST(date_part('day', {}) AS BIGINT)", pa.int64()),
    ("array_has", "array_contains", "list_contains", "list_has"): _Function(
        (("list",), ("value",)), "array_has({}, {})", pa.bool_()
    ),
    ("array_has_any",): _Function((("list",), ("values",)), "array_has_any({}, {})", pa.bool_()),
    ("array_has_all",): _Function((("list",), ("values",)), "array_has_all({}, {})", pa.bool_()),
    ("array_length", "cardinality"): _Function((("list",),), "CAST(array_length({}) AS BIGINT)", pa.int64()),
}

_FUNCTION_OF = {name: function for names, function in _FUNCTIONS.items() for name in names}


def _balanced(parts: list[str], word: str) -> str:
    """``parts`` joined two by two: LanceDB's parser calls itself for each level, and a long chain would have many."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({_balanced(parts[:middle], word)} {word} {_balanced(parts[middle:], word)})"


def _with_backslashes(pattern: str, escape: str) -> str:
    """A pattern whose signs are taken literally by a backslash, as LanceDB knows it, in place of ``escape``."""
    written, signs = "", iter(pattern)
    for sign in signs:
        if sign == escape:
            following = next(signs, "")
            written += f"\\{following}" if following in ("%", "_", "\\") else following
        else:
            written += "\\\\" if sign == "\\" else sign
    return written
