"""Conditions as clients send them: a text, and the values of its parameters, so that no value is part of a text."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ....indexer.table.conditions import Condition, Where
from ....onnx_export.errors import InputError
from .base import Text, UntilError

_MAX_PARAMETERS = 1_000
_MAX_VALUES = 10_000  # of a list

Value = bool | int | float | Text | None
Values = Annotated[list[Value], UntilError(), Field(max_length=_MAX_VALUES)]
Params = (
    Annotated[dict[Text, Value | Values], Field(max_length=_MAX_PARAMETERS)]
    | Annotated[list[Value | Values], Field(max_length=_MAX_PARAMETERS)]
)
"""Values by name, for `$name`, or in order, for `?` and `$1`. A list may stand after IN."""


def condition_of(where: str | None, params: Params | None) -> Where | None:
    """The condition ``where`` with its parameters; None without one.

    Raises:
        InputError: there are parameters without a condition.
    """
    if where is None:
        if params:
            raise InputError("there are params, but no condition that has them; give where too")
        return None
    if not params:
        return where
    condition = Condition(where)
    condition.parameters = params  # as they are: their names may be any
    return condition
