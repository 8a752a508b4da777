"""Rows of the table: token vectors compressed to codes, and codes beside the other columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ..codec.codec import ResidualCodec
from ..codec.pooling import pool_tokens
from ..read.columns import field_array
from ..read.documents import Document
from ..read.scan import Reject
from ..table.fulltext import FULLTEXT_FIELD, normalized
from ..table.schema import IndexHeader, build_column, document_schema


class RowCodes(NamedTuple):
    """One document, compressed: the columns of its row that come from its vectors."""

    centroid_ids: bytes
    residuals: bytes
    centroid_cosine: float
    truncated: bool


@dataclass(frozen=True)
class RowMaker:
    """How documents become rows: everything that all rows of one write have in common.

    Attributes:
        encoder: makes the token vectors; None where all documents have theirs.
        header: of the table.
        fields: the caller's columns.
        write_id: of this write.
    """

    encoder: Encoder | None
    header: IndexHeader
    fields: list[pa.Field]
    write_id: int

    def vectors(self, documents: Sequence[Document]) -> tuple[list[np.ndarray], list[bool]]:
        """Token vectors of each document, and whether its text was cut."""
        given = [document.vectors for document in documents if document.vectors is not None]
        if len(given) == len(documents):
            return given, [False] * len(given)
        assert self.encoder is not None  # noqa: S101
        tokenized = self.encoder.tokenize_documents([document.encoded_text for document in documents])
        return self.encoder.encode_tokens(tokenized), [text.truncated for text in tokenized]

    def rows(self, documents: Sequence[Document], codes: Sequence[RowCodes], codec: ResidualCodec) -> pa.RecordBatch:
        """Rows of the table."""
        columns: dict[str, Sequence[Any] | pa.Array] = {
            "id": [document.id for document in documents],
            "title": [document.title for document in documents],
            "text": [document.text for document in documents],
            "parent_id": [document.parent_id for document in documents],
            "passage": [document.passage for document in documents],
        }
        if self.header.fulltext:
            columns[FULLTEXT_FIELD] = [normalized(document.encoded_text) for document in documents]
        # The caller's may be named as those of passages are, where there are none.
        columns |= {column.name: field_array(documents, column) for column in self.fields}
        return self.batch({**columns, **self.code_columns(codes, codec)})

    def code_columns(self, codes: Sequence[RowCodes], codec: ResidualCodec) -> dict[str, Sequence[Any]]:
        """The columns that come from the rows' codes and the write."""
        return {
            "token_count": [len(code.centroid_ids) // codec.id_dtype.itemsize for code in codes],
            "centroid_ids": [code.centroid_ids for code in codes],
            "residuals": [code.residuals for code in codes],
            "centroid_cosine": [code.centroid_cosine for code in codes],
            "write_id": [self.write_id] * len(codes),
            build_column(self.header): [None] * len(codes),
        }

    def batch(self, columns: Mapping[str, Any]) -> pa.RecordBatch:
        """Rows of the table from columns by name, of which it may not have all."""
        schema = document_schema(self.fields, self.header)
        return pa.record_batch([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


class SampleCodes:
    """RowCodes of sampled documents by position.

    Args:
        sample: as `Staging.load_sample` returns it; None knows nothing.
    """

    def __init__(self, sample: pa.Table | None) -> None:
        self._sample = sample
        positions = [] if sample is None else sample["position"].to_pylist()
        self._rows = {position: row for row, position in enumerate(positions)}

    def __contains__(self, position: int) -> bool:
        return position in self._rows

    def __getitem__(self, position: int) -> RowCodes:
        assert self._sample is not None  # noqa: S101
        row = self._sample.slice(self._rows[position], 1).to_pylist()[0]
        return RowCodes(row["centroid_ids"], row["residuals"], row["centroid_cosine"], row["truncated"])


def compress_documents(
    documents: Sequence[Document],
    vectors: Sequence[np.ndarray],
    truncated: Sequence[bool],
    maker: RowMaker,
    codec: ResidualCodec,
    reject: Reject,
) -> dict[str, RowCodes]:
    """Check, pool and compress the vectors of documents; codes by id, of those that ``reject`` was not called for."""
    usable = usable_documents(documents, vectors, reject)
    pooled = [pool_tokens(vectors[i], maker.header.pool) for i in usable]
    codes = compress_vectors(pooled, [truncated[i] for i in usable], codec)
    return {documents[i].id: code for i, code in zip(usable, codes, strict=True)}


def compress_vectors(vectors: Sequence[np.ndarray], truncated: Sequence[bool], codec: ResidualCodec) -> list[RowCodes]:
    """The codes of documents given by their token vectors, float32 (tokens, dim) each."""
    if not vectors:
        return []
    joined = np.concatenate(vectors)
    ids, similarities = codec.nearest(joined)
    residuals = codec.quantize(joined, ids)
    ends = np.cumsum([len(matrix) for matrix in vectors])
    return [
        RowCodes(ids[s:e].tobytes(), residuals[s:e].tobytes(), float(similarities[s:e].mean()), bool(cut))
        for s, e, cut in zip([0, *ends[:-1]], ends, truncated, strict=True)
    ]


def usable_documents(documents: Sequence[Document], vectors: Sequence[np.ndarray], reject: Reject) -> list[int]:
    """Which documents have vectors that a codec can hold; ``reject`` is told of the others."""
    usable = []
    for i, (document, matrix) in enumerate(zip(documents, vectors, strict=True)):
        if not len(matrix):
            problem = "no vectors"
        elif not np.isfinite(matrix).all():
            problem = "vectors that are not finite"
        elif (np.abs(np.linalg.norm(matrix, axis=1) - 1) > 0.01).any():
            problem = "vectors that are not of unit length"
        else:
            usable.append(i)
            continue
        reject(document, InputError(f"{document.place}: document {document.id!r} has {problem}"))
    return usable
