"""Check what kinds of values callers give, where a wrong one would only fail later and say less."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from .errors import InputError


def check_kind(name: str, value: Any, kinds: type | tuple[type, ...], remedy: str) -> None:
    """Check that a value is of a kind.

    Args:
        name: what the value is called.
        value: the value.
        kinds: its type or types.
        remedy: what to give instead.

    Raises:
        InputError: it is of another type.

    Example:
        >>> try:
        ...     check_kind("encoder", "./folder", dict, "give Encoder.load('./folder')")
        ... except InputError as error:
        ...     print(error)
        encoder is of type str ('./folder'); give Encoder.load('./folder')
    """
    if not isinstance(value, kinds):
        raise InputError(f"{name} is of type {type(value).__name__} ({value!r:.60}); {remedy}")


def check_whole(name: str, value: Any) -> int:
    """``value``, if it is a whole number of 1 or more.

    Args:
        name: what the number is called.
        value: the number.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        form = ", without quotes" if isinstance(value, str) else ""
        form = ", without a decimal point" if isinstance(value, float) else form
        raise InputError(f"{name} is {value!r}; it must be a whole number of 1 or more{form}")
    return int(value)
