"""Haystack's filters over our rows, answered by Haystack's own code, and what stores tell of their metadata."""

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
    """Whether ``filters`` hold for ``document``; none, or an empty dict, always do.

    Raises FilterError for filters that Haystack cannot read and for values that cannot be compared.
    """
    if not filters:
        return True
    try:
        return document_matches_filter(filters, document)
    except (TypeError, AttributeError) as error:  # a dict beside a number, a condition that is no dict
        raise FilterError(f"the filter {filters!r} cannot be applied: {error}") from error


def check_filters(filters: Filters | None) -> None:
    """Raise FilterError if Haystack cannot read ``filters``: over an empty store too, where nothing is compared."""
    matches(filters, Document(content=""))


def named_fields(filters: Any) -> Iterator[str]:
    """The fields of a document that ``filters`` speak of, such as "meta", "content" and "id"."""
    if isinstance(filters, dict):
        if isinstance(filters.get("field"), str):
            yield filters["field"].split(".")[0]
        conditions = filters.get("conditions")
        for condition in conditions if isinstance(conditions, list) else []:
            yield from named_fields(condition)


class MetadataQuestions:
    """What stores tell of their metadata, answered by Haystack's in-memory store over the matching documents."""

    @abstractmethod
    def filter_documents(self, filters: Filters | None = None) -> list[Document]:
        """The documents for which ``filters`` hold."""

    def count_unique_metadata_by_filter(self, filters: Filters, metadata_fields: list[str]) -> dict[str, int]:
        """How many different values each of ``metadata_fields`` has in the documents for which ``filters`` hold."""
        return self._in_memory(filters).count_unique_metadata_by_filter({}, metadata_fields)

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """The fields of the metadata, each with its ``type``: "keyword", "int", "float" or "boolean"."""
        return self._in_memory().get_metadata_fields_info()

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """The least value of a field as ``min``, the greatest as ``max``; None where there is none."""
        return self._in_memory().get_metadata_field_min_max(metadata_field)

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters | None = None,
    ) -> tuple[list[Any], int]:
        """A page of the different values of a field that contain ``search_term``, and how many there are in all."""
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
