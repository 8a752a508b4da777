"""Rows of the table: token vectors compressed to codes, and codes next to the other columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from .report import IDS_NAMED


class RowCodes(NamedTuple):
    """One row's compressed vectors: the columns that come from them.

    Attributes:
        centroid_ids: the centroid id of each token, as stored (`ResidualCodec.id_dtype`).
        residuals: the residual of each token, as stored.
        centroid_cosine: mean cosine of the row's token vectors with their centroids.
        truncated: whether the text was cut because it is longer than the model reads.
    """

    centroid_ids: bytes
    residuals: bytes
    centroid_cosine: float
    truncated: bool


@dataclass
class Unread:
    """The rows with text that the model cannot read, in whole or in part.

    Attributes:
        count: their number.
        ids: ids of the first five.
    """

    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, doc_id: str) -> None:
        """Count a row."""
        self.count += 1
        if len(self.ids) < IDS_NAMED:
            self.ids.append(doc_id)

    def merge(self, other: Unread) -> None:
        """Count the rows that another has counted."""
        self.count += other.count
        self.ids += other.ids[: IDS_NAMED - len(self.ids)]


@dataclass(frozen=True)
class RowMaker:
    """Makes rows from documents; holds what all rows of one write have in common.

    Attributes:
        encoder: makes the token vectors; None if all documents have vectors.
        header: the table's header.
        fields: the caller's columns.
        write_id: the id of this write, stored in each of its rows.
        unread: counts rows as they are encoded, those of an interrupted call not again.
    """

    encoder: Encoder | None
    header: IndexHeader
    fields: list[pa.Field]
    write_id: int
    unread: Unread = field(default_factory=Unread, compare=False)

    def vectors(
        self, documents: Sequence[Document], note: Callable[[int], None] | None = None
    ) -> tuple[list[np.ndarray], list[bool]]:
        """Encode documents, unless they have vectors.

        Args:
            documents: documents or passages; either all or none have vectors.
            note: called now and then with the number of documents that are encoded.

        Returns:
            For each document its token vectors, float32 (tokens, dim), and whether its text was cut.
        """
        given = [document.vectors for document in documents if document.vectors is not None]
        if len(given) == len(documents):
            return given, [False] * len(given)
        assert self.encoder is not None  # noqa: S101
        tokenized = self.encoder.tokenize_documents([document.encoded_text for document in documents])
        for document, text in zip(documents, tokenized, strict=True):
            if text.unread:
                self.unread.add(document.id)
        return self.encoder.encode_tokens(tokenized, note), [text.truncated for text in tokenized]

    def rows(self, documents: Sequence[Document], codes: Sequence[RowCodes], codec: ResidualCodec) -> pa.RecordBatch:
        """Make rows of the table.

        Args:
            documents: documents or passages, one for each row.
            codes: their codes, in the same order.
            codec: the codec of the codes.

        Returns:
            The rows, in the same order, with the table's schema.
        """
        columns: dict[str, Sequence[Any] | pa.Array] = {
            "id": [document.id for document in documents],
            "title": [document.title for document in documents],
            "text": [document.text for document in documents],
            "parent_id": [document.parent_id for document in documents],
            "passage": [document.passage for document in documents],
        }
        if self.header.fulltext:
            columns[FULLTEXT_FIELD] = [normalized(document.encoded_text) for document in documents]
        # In an index without passages the caller's columns may have the names of the columns of passages.
        columns |= {column.name: field_array(documents, column) for column in self.fields}
        return self.batch({**columns, **self.code_columns(codes, codec)})

    def code_columns(self, codes: Sequence[RowCodes], codec: ResidualCodec) -> dict[str, Sequence[Any]]:
        """Make the columns that come from the codes and the write.

        Args:
            codes: the codes of each row.
            codec: the codec of the codes.

        Returns:
            The values of each column by its name.
        """
        return {
            "token_count": [len(code.centroid_ids) // codec.id_dtype.itemsize for code in codes],
            "centroid_ids": [code.centroid_ids for code in codes],
            "residuals": [code.residuals for code in codes],
            "centroid_cosine": [code.centroid_cosine for code in codes],
            "write_id": [self.write_id] * len(codes),
            build_column(self.header): [None] * len(codes),
        }

    def batch(self, columns: Mapping[str, Any]) -> pa.RecordBatch:
        """Make rows of the table from columns.

        Args:
            columns: values by name of column; columns that the table does not have are ignored.

        Returns:
            The rows, with the table's schema.
        """
        schema = document_schema(self.fields, self.header)
        return pa.record_batch([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


class SampleCodes:
    """The `RowCodes` of the codec's training sample, by position in the source.

    Args:
        sample: as `Staging.load_sample` returns it; None: no codes.
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
    """Check, pool and compress the token vectors of documents.

    Args:
        documents: documents or passages.
        vectors: float32 (tokens, dim) for each document.
        truncated: whether each document's text was cut.
        maker: knows the pooling factor.
        codec: compresses the vectors.
        reject: called for each document whose vectors cannot be used.

    Returns:
        The codes by id, without those of rejected documents.
    """
    usable = usable_documents(documents, vectors, reject)
    pooled = [pool_tokens(vectors[i], maker.header.pool) for i in usable]
    codes = compress_vectors(pooled, [truncated[i] for i in usable], codec)
    return {documents[i].id: code for i, code in zip(usable, codes, strict=True)}


def compress_vectors(vectors: Sequence[np.ndarray], truncated: Sequence[bool], codec: ResidualCodec) -> list[RowCodes]:
    """Compress token vectors.

    Args:
        vectors: float32 (tokens, dim) for each row.
        truncated: whether each row's text was cut.
        codec: compresses the vectors.

    Returns:
        The codes of each row, in the same order.
    """
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
    """Find the documents whose token vectors can be compressed: some vectors, all finite and of unit length.

    Args:
        documents: documents or passages.
        vectors: float32 (tokens, dim) for each document.
        reject: called for each of the other documents.

    Returns:
        Positions in ``documents``, ascending.
    """
    usable = []
    for i, (document, matrix) in enumerate(zip(documents, vectors, strict=True)):
        if not len(matrix):
            problem = "no vectors"
        elif not np.isfinite(matrix).all():
            problem = "vectors that are not finite"
        elif not matrix.any(axis=1).all():
            problem = "vectors of zeros, as padding has; leave these rows of the matrix out"
        elif (np.abs(np.linalg.norm(matrix, axis=1) - 1) > 0.01).any():
            problem = "vectors that are not of unit length; divide each by its length"
        else:
            usable.append(i)
            continue
        reject(document, InputError(f"{document.place}: document {document.id!r} has {problem}"))
    return usable
