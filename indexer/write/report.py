"""The counts that a write returns."""

from __future__ import annotations

from dataclasses import dataclass, field

IDS_NAMED = 5  # of the rows that a report counts


@dataclass
class BuildReport:
    """What one call of `Index.create`, `add`, `upsert` or `rebuild` wrote.

    A row is a whole document or, in an index of passages, one passage.

    Attributes:
        rows: number of rows written.
        tokens: number of token vectors written.
        truncated: number of rows whose text was cut because it is longer than the model reads. Passages
            (``passage_tokens``) avoid that.
        truncated_ids: ids of the first five of these.
        rejected: number of records that were left out and passed to `Rejects`.
        resumed: how many of ``rows`` an interrupted call had already encoded.
        unread: number of rows encoded by this call with text that the model cannot read: characters without a token, or
            nothing but invisible ones.
        unread_ids: ids of the first five of these.
        updated: how many of ``rows`` replaced older rows.
        column_types: for each column of a new table whose values were text in CSV or TSV, or that became text because
            a spreadsheet mixes values of several kinds, its type; see `FieldNames`.
        documents: number of documents that these rows are; fewer than ``rows`` in an index of passages.
        passages: whether the rows are passages.
    """

    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    rejected: int = 0
    resumed: int = 0
    updated: int = 0
    unread: int = field(default=0, compare=False)
    unread_ids: list[str] = field(default_factory=list, compare=False)
    truncated_ids: list[str] = field(default_factory=list, compare=False)
    column_types: dict[str, str] = field(default_factory=dict, compare=False)
    documents: int = field(default=0, compare=False)
    passages: bool = field(default=False, compare=False)
