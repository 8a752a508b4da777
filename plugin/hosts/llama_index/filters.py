"""LlamaIndex's metadata filters, which mean what they mean in its own in-memory store: its code evaluates them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from ....onnx_export.errors import InputError


def matches(filters: MetadataFilters, metadata: Mapping[str, Any]) -> bool:
    """Whether metadata meet filters, which may hold other filters.

    Args:
        filters: the filters; without any, everything meets them.
        metadata: of a node.

    Raises:
        InputError: a filter compares values that cannot be compared.
    """
    if not filters.filters:
        return True
    met = [
        matches(one, metadata) if isinstance(one, MetadataFilters) else _meets(one, metadata) for one in filters.filters
    ]
    if filters.condition == FilterCondition.OR:
        return any(met)
    return not any(met) if filters.condition == FilterCondition.NOT else all(met)


def _meets(one: MetadataFilter, metadata: Mapping[str, Any]) -> bool:
    try:
        return build_metadata_filter_fn(lambda _: metadata, MetadataFilters(filters=[one]))("")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the filter {one.key} {one.operator.value} {one.value!r} cannot be applied to {metadata.get(one.key)!r} "
            f"({error}); use values of the same kind"
        ) from error
