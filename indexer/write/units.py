"""What every worker does, in this process, in others or on other machines: a chunk of documents becomes rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ...onnx_export.errors import InputError
from ..codec.codec import ResidualCodec
from ..read.documents import Document
from .report import IDS_NAMED
from .rows import RowCodes, RowMaker, compress_documents


@dataclass
class Chunk:
    """Documents that are encoded together.

    Attributes:
        number: the chunk's number in the source, from 0.
        documents: documents or passages, in order.
        known: codes by id, of documents that were encoded before to train the codec.
        left_out: places of documents that are not encoded, each with the reason.
    """

    number: int
    documents: list[Document]
    known: dict[str, RowCodes] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def fresh(self) -> list[Document]:
        """The documents that are to be encoded."""
        return [each for each in self.documents if each.id not in self.known and each.place not in self.left_out]


@dataclass
class ChunkRows:
    """The rows of a chunk.

    Attributes:
        rows: the rows of the table, without those of rejected documents.
        report: counts and rejects, as JSON values.
    """

    rows: pa.RecordBatch
    report: dict[str, Any]


def compress_chunk(
    chunk: Chunk, vectors: Sequence[np.ndarray], truncated: Sequence[bool], maker: RowMaker, codec: ResidualCodec
) -> ChunkRows:
    """Compress the vectors of a chunk, and make its rows.

    Args:
        chunk: the chunk.
        vectors: float32 (tokens, dim), of each document of ``chunk.fresh``.
        truncated: whether its text was cut.
        maker: makes the rows.
        codec: compresses the vectors.

    Returns:
        The rows, and the report on them.
    """
    rejected = dict(chunk.left_out)

    def leave_out(document: Document, error: InputError) -> None:
        rejected[document.place] = str(error)

    coded = chunk.known | compress_documents(chunk.fresh, vectors, truncated, maker, codec, leave_out)
    # Passages of one document share a place: if one cannot be used, its others in this chunk are left out too.
    kept = [document for document in chunk.documents if document.place not in rejected]
    rows = maker.rows(kept, [coded[document.id] for document in kept], codec)
    cut = [document.id for document in kept if coded[document.id].truncated]
    report = {
        "documents": len(kept),
        "firsts": sum(document.passage == 0 for document in kept),
        "tokens": sum(rows["token_count"].to_pylist()),
        "truncated": len(cut),
        "truncated_ids": cut[:IDS_NAMED],
        "rejected": list(rejected.items()),
    }
    return ChunkRows(rows, report)
