"""Counts, sizes and drift of an index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .derived.arrays import array_bytes, folder_bytes
from .table.codec_table import codec_table
from .table.database import local_folder, storage_errors
from .table.schema import build_column
from .table.table import IndexTable


@dataclass(frozen=True)
class Drift:
    """How far documents that came after the codec was trained lie from its centroids.

    Attributes:
        trained_cosine: mean cosine of token vectors with their centroids, over the documents the codec was trained on.
        rows: rows written since.
        cosine: the mean cosine of their token vectors; None if there are none.
        strange: share of them that lie farther than 95% of the documents the codec was trained on: 0.05 is no drift.
    """

    trained_cosine: float
    rows: int
    cosine: float | None
    strange: float | None


@dataclass(frozen=True)
class IndexInfo:
    """An index in numbers.

    Attributes:
        table: its name.
        documents: how many.
        rows: rows of the table: documents, or passages of documents.
        tokens: token vectors.
        model: name of the model.
        fingerprint: of the model.
        dim: dimensions of a vector.
        nbits: bits per dimension of a residual.
        centroids: how many.
        pool: token vectors were pooled by this factor; 1 is none.
        passage_tokens: documents were divided into passages of at most so many tokens; None if not.
        version: the LanceDB table's version.
        versions: how many versions are kept.
        columns: name → Arrow type of every column, without the empty one that marks a build of the table.
        bytes_by_part: bytes of the centroid ids, residuals and codec, as tansaku packs them, and of the derived
            arrays that are not copies of these (``lists``: inverted lists, ``keys``: row ids and offsets), if there
            are any for this version.
        bytes_on_disk: all files of the index's two tables, old versions included; None unless the database is a
            local folder.
        derived_bytes: all files of the derived arrays.
        drift: see there.
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

    @property
    def bytes_per_token(self) -> float:
        """All bytes on disk per token vector; where they are not known, those of the parts."""
        known = sum(self.bytes_by_part.values()) if self.bytes_on_disk is None else self.bytes_on_disk
        return known / max(self.tokens, 1)

    @property
    def searched_bytes_per_token(self) -> float:
        """Bytes of everything that a search reads, per token vector: the parts together."""
        return sum(self.bytes_by_part.values()) / max(self.tokens, 1)


def describe(index: IndexTable) -> IndexInfo:
    """Measure an open index."""
    table, codec, header = index.table, index.codec, index.header
    columns = ["token_count", "write_id", "centroid_cosine", *(["parent_id"] if header.passage_tokens else [])]
    with storage_errors(index.place()):
        rows = table.search().select(columns).to_arrow()
        versions = len(table.list_versions())
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
        parts["lists"] = derived["list_offsets"] + derived["postings"]
        parts["keys"] = derived["row_ids"] + derived["write_ids"] + derived["offsets"] + derived.get("deleted", 0)
    folder = local_folder(index.database)
    on_disk = None
    if folder is not None:
        on_disk = sum(folder_bytes(folder / f"{name}.lance") for name in (index.name, codec_table(index.name)))
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
        columns={field.name: str(field.type) for field in table.schema if field.name != build_column(header)},
        bytes_by_part=parts,
        bytes_on_disk=on_disk,
        derived_bytes=sum(derived.values()),
        drift=drift,
    )
