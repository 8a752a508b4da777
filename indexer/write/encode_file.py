"""Texts to a Parquet file of token vectors, which another machine indexes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ...onnx_export.encode.encoder import Encoder
from ..read.columns import ColumnTypes, field_array
from ..read.documents import RESERVED_FIELDS, Document, DocumentReader, FieldNames
from ..read.scan import DOCUMENTS_PER_CHUNK, scan
from ..read.vectors import FINGERPRINT_KEY, MODEL_KEY
from .build_steps import as_scanned, noted
from .options import WriteOptions
from .parquet_parts import ParquetParts
from .report import IDS_NAMED, BuildReport

VECTORS = "vectors"
"""Name of the column with the token vectors."""

Floats = Literal["float16", "float32"]


def encode_file(
    records: Iterable[Any],
    path: Path,
    encoder: Encoder,
    *,
    floats: Floats = "float16",
    overwrite: bool = False,
    options: WriteOptions,
) -> BuildReport:
    """Encode documents into a Parquet file: id, title, text, the other columns, and ``vectors``.

    The file names the model. `Index.create_from_vectors` reads it, and so does anything that reads Parquet. All
    documents are read and checked before the first is encoded.

    Memory: the texts and vectors of 512 documents.

    Args:
        records: the documents, as `Index.create` takes them.
        path: the file.
        encoder: the model.
        floats: number format of the vectors.
        overwrite: replace a file of that name.
        options: how documents are read, resumed and reported.

    Returns:
        The counts of what was written.

    Raises:
        InputError: a document cannot be used, there are none, or the file cannot be written.
        ResumeError: the interrupted call had other documents or another model.
        BusyError: another process writes the file.
    """
    reader = DocumentReader(records, options.names, options.rejects, (*RESERVED_FIELDS, VECTORS))
    report = BuildReport()
    with ParquetParts(path, resume=options.resume, overwrite=overwrite) as parts:
        types = ColumnTypes((options.names or FieldNames()).arrow_types())
        report.column_types = reader.infer_types(options.progress)
        found = scan(reader, types.update, reader.leave_out, options.progress, reader.total, reader.bytes_read)
        fields = types.fields()
        plan = {
            "the model": encoder.bundle.fingerprint,
            "the number format": floats,
            "the columns": [str(field) for field in fields],
            "the documents": found.digests,
        }
        parts.begin(plan)
        schema = pa.schema(
            [
                *(pa.field(name, pa.string(), nullable=False) for name in ("id", "title", "text")),
                *fields,
                pa.field(VECTORS, pa.list_(pa.list_(pa.type_for_alias(floats), encoder.dim)), nullable=False),
            ],
            metadata={MODEL_KEY: encoder.bundle.name, FINGERPRINT_KEY: encoder.bundle.fingerprint},
        )
        there = len(parts.notes)
        for note in parts.notes:
            _count(report, note)
        report.resumed = report.rows
        for number, chunk in enumerate(as_scanned(reader, found)):
            if number < there:
                continue
            before = number * DOCUMENTS_PER_CHUNK
            note = partial(noted, options.progress, "encode", before, found.count, report.tokens)
            rows, counts = _encoded(chunk, encoder, schema, note)
            parts.write(rows, counts)
            _count(report, counts)
            options.progress("encode", before + len(chunk), found.count, report.tokens)
        parts.finish(schema)
    report.documents = report.rows
    report.rejected = 0 if options.rejects is None else options.rejects.of_call
    return report


def _encoded(chunk: list[Document], encoder: Encoder, schema: pa.Schema, note: Any) -> tuple[pa.Table, dict[str, Any]]:
    tokenized = encoder.tokenize_documents([document.encoded_text for document in chunk])
    vectors = encoder.encode_tokens(tokenized, note)
    kind = schema.field(VECTORS).type.value_type
    values = np.concatenate(vectors).astype(kind.value_type.to_pandas_dtype()).reshape(-1)
    offsets = np.concatenate(([0], np.cumsum([len(matrix) for matrix in vectors]))).astype(np.int32)
    nested = pa.FixedSizeListArray.from_arrays(pa.array(values, kind.value_type), encoder.dim)
    columns = [
        pa.array([document.id for document in chunk], pa.string()),
        pa.array([document.title for document in chunk], pa.string()),
        pa.array([document.text for document in chunk], pa.string()),
        *(field_array(chunk, field) for field in list(schema)[3:-1]),
        pa.ListArray.from_arrays(pa.array(offsets), nested),
    ]
    cut = [document.id for document, text in zip(chunk, tokenized, strict=True) if text.truncated]
    unread = [document.id for document, text in zip(chunk, tokenized, strict=True) if text.unread]
    counts = {
        "rows": len(chunk),
        "tokens": len(values) // encoder.dim,
        "truncated": len(cut),
        "truncated_ids": cut[:IDS_NAMED],
        "unread": len(unread),
        "unread_ids": unread[:IDS_NAMED],
    }
    return pa.Table.from_arrays(columns, schema=schema), counts


def _count(report: BuildReport, counts: dict[str, Any]) -> None:
    for name in ("rows", "tokens", "truncated", "unread"):
        setattr(report, name, getattr(report, name) + counts[name])
    for name in ("truncated_ids", "unread_ids"):
        ids = getattr(report, name)
        ids += counts[name][: IDS_NAMED - len(ids)]
