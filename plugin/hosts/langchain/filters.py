"""Filters of documents by their metadata, as LangChain's own stores take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.documents import Document

from ....onnx_export.errors import InputError
from .metadata import plain_metadata

Filter = Mapping[str, Any] | Callable[[Document], bool]
"""Values that keys of the metadata must have, or a function that says whether a document is wanted."""


def as_function(chosen: Filter) -> Callable[[Document], bool]:
    """A filter as a function of the document.

    Args:
        chosen: the filter. Values are compared in the form in which metadata is kept: dates as text.

    Raises:
        InputError: it is neither a dict nor a function, or has an object for a value, such as ``{"$gt": 1950}``.
    """
    if callable(chosen):
        return chosen
    if not isinstance(chosen, Mapping):
        raise InputError(f"filter is {type(chosen).__name__}; give a dict of metadata, or a function of the document")
    for key, value in chosen.items():
        if isinstance(value, Mapping):
            raise InputError(f"filter has an object for {key!r}, but compares values; give a function of the document")
    wanted = plain_metadata("filter", chosen)
    return lambda document: all(key in document.metadata and document.metadata[key] == wanted[key] for key in wanted)
