"""Ids of documents as clients of the servers send them."""

from __future__ import annotations

from typing import Any


def id_text(given: Any) -> Any:
    """An integer as the text that an index has for it; all else as it is."""
    return str(given) if isinstance(given, int) and not isinstance(given, bool) else given
