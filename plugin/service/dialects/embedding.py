"""What the embedding endpoints have in common."""

from __future__ import annotations

from ..core import Service
from ..errors import ServiceError


def checked_texts(service: Service, texts: list[str]) -> list[str]:
    """``texts``, if they can be encoded; raises ServiceError if not."""
    limit = service.settings.max_embed_texts
    if not texts:
        raise ServiceError(422, "the list of texts is empty; give at least one", "input")
    if len(texts) > limit:
        raise ServiceError(413, f"there are {len(texts):,} texts; at most {limit:,} are encoded at once", "documents")
    for i, text in enumerate(texts):
        if not text.strip():
            raise ServiceError(422, f"text {i} is empty; leave it out", "input")
    return texts
