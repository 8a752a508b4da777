"""What a write did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class BuildReport:
    """What one call has indexed.

    Attributes:
        documents: rows written: documents, or passages of documents.
        tokens: token vectors written.
        truncated: rows whose text was cut because it is longer than the model reads.
        rejected: records left out; they are in the file for rejects.
        resumed: rows of these that an interrupted call had encoded before.
        updated: rows of these that took the place of older ones.
    """

    documents: int = 0
    tokens: int = 0
    truncated: int = 0
    rejected: int = 0
    resumed: int = 0
    updated: int = 0
