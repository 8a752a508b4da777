"""What the frameworks' adapters share: a search as all of them run it, and the refusal of unknown arguments."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from ...onnx_export.errors import InputError
from ..rerank.reranker import Reranker, RerankResult
from ..search.cuts import documents_warning, query_warning
from ..search.plan import SearchOptions
from ..search.results import Hits
from ..search.searcher import Searcher

_logger = logging.getLogger(__name__)


def search(searcher: Searcher, query: str, options: SearchOptions) -> Hits:
    """`Searcher.search`; warnings log what a host's documents have no place for: unknown ids, a query that was cut."""
    hits = searcher.search(query, **vars(options))
    if hits.truncated:
        _logger.warning(query_warning(searcher.encoder))
    if hits.missing:
        _logger.warning("the index does not have %d of the ids that the search was restricted to", len(hits.missing))
    return hits


def rerank(
    reranker: Reranker, query: str, texts: Sequence[str | None], ids: Sequence[str | None] | None, **options: Any
) -> RerankResult:
    """`Reranker.rerank`; warnings log what a host's documents have no place for: a query or texts that were cut."""
    ranked = reranker.rerank(query, texts, ids=ids, **options)
    if ranked.truncated:
        _logger.warning(query_warning(reranker.encoder))
    if ranked.cut:
        cut = [i if ids is None or ids[i] is None else ids[i] for i in ranked.cut]
        _logger.warning(documents_warning(reranker.encoder, cut, ranked.encoded))
    return ranked


def options_but_k(options: SearchOptions) -> dict[str, Any]:
    """The options by name without ``k``, for which hosts have a name of their own."""
    return {name: value for name, value in vars(options).items() if name != "k"}


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """For methods that a framework gives ``**kwargs``: raise InputError for a name of ``given`` not in ``known``."""
    known = list(known)
    for name in given:
        if name not in known:
            raise InputError(f"unknown argument {name!r}; use {', '.join(known) or 'none'}")
