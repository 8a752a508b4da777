"""Counts and sizes of an index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from .table import IndexTable, codec_table


@dataclass(frozen=True)
class IndexInfo:
    """An index in numbers.

    Attributes:
        table: its name.
        documents: how many.
        tokens: token vectors.
        model: name of the model.
        fingerprint: of the model.
        dim: dimensions of a vector.
        nbits: bits per dimension of a residual.
        centroids: how many.
        version: the LanceDB table's version.
        columns: name → Arrow type of every column.
        bytes_by_part: bytes of the centroid ids, the residuals, the codec table and the rest (texts, titles,
            the caller's columns, LanceDB's own files); the last two only for a database in a local folder.
    """

    table: str
    documents: int
    tokens: int
    model: str
    fingerprint: str
    dim: int
    nbits: int
    centroids: int
    version: int
    columns: dict[str, str]
    bytes_by_part: dict[str, int]

    @property
    def bytes_per_token(self) -> float:
        """All bytes on disk per token vector."""
        return sum(self.bytes_by_part.values()) / max(self.tokens, 1)


def describe(name: str, index: IndexTable) -> IndexInfo:
    """Measure an open index."""
    table, codec = index.table, index.codec
    counts = table.search().select(["token_count"]).to_arrow()["token_count"]
    tokens = pc.sum(counts).as_py() or 0
    parts = {"centroid_ids": tokens * codec.id_dtype.itemsize, "residuals": tokens * codec.residual_bytes}
    folder = Path(index.database.uri.removeprefix("file://"))
    if folder.is_dir():
        parts["codec"] = _folder_bytes(folder / f"{codec_table(name)}.lance")
        parts["texts_and_other"] = _folder_bytes(folder / f"{name}.lance") - sum(
            parts[part] for part in ("centroid_ids", "residuals")
        )
    return IndexInfo(
        table=name,
        documents=len(counts),
        tokens=tokens,
        model=index.header.model,
        fingerprint=index.header.fingerprint,
        dim=codec.dim,
        nbits=codec.nbits,
        centroids=len(codec.centroids),
        version=table.version,
        columns={field.name: str(field.type) for field in table.schema},
        bytes_by_part=parts,
    )


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
