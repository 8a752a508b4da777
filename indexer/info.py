"""Counts, sizes and drift of an index."""

from __future__ import annotations

from dataclasses import dataclass

from .codec.codec import default_centroids
from .derived.arrays import array_bytes, folder_bytes
from .derived.drift import Drift, is_far, measure_drift
from .derived.routing import is_outgrown
from .table.codec_table import codec_table
from .table.database import local_folder, storage_errors
from .table.schema import internal_fields
from .table.table import IndexTable


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
        outgrown: whether the index has grown too much for its inverted lists, so that a search looks at more documents;
            `Index.rebuild` trains a codec with more centroids.
        advice: a sentence: whether `Index.rebuild` would help, and by how much.
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
    advice: str

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
    with storage_errors(index.place()):
        versions = len(table.list_versions())
    fit = measure_drift(index)
    tokens, drift = fit.tokens, fit.drift
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
    outgrown = is_outgrown(codec, tokens)
    return IndexInfo(
        table=index.name,
        documents=fit.documents,
        rows=fit.rows,
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
        outgrown=outgrown,
        advice=advice_on_rebuild(drift, fit.later, len(codec.centroids), tokens, outgrown),
    )


def advice_on_rebuild(drift: Drift, later: float, n_centroids: int, n_tokens: int, outgrown: bool) -> str:
    """Whether `Index.rebuild` would help, and by how much: one sentence or more, for people.

    What decides is how far the mean cosine of all token vectors with their centroids lies below that at training. The
    share of outliers does not decide: it was high also where a rebuild changed little.

    Args:
        drift: how well the codec fits later rows.
        later: share of the token vectors that are in those rows, 0 to 1.
        n_centroids: number of centroids.
        n_tokens: number of token vectors.
        outgrown: whether there are too few lists for them, see `is_outgrown`.
    """
    wanted = default_centroids(n_tokens)
    more = f"it trains about {wanted:,} centroids or more in place of {n_centroids:,}" if wanted > n_centroids else ""
    cosine = drift.trained_cosine if drift.cosine is None else drift.cosine
    if is_far(drift, later):
        far = (
            "`tansaku rebuild` would help: documents added later lie far from the centroids, with a mean cosine of "
            f"{cosine:.2f}, against {drift.trained_cosine:.2f} at training. "
            "In trials, recall@10 then rose by 0.04 to 0.10"
        )
        return f"{far}; {more}" if more else far
    if outgrown and more:
        return f"`tansaku rebuild` would make searches faster: {more}"
    if drift.cosine is None:
        return "a rebuild would change little: no document was added after the codec was trained"
    return (
        "a rebuild would change little: documents added later have a mean cosine with their centroids of "
        f"{cosine:.2f}, against {drift.trained_cosine:.2f} at training. In trials, recall@10 then rose by 0.00 to 0.01"
    )
