"""Drift: how well the codec of an index fits the rows that were added after it was trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from lancedb.table import Table

from ..table.columns_of_rows import read_columns
from ..table.database import storage_errors
from ..table.table import IndexTable
from .segments import damaged

# How far the mean cosine of all token vectors must have fallen. `benchmarks.search.history --rebuild`, and a trial with
# other corpora: where it had fallen by .15 to .49, a rebuild raised recall@10 by .04 to .10; where by .07 or less, by
# .00 to .01.
_FAR = 0.1


@dataclass(frozen=True)
class Drift:
    """How well the codec fits the rows that were added after it was trained.

    A codec fits a row if the row's token vectors are near to their centroids. If it no longer fits, `Index.rebuild`
    trains a new one.

    Attributes:
        trained_cosine: mean cosine of token vectors with their centroids, in the rows that the codec was trained on.
        rows: number of rows written since then.
        cosine: the same mean over the rows written since then; None without such rows.
        strange: share of those rows whose mean cosine is below that of 95% of the rows that the codec was trained on;
            0.05 means no drift. None without such rows.
    """

    trained_cosine: float
    rows: int
    cosine: float | None
    strange: float | None


@dataclass(frozen=True)
class Fit:
    """The drift of an index, and what it was measured on.

    Attributes:
        drift: the drift.
        later: share of the token vectors that are in rows written after the codec was trained, 0 to 1.
        tokens: number of token vectors.
        rows: number of rows.
        documents: number of documents.
    """

    drift: Drift
    later: float
    tokens: int
    rows: int
    documents: int


def measure_drift(index: IndexTable, table: Table | None = None) -> Fit:
    """Measure the drift of an open index by reading three numbers of each row.

    Args:
        index: the open table.
        table: another version of it; None: the one that is open.

    Raises:
        StorageError: the table cannot be read, or lacks these numbers in some rows.
    """
    passages = index.header.passage_tokens
    columns = ["token_count", "write_id", "centroid_cosine", *(["parent_id"] if passages else [])]
    with storage_errors(index.place()):
        rows = read_columns(table or index.table, columns)
    for name in columns:
        if rows[name].null_count:
            raise damaged(index, name, "has no value in some rows")
    counts = rows["token_count"].to_numpy().astype(np.int64)
    later = rows["write_id"].to_numpy() != index.header.build_id
    cosines = rows["centroid_cosine"].to_numpy()[later]
    drift = Drift(
        trained_cosine=index.fit.mean,
        rows=int(later.sum()),
        cosine=float(np.average(cosines, weights=counts[later])) if len(cosines) else None,
        strange=float((cosines < index.fit.low).mean()) if len(cosines) else None,
    )
    tokens = int(counts.sum())
    n_documents = len(rows["parent_id"].unique()) if passages else len(rows)
    return Fit(drift, float(counts[later].sum() / max(tokens, 1)), tokens, len(rows), n_documents)


def is_far(drift: Drift, later: float) -> bool:
    """Tell whether later rows lie so far from the centroids that a new codec would find more.

    Args:
        drift: the drift.
        later: share of the token vectors in later rows, 0 to 1.
    """
    return drift.cosine is not None and later * (drift.trained_cosine - drift.cosine) >= _FAR
