"""Texts in requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError


def checked_text(text: str) -> str:
    """``text``, if it is Unicode: JSON may hold half a surrogate pair, which nothing can store or send back."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "Input should be a valid string: half a surrogate pair") from error
    return text


Text = Annotated[str, AfterValidator(checked_text)]
