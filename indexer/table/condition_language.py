"""The language of conditions: what a condition may say, and how its text becomes a tree (`condition_tree`).

A condition is parsed by lark, without recursion, from the grammar below. What the grammar does not have never reaches
LanceDB: no arithmetic, no subqueries, no functions but a few that are cheap on any value.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from ...onnx_export.errors import InputError
from .condition_times import DATE_FORMS, as_date, as_time, as_timestamp
from .condition_tree import (
    AllOf,
    AnyOf,
    Between,
    Call,
    Column,
    Comparison,
    Like,
    Literal,
    Member,
    Node,
    Not,
    Operand,
    State,
    Truth,
    Values,
)

if TYPE_CHECKING:
    from lark import Lark, Token

MAX_CHARACTERS = 1_000_000
MAX_NESTING = 32
MAX_COMPARISONS = 5_000
MAX_ANDED = 1_000  # LanceDB's time grows with the square of it
MAX_VALUES = 50_000
MAX_TOKENS = 200_000  # counted before they are parsed, which takes a hundred times as long
MAX_DIGITS = 76

_GRAMMAR = r"""
?start: disjunction
?disjunction: conjunction (_OR conjunction)*
?conjunction: negation (_AND negation)*
?negation: predicate | NOT negation -> negated
?predicate: operand -> truth
    | operand COMPARISON operand -> comparison
    | operand NOT? _IN "(" operand ("," operand)* ")" -> member
    | operand NOT? _IN PARAMETER -> member
    | operand NOT? _BETWEEN operand _AND operand -> between
    | operand NOT? LIKE operand (_ESCAPE STRING)? -> like
    | operand _IS NOT? (NULL | TRUE | FALSE) -> state
    | "(" disjunction ")" -> nested
?operand: column | NAME STRING -> typed | call | list | number
    | STRING -> string
    | TRUE -> truth_value
    | FALSE -> truth_value
    | NULL -> null
    | PARAMETER -> parameter
column: name ("." name)*
?name: NAME | QUOTED
call: NAME "(" [operand ("," operand)*] ")"
list: "[" operand ("," operand)* "]"
number: SIGN? NUMBER

_OR: "or"i
_AND: "and"i
NOT: "not"i
_IN: "in"i
_BETWEEN: "between"i
LIKE: /i?like\b/i
_ESCAPE: "escape"i
_IS: "is"i
NULL: "null"i
TRUE: "true"i
FALSE: "false"i
COMPARISON: "<=" | ">=" | "<>" | "!=" | "==" | "<" | ">" | "="
SIGN: "-" | "+"
NUMBER: /(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?/i
STRING: /'(?:[^']|'')*'/
QUOTED: /"(?:[^"]|"")+"/ | /`[^`]+`/
PARAMETER: /\$\w+|\?/
NAME: /[^\W\d][\w\u0300-\u036f\u3099\u309a]*/i
%ignore /[\s\u3000]+/
"""

# Signs as Japanese keyboards and word processors write them -> what to type.
_TYPED = {chr(ord(sign) + 0xFEE0): sign for sign in "<>=!()[],.`-?$"} | {
    **dict.fromkeys("‘’‚‛′´＇“”„‟″＂「」『』", "'"),
    **dict.fromkeys("≥≧⩾", ">="),
    **dict.fromkeys("≤≦⩽", "<="),
    "≠": "<>",
    "、": ",",
    "−": "-",
}
_TOKENS = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|`[^`]*`|[\w.]+|[^\w\s]""")


def parse(text: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Node:
    """What a condition says.

    Args:
        text: The condition.
        parameters: Values of its parameters: a sequence for ``?`` and ``$1``, a mapping for ``$name``.

    Returns:
        The tree of the condition.

    Raises:
        InputError: The condition is not in the language, is too long or nested too deep, or a parameter is missing or
            not used. The message names the character where it went wrong.
    """
    from lark import exceptions

    if len(text) > MAX_CHARACTERS:
        raise InputError(f"the condition has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    check_unicode(text, "the condition")
    if sum(1 for _ in itertools.islice(_TOKENS.finditer(text), MAX_TOKENS + 1)) > MAX_TOKENS:
        raise InputError(f"the condition has more than {MAX_TOKENS:,} words, values and signs; give fewer")
    try:
        tree = _parser().parse(text)
    except exceptions.UnexpectedCharacters as error:
        raise refusal(text, error.pos_in_stream + 1, _about_character(text, error.pos_in_stream)) from None
    except exceptions.UnexpectedToken as error:
        at = len(text) if error.token.type == "$END" else error.token.start_pos or 0
        raise refusal(text, at + 1, _about_token(text, error.token)) from None
    builder = _Builder(text, parameters)
    node = builder.build(tree)
    builder.check_parameters()
    return node


def check_unicode(text: str, name: str) -> None:
    """Raise InputError for half a character (a lone surrogate), which UTF-8 cannot write."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} has half a character (a lone surrogate) at character {error.start + 1}") from None


def refusal(text: str, at: int, problem: str) -> InputError:
    """The error that says what is wrong at a character of a condition."""
    before, after = text[max(0, at - 31) : at - 1], text[at - 1 : at + 29]
    shown = f"{'…' if at > 31 else ''}{before}→{after}{'…' if len(text) > at + 29 else ''}"
    return InputError(f"the condition cannot be used: {problem} (at character {at}: {shown})")


@functools.cache
def _parser() -> Lark:
    # Loaded here: a search without a condition does not need it.
    from lark import Lark

    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", propagate_positions=False, maybe_placeholders=False)


def _about_character(text: str, at: int) -> str:
    sign = text[at]
    if sign == ";":
        return "it has a semicolon; give one condition"
    if sign in "'\"`":
        curly = next((f"; type {sign} in place of {other}" for other in text[at + 1 :] if _TYPED.get(other) == "'"), "")
        return f"the quotation mark {sign} is not closed{curly}"
    if typed := _TYPED.get(sign):
        return f"type {typed} in place of {sign}"
    if sign in "+*/%|&^~-":
        return f"{sign!r} is not part of conditions; compare columns with values, and join comparisons with AND and OR"
    return f"{sign!r} cannot be read"


def _about_token(text: str, token: Token) -> str:
    if token.type == "$END":
        return "it ends too early; a column, a value or a closing bracket is missing"
    if token.type == "SIGN":
        return _about_character(text, token.start_pos or 0)
    return f"{str(token)[:40]!r} is not expected here; the syntax is in the page 'Conditions' of the documentation"


class _Builder:
    """Turns lark's tree into nodes. The nesting is limited before anything here calls itself."""

    def __init__(self, text: str, parameters: Sequence[Any] | Mapping[str, Any]) -> None:
        if isinstance(parameters, (str, bytes)) or not isinstance(parameters, (Sequence, Mapping)):
            raise InputError(f"the parameters of a condition are {parameters!r}; give a list or a dict")
        self._text = text
        named = isinstance(parameters, Mapping)
        self._parameters = (
            {str(name): value for name, value in parameters.items()}
            if isinstance(parameters, Mapping)
            else {str(number): value for number, value in enumerate(parameters, 1)}
        )
        self._named, self._used, self._marks = named, set[str](), 0
        self._comparisons = self._values = 0

    def build(self, tree: Any, depth: int = 0) -> Node:
        if depth > MAX_NESTING:
            raise InputError(
                f"the condition is nested more than {MAX_NESTING} levels deep; write it with fewer brackets"
            )
        kind, children = tree.data, tree.children
        if kind in ("disjunction", "conjunction"):
            if kind == "conjunction" and len(children) > MAX_ANDED:
                raise InputError(f"the condition joins more than {MAX_ANDED:,} parts with AND; give fewer")
            parts = tuple(self.build(child, depth + 1) for child in children)
            return AnyOf(parts) if kind == "disjunction" else AllOf(parts)
        if kind == "nested":
            return self.build(children[0], depth + 1)
        if kind == "negated":
            return Not(self.build(children[1], depth + 1))
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise InputError(
                f"the condition has more than {MAX_COMPARISONS:,} comparisons; name many values with IN (...)"
            )
        return self._predicate(kind, children, depth)

    def check_parameters(self) -> None:
        """Raise InputError if a parameter was given that the condition does not have."""
        left = [name for name in self._parameters if name not in self._used]
        if left:
            raise InputError(f"the condition has no parameter {', '.join('$' + name for name in left)}; leave it out")

    def _predicate(self, kind: str, children: list[Any], depth: int) -> Node:
        negated = any(getattr(child, "type", None) == "NOT" for child in children)
        rest = [child for child in children if getattr(child, "type", None) != "NOT"]
        node: Node
        if kind == "truth":
            node = Truth(self._operand(rest[0], depth))
        elif kind == "comparison":
            operator = {"!=": "<>", "==": "="}.get(str(rest[1]), str(rest[1]))
            node = Comparison(operator, self._operand(rest[0], depth), self._operand(rest[2], depth))
        elif kind == "member":
            items = tuple(self._operand(item, depth) for item in rest[1:])
            if len(items) == 1 and isinstance(items[0], Values):
                items = items[0].items
            node = Member(self._operand(rest[0], depth), items)
        elif kind == "between":
            operand, low, high = (self._operand(child, depth) for child in rest)
            node = Between(operand, low, high)
        elif kind == "like":
            escape = _unquoted(rest[3]) if len(rest) > 3 else None
            node = Like(self._operand(rest[0], depth), self._operand(rest[2], depth), str(rest[1]).upper(), escape)
        else:
            node = State(self._operand(rest[0], depth), str(rest[1]).upper())
        return Not(node) if negated else node

    def _operand(self, tree: Any, depth: int) -> Operand:
        if depth > MAX_NESTING:
            raise InputError(
                f"the condition is nested more than {MAX_NESTING} levels deep; write it with fewer brackets"
            )
        self._values += 1
        if self._values > MAX_VALUES:
            raise InputError(f"the condition has more than {MAX_VALUES:,} values; give fewer")
        if getattr(tree, "type", None) == "PARAMETER":
            return self._parameter(tree)
        token = _first_token(tree)
        at = (token.start_pos or 0) + 1
        if tree.data == "column":
            return Column(tuple(_name(child) for child in tree.children), at)
        if tree.data == "call":
            arguments = tuple(self._operand(child, depth + 1) for child in tree.children[1:])
            return Call(str(token).lower(), arguments, at)
        if tree.data == "list":
            return Values(tuple(self._operand(child, depth + 1) for child in tree.children), at)
        if tree.data == "parameter":
            return self._parameter(token)
        return Literal(self._value(tree, at), at)

    def _value(self, tree: Any, at: int) -> Any:
        if tree.data == "string":
            return _unquoted(tree.children[0])
        if tree.data == "truth_value":
            return str(tree.children[0]).lower() == "true"
        if tree.data == "null":
            return None
        if tree.data == "number":
            return self._number("".join(map(str, tree.children)), at)
        word, value = str(tree.children[0]).lower(), _unquoted(tree.children[1])
        readers = {"date": as_date, "timestamp": as_timestamp, "time": as_time}
        if word not in readers:
            raise refusal(self._text, at, f"{word!r} before a string; only DATE, TIMESTAMP and TIME may stand there")
        read = readers[word](value)
        if read is None:
            raise refusal(self._text, at, f"{value!r} is not a {word}; {DATE_FORMS[word]}")
        return read

    def _number(self, digits: str, at: int) -> int | Decimal:
        number = Decimal(digits)
        exponent = number.as_tuple().exponent
        if len(digits) > MAX_DIGITS or not isinstance(exponent, int) or abs(number.adjusted()) > 400:
            raise refusal(self._text, at, f"the number {digits[:20]}… is too long or too large")
        return int(number) if number == number.to_integral_value() and number.adjusted() < MAX_DIGITS else number

    def _parameter(self, token: Token) -> Operand:
        at = (token.start_pos or 0) + 1
        if str(token) == "?":
            self._marks += 1
            name = str(self._marks)
        else:
            name = str(token)[1:]
        if name not in self._parameters:
            raise refusal(
                self._text, at, f"no value is given for the parameter {token}; give it in Condition(text, ...)"
            )
        self._used.add(name)
        return self._given(self._parameters[name], token, at)

    def _given(self, value: Any, token: Token, at: int) -> Operand:
        if isinstance(value, (list, tuple, set, frozenset)):
            return Values(tuple(self._given(item, token, at) for item in value), at)
        if isinstance(value, float):
            if value != value or value in (float("inf"), float("-inf")):
                raise refusal(self._text, at, f"the parameter {token} is {value}; give a finite number")
            value = Decimal(repr(value))
        if isinstance(value, Decimal):
            if not value.is_finite():
                raise refusal(self._text, at, f"the parameter {token} is {value}; give a finite number")
            value = self._number(str(value), at)
        if isinstance(value, np.datetime64):
            value = value.astype("datetime64[us]").item()  # of nanoseconds, item() would make a number
        if isinstance(value, np.generic):
            return self._given(value.item(), token, at)
        if value is not None and not isinstance(
            value, (bool, int, Decimal, str, datetime.date, datetime.datetime, datetime.time)
        ):
            raise refusal(
                self._text, at, f"the parameter {token} is a {type(value).__name__}; give a string, number or date"
            )
        if isinstance(value, str):
            check_unicode(value, f"the parameter {token}")
        return Literal(value, at)


def _first_token(tree: Any) -> Token:
    while not hasattr(tree, "type"):
        tree = tree.children[0]
    return tree


def _name(token: Token) -> str:
    if token.type == "NAME":
        return str(token)
    mark = token[0]
    return str(token)[1:-1].replace(mark * 2, mark)


def _unquoted(token: Any) -> str:
    return str(token)[1:-1].replace("''", "'")
