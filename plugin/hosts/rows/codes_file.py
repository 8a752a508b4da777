"""Rows with codes in a Parquet file: id, text columns, other columns, ``tansaku_vector`` and ``tansaku_codes``.

Its metadata names the model, the codec, the length of the row vectors and the version of the codes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ....indexer.errors import ModelMismatchError, SourceError
from ....indexer.read.vectors import FINGERPRINT_KEY, MODEL_KEY
from ....onnx_export.errors import InputError
from ...rows.code_bytes import VERSION
from ...rows.coder import Coder
from ...rows.row_store import CodedRow

ID, VECTOR, CODES = "id", "tansaku_vector", "tansaku_codes"

_CODEC_KEY, _MAPS_KEY, _DIM_KEY, _VERSION_KEY, _TEXTS_KEY = (
    b"tansaku.codec",
    b"tansaku.row_vectors",
    b"tansaku.row_dim",
    b"tansaku.codes_version",
    b"tansaku.text_columns",
)


def metadata_of(coder: Coder, text_columns: Sequence[str]) -> dict[bytes, bytes]:
    """The metadata of a file with a coder's rows.

    Args:
        coder: made the rows.
        text_columns: names of the columns with text.
    """
    bundle = coder.encoder.bundle
    return {
        MODEL_KEY: bundle.name.encode(),
        FINGERPRINT_KEY: bundle.fingerprint.encode(),
        _CODEC_KEY: coder.codec_id.encode(),
        _MAPS_KEY: coder.row_vectors_id.encode(),
        _DIM_KEY: str(coder.row_dim).encode(),
        _VERSION_KEY: str(VERSION).encode(),
        _TEXTS_KEY: json.dumps(list(text_columns)).encode(),
    }


def rows_table(rows: Sequence[CodedRow], names: Sequence[str], row_dim: int) -> pa.Table:
    """Rows as columns.

    Args:
        rows: the rows.
        names: names of the columns with text, and of the others.
        row_dim: length of a row vector.

    Raises:
        InputError: a column mixes types that no column of Arrow can hold.
    """
    vectors = np.concatenate([row.row_vector for row in rows]).astype(np.float32)
    columns: dict[str, Any] = {ID: _column(ID, [row.id for row in rows])}
    columns |= {name: _column(name, [row.columns.get(name) for row in rows]) for name in names}
    columns[VECTOR] = pa.FixedSizeListArray.from_arrays(pa.array(vectors, pa.float32()), row_dim)
    columns[CODES] = pa.array([row.codes for row in rows], pa.binary())
    return pa.table(columns)


def common_schema(schemas: Sequence[pa.Schema], metadata: Mapping[bytes, bytes]) -> pa.Schema:
    """The schema of a file, from those of its parts.

    Raises:
        InputError: a column has types in two parts that have no common one.
    """
    try:
        schema = pa.unify_schemas(list(schemas), promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(
            f"a column has values of several kinds ({error}); leave it out: --field names others"
        ) from None
    fields = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schema]
    return pa.schema(fields, metadata=dict(metadata))


class CodesFile:
    """A file of rows with codes, to be read.

    Args:
        path: the file.
        coder: the coder that the rows must be of.

    Attributes:
        text_columns: names of the columns with text.
        columns: types of the other columns.
        id_type: type of the ids.
        total: number of rows.

    Raises:
        SourceError: it cannot be read.
        InputError: it lacks a column, or is of another codec or another length of row vectors.
        ModelMismatchError: it is of another model.
    """

    def __init__(self, path: Path, coder: Coder) -> None:
        self.path, self._coder = path, coder
        try:
            with pq.ParquetFile(path) as file:
                schema, self.total = file.schema_arrow, file.metadata.num_rows
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{path}: cannot be read ({error})") from error
        self._check(schema)
        metadata = schema.metadata or {}
        self.text_columns: tuple[str, ...] = tuple(json.loads(metadata[_TEXTS_KEY]))
        taken = {ID, VECTOR, CODES, *self.text_columns}
        self.columns = {field.name: field.type for field in schema if field.name not in taken}
        self.id_type = schema.field(ID).type

    def rows(self, batch: int, columns: Sequence[str]) -> Iterator[tuple[list[CodedRow], int]]:
        """The rows that have codes, some at a time, and the number of those among them that have none.

        Args:
            batch: number of rows at a time.
            columns: names of the columns that are read.

        Raises:
            SourceError: the file is damaged.
        """
        names = [ID, *columns, VECTOR, CODES]
        try:
            with pq.ParquetFile(self.path, pre_buffer=False, page_checksum_verification=True) as file:
                for found in file.iter_batches(batch_size=batch, columns=names):
                    found.validate(full=True)
                    has_codes = np.logical_and(*(found[name].is_valid().to_numpy(False) for name in (VECTOR, CODES)))
                    whole = found.filter(pa.array(has_codes))
                    yield self._rows(whole, columns), len(found) - len(whole)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{self.path}: cannot be read ({error})") from error

    def _rows(self, found: pa.RecordBatch, columns: Sequence[str]) -> list[CodedRow]:
        vectors = found[VECTOR].flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        others = found.select(list(columns)).to_pylist() if columns else [{}] * len(found)
        return [
            CodedRow(row_id, vector, codes, values)
            for row_id, vector, codes, values in zip(
                found[ID].to_pylist(),
                vectors.reshape(len(found), self._coder.row_dim),
                found[CODES].to_pylist(),
                others,
                strict=True,
            )
        ]

    def _check(self, schema: pa.Schema) -> None:
        metadata, bundle = schema.metadata or {}, self._coder.encoder.bundle
        missing = [name for name in (ID, VECTOR, CODES) if name not in schema.names]
        if missing or _CODEC_KEY not in metadata or _TEXTS_KEY not in metadata:
            what = f"has no column {missing[0]!r}" if missing else "does not name its codec"
            raise InputError(f"{self.path}: {what}; give a file that tansaku export-codes wrote")
        found = {key: value.decode("utf-8", "replace") for key, value in metadata.items()}
        if found.get(FINGERPRINT_KEY) != bundle.fingerprint:
            raise ModelMismatchError(
                f"{self.path}: rows of the model {found.get(MODEL_KEY)!r} ({found.get(FINGERPRINT_KEY)}), and this is "
                f"{bundle.name!r} ({bundle.fingerprint}); give the model of the rows (--model)"
            )
        for name, key, own in (
            ("codec", _CODEC_KEY, self._coder.codec_id),
            ("row vectors", _MAPS_KEY, self._coder.row_vectors_id),
        ):
            if found.get(key) != own:
                raise InputError(
                    f"{self.path}: codes of the {name} {found.get(key)}, and the bundle has {own}; give the bundle "
                    "that the rows were encoded with (--model)"
                )
        if found.get(_VERSION_KEY) != str(VERSION):
            raise InputError(
                f"{self.path}: codes of version {found.get(_VERSION_KEY)}, and this tansaku reads version {VERSION}; "
                "update tansaku"
            )
        kind = schema.field(VECTOR).type
        if getattr(kind, "list_size", 0) != self._coder.row_dim:
            raise InputError(
                f"{self.path}: row vectors of type {kind}, and the table has {self._coder.row_dim} dimensions; give "
                "their length (--row-dim)"
            )
        absent = [name for name in json.loads(metadata[_TEXTS_KEY]) if name not in schema.names]
        if absent:
            raise InputError(f"{self.path}: has no column {absent[0]!r}, which its metadata names; export it again")


def _column(name: str, values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        raise InputError(f"the column {name!r} cannot be a column of Parquet ({error}); leave it out") from None
