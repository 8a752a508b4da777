"""What pydantic found wrong in a file, in plain words; the caller adds the file's name and the remedy."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

_MAX_FAULTS = 5  # named in one message
_UNKNOWN_FIELD = ("extra_forbidden", "unexpected_keyword_argument")
_NOT_AN_OBJECT = ("dataclass_type", "dict_type", "mapping_type", "model_type", "model_attributes_type")


def describe_errors(error: ValidationError) -> str:
    """The faults that pydantic found, each with its field: ``query.max_length is '32'; it must be a valid integer``.

    Args:
        error: what `pydantic` raised.

    Returns:
        One line, without a full stop; at most five faults are named.

    Example:
        >>> from pydantic import TypeAdapter, ValidationError
        >>> try:
        ...     TypeAdapter(dict[str, int]).validate_json('{"k": "ten"}', strict=True)
        ... except ValidationError as error:
        ...     print(describe_errors(error))
        k is 'ten'; it must be a valid integer
    """
    faults = [_described(fault) for fault in error.errors(include_url=False)]
    more = len(faults) - _MAX_FAULTS
    return ", ".join(faults[:_MAX_FAULTS]) + (f", and {more} more" if more > 0 else "")


def _described(fault: Any) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).removeprefix(".")
    kind, message = fault["type"], fault["msg"]
    if kind == "missing":
        return f"{field} is missing"
    if kind in _UNKNOWN_FIELD:
        return f"{field} is not a known field"
    if kind == "json_invalid":
        return message[:1].lower() + message[1:]
    if kind == "value_error":  # of our own checks, which name the field
        return f"{field}: {fault['ctx']['error']}" if field else str(fault["ctx"]["error"])
    if kind in _NOT_AN_OBJECT:
        message = "Input should be an object"
    rule = message.replace("Input should be", "it must be", 1)
    return f"{field or 'the content'} is {reprlib.repr(fault['input'])}; {rule}"
