"""Haystack's filters over our rows, evaluated by Haystack's own code, and what a store reports of its metadata."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ....onnx_export.errors import MissingExtraError

try:
    from haystack.dataclasses import Document
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack.errors import FilterError
    from haystack.utils.filters import document_matches_filter
except ImportError as error:
    raise MissingExtraError("haystack-ai", "haystack") from error

Filters = dict[str, Any]


def matches(filters: Filters | None, document: Document) -> bool:
    """Whether ``document`` matches ``filters``; None and an empty dict match every document.

    Raises:
        FilterError: Haystack cannot read the filters, or they compare values that cannot be compared.
    """
    if filters is None or filters == {}:
        return True
    try:
        return document_matches_filter(filters, document)
    except (TypeError, AttributeError) as error:  # a dict compared with a number, a condition that is not a dict
        raise FilterError(f"the filter {filters!r} cannot be applied: {error}") from error


def check_filters(filters: Filters | None) -> None:
    """Raise FilterError if Haystack cannot read ``filters``; over an empty store too, where nothing is compared.

    Also for a key that a filter does not have, which Haystack ignores.
    """
    _check_keys(filters)
    matches(filters, Document(content=""))


def check_some(filters: Filters | None, what: str, remedy: str) -> None:
    """Raise FilterError if ``filters`` are none, and so match everything, for a change that would do ``what``."""
    if filters is None or filters == {}:
        raise FilterError(f"the filter is empty; it would {what} all documents: {remedy}")


def _check_keys(filters: Any) -> None:
    if not isinstance(filters, dict):
        return  # which Haystack refuses itself
    known = ("operator", "conditions") if "conditions" in filters else ("field", "operator", "value")
    for name in filters:
        if "operator" in filters and name not in known:
            raise FilterError(f"the filter has the unknown key {name!r}; use {', '.join(known)}")
    conditions = filters.get("conditions")
    for condition in conditions if isinstance(conditions, list) else []:
        _check_keys(condition)


def named_fields(filters: Any) -> Iterator[str]:
    """The fields of a document that ``filters`` name, such as "meta", "content" and "id"."""
    if isinstance(filters, dict):
        if isinstance(filters.get("field"), str):
            yield filters["field"].split(".")[0]
        conditions = filters.get("conditions")
        for condition in conditions if isinstance(conditions, list) else []:
            yield from named_fields(condition)


class MetadataReports:
    """What a store reports of its metadata, by Haystack's in-memory store over the matching documents."""

    @abstractmethod
    def filter_documents(self, filters: Filters | None = None) -> list[Document]:
        """The documents that match ``filters``."""

    def count_unique_metadata_by_filter(self, filters: Filters, metadata_fields: list[str]) -> dict[str, int]:
        """Number of different values of each of ``metadata_fields`` in the documents that match ``filters``."""
        return self._in_memory(filters).count_unique_metadata_by_filter({}, metadata_fields)

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """The fields of the metadata, each with its ``type``: "keyword", "int", "float" or "boolean"."""
        return self._in_memory().get_metadata_fields_info()

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """The smallest value of a field as ``min``, the largest as ``max``; None if it has no values."""
        return self._in_memory().get_metadata_field_min_max(metadata_field)

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters | None = None,
    ) -> tuple[list[Any], int]:
        """A page of the different values of a field that contain ``search_term``, and the number of all of them."""
        store = self._in_memory(filters)
        return store.get_metadata_field_unique_values(metadata_field, search_term, from_, size)

    async def count_unique_metadata_by_filter_async(
        self, filters: Filters, metadata_fields: list[str]
    ) -> dict[str, int]:
        """`count_unique_metadata_by_filter` in a thread."""
        return await asyncio.to_thread(self.count_unique_metadata_by_filter, filters, metadata_fields)

    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        """`get_metadata_fields_info` in a thread."""
        return await asyncio.to_thread(self.get_metadata_fields_info)

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        """`get_metadata_field_min_max` in a thread."""
        return await asyncio.to_thread(self.get_metadata_field_min_max, metadata_field)

    async def get_metadata_field_unique_values_async(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters | None = None,
    ) -> tuple[list[Any], int]:
        """`get_metadata_field_unique_values` in a thread."""
        return await asyncio.to_thread(
            self.get_metadata_field_unique_values, metadata_field, search_term, from_, size, filters
        )

    def _in_memory(self, filters: Filters | None = None) -> InMemoryDocumentStore:
        store = InMemoryDocumentStore(shared=False)
        # Without their texts, which it would only tokenize.
        store.write_documents([replace(document, content=None) for document in self.filter_documents(filters)])
        return store
