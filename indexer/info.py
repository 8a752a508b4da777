"""Counts, sizes and drift of an index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .codec.codec import is_outgrown
from .derived.arrays import array_bytes, folder_bytes
from .derived.segments import damaged
from .table.codec_table import codec_table
from .table.columns_of_rows import read_columns
from .table.database import local_folder, storage_errors
from .table.schema import internal_fields
from .table.table import IndexTable


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
class IndexInfo:
    """The counts, sizes and settings of an index.

    Attributes:
        table: name of the table.
        documents: number of documents.
        rows: number of rows of the table. In an index of passages each passage is a row, otherwise each document.
        tokens: number of token vectors.
        model: name of the model that made the vectors.
        fingerprint: hash of that model's files.
        dim: length of a token vector.
        nbits: bits per dimension of a residual.
        centroids: number of centroids.
        pool: pooling factor of the token vectors; 1 means no pooling.
        passage_tokens: largest number of tokens of a passage; None if documents are not divided into passages.
        version: version of the LanceDB table.
        versions: number of versions that are kept.
        columns: names of the columns with their Arrow types, without those in which tansaku keeps codes and the text
            for full text search.
        bytes_by_part: number of bytes by part: ``centroid_ids``, ``residuals`` and ``codec``, as tansaku packs them;
            and, if this version has derived arrays, ``lists`` (inverted lists), ``keys`` (row ids and offsets) and
            ``ids`` (of documents and passages).
        bytes_on_disk: number of bytes of all files of the index's two tables, old versions included; None if the
            database is in an object store.
        derived_bytes: number of bytes of all files of the derived arrays.
        drift: how well the codec fits the rows added after it was trained.
        outgrown: whether the index has grown too much for its codec; `Index.rebuild` trains a new one.
    """

    table: str
    documents: int
    rows: int
    tokens: int
    model: str
    fingerprint: str
    dim: int
    nbits: int
    centroids: int
    pool: int
    passage_tokens: int | None
    version: int
    versions: int
    columns: dict[str, str]
    bytes_by_part: dict[str, int]
    bytes_on_disk: int | None
    derived_bytes: int
    drift: Drift
    outgrown: bool

    @property
    def bytes_per_token(self) -> float:
        """Bytes on disk per token vector; if those are not known, the bytes of all parts per token vector."""
        known = sum(self.bytes_by_part.values()) if self.bytes_on_disk is None else self.bytes_on_disk
        return known / max(self.tokens, 1)

    @property
    def searched_bytes_per_token(self) -> float:
        """Bytes that a search may read, per token vector: those of all parts."""
        return sum(self.bytes_by_part.values()) / max(self.tokens, 1)


def describe(index: IndexTable) -> IndexInfo:
    """Measure an open index: the work of `Index.info`.

    Args:
        index: the open table.

    Returns:
        Its counts and sizes.

    Raises:
        StorageError: the table cannot be read.
    """
    table, codec, header = index.table, index.codec, index.header
    columns = ["token_count", "write_id", "centroid_cosine", *(["parent_id"] if header.passage_tokens else [])]
    with storage_errors(index.place()):
        rows = read_columns(table, columns)
        versions = len(table.list_versions())
    for name in columns:
        if rows[name].null_count:
            raise damaged(index, name, "has no value in some rows")
    counts = rows["token_count"].to_numpy().astype(np.int64)
    tokens = int(counts.sum())
    later = rows["write_id"].to_numpy() != header.build_id
    cosines = rows["centroid_cosine"].to_numpy()[later]
    drift = Drift(
        trained_cosine=index.fit.mean,
        rows=int(later.sum()),
        cosine=float(np.average(cosines, weights=counts[later])) if len(cosines) else None,
        strange=float((cosines < index.fit.low).mean()) if len(cosines) else None,
    )
    parts = {
        "centroid_ids": tokens * codec.id_dtype.itemsize,
        "residuals": tokens * codec.residual_bytes,
        "codec": codec.stored_bytes,
    }
    derived = array_bytes(index)
    if derived:
        parts["lists"] = derived["list_offsets"] + derived["postings"] + derived.get("routing", 0)
        parts["keys"] = derived["row_ids"] + derived["write_ids"] + derived["offsets"] + derived.get("deleted", 0)
        parts["ids"] = sum(size for name, size in derived.items() if name.startswith(("id_", "parent_id_")))
    folder = local_folder(index.database)
    on_disk = None
    if folder is not None:
        on_disk = sum(folder_bytes(folder / f"{name}.lance") for name in (index.name, codec_table(index.name)))
    internal = internal_fields(header)
    return IndexInfo(
        table=index.name,
        documents=len(rows["parent_id"].unique()) if header.passage_tokens else len(rows),
        rows=len(rows),
        tokens=tokens,
        model=header.model,
        fingerprint=header.fingerprint,
        dim=codec.dim,
        nbits=codec.nbits,
        centroids=len(codec.centroids),
        pool=header.pool,
        passage_tokens=header.passage_tokens,
        version=table.version,
        versions=versions,
        columns={field.name: str(field.type) for field in table.schema if field.name not in internal},
        bytes_by_part=parts,
        bytes_on_disk=on_disk,
        derived_bytes=sum(derived.values()),
        drift=drift,
        outgrown=is_outgrown(len(codec.centroids), tokens),
    )
