"""What the frameworks' adapters share: a search as all of them run it, and the refusal of unknown arguments."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from ...onnx_export.errors import InputError
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


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """For methods that a framework gives ``**kwargs``: raise InputError for a name of ``given`` not in ``known``."""
    known = list(known)
    for name in given:
        if name not in known:
            raise InputError(f"unknown argument {name!r}; use {', '.join(known) or 'none'}")
