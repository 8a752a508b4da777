"""A search as every host runs it."""

from __future__ import annotations

import logging
from typing import Any

from ..search.plan import SearchOptions
from ..search.results import Hits
from ..search.searcher import Searcher

_logger = logging.getLogger(__name__)


def search(searcher: Searcher, query: str, options: SearchOptions) -> Hits:
    """`Searcher.search`; a warning logs the number of unknown ids, which a host's documents have no place for."""
    hits = searcher.search(query, **vars(options))
    if hits.missing:
        _logger.warning("%d of the ids that the search was restricted to are not in the index", len(hits.missing))
    return hits


def options_but_k(options: SearchOptions) -> dict[str, Any]:
    """The options by name without ``k``, for which hosts have a name of their own."""
    return {name: value for name, value in vars(options).items() if name != "k"}
