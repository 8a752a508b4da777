"""Counts and sizes of an index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
        bytes_by_part: bytes of the centroid ids, the residuals and the codec, as tansaku packs them.
        bytes_on_disk: all files of the index's two tables, old versions included; None unless the database is a
            local folder.
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
    bytes_on_disk: int | None

    @property
    def bytes_per_token(self) -> float:
        """All bytes on disk per token vector; where they are not known, those of the parts."""
        known = sum(self.bytes_by_part.values()) if self.bytes_on_disk is None else self.bytes_on_disk
        return known / max(self.tokens, 1)


def describe(name: str, index: IndexTable) -> IndexInfo:
    """Measure an open index."""
    table, codec = index.table, index.codec
    counts = table.search().select(["token_count"]).to_arrow()["token_count"]
    tokens = int(counts.to_numpy().sum())
    parts = {
        "centroid_ids": tokens * codec.id_dtype.itemsize,
        "residuals": tokens * codec.residual_bytes,
        "codec": codec.stored_bytes,
    }
    folder = Path(index.database.uri.removeprefix("file://"))
    on_disk = None
    if folder.is_dir():
        on_disk = sum(_folder_bytes(folder / f"{table_name}.lance") for table_name in (name, codec_table(name)))
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
        bytes_on_disk=on_disk,
    )


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
