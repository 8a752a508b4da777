"""What `Index.create` accepts as documents, as an iterable of records that can be read several times."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from ...onnx_export.errors import InputError
from .arrow_formats import batch_records
from .line_formats import Record
from .sources import Source

_ROWS = 1024  # rows converted to Python objects at a time


def as_records(documents: Any) -> Iterable[Any]:
    """Documents as records: mappings, or pairs of a place and a mapping.

    Args:
        documents: mappings; a `Source`; the path of one, or a list of paths; a DataFrame of pandas or polars; an Arrow
            table, record batch or reader. An iterator is read into memory.

    Raises:
        InputError: they are of another kind.
        SourceError: a path cannot be read.
    """
    if isinstance(documents, (str, os.PathLike)):
        return Source(documents)  # pyright: ignore[reportArgumentType]
    if isinstance(documents, pa.RecordBatchReader):
        documents = documents.read_all()
    if isinstance(documents, pa.RecordBatch):
        documents = pa.Table.from_batches([documents])
    if isinstance(documents, pa.Table):
        return ArrowRows(documents)
    library = type(documents).__module__.partition(".")[0]
    if library == "pandas" and hasattr(documents, "columns"):
        return PandasRows(documents)
    if library == "polars" and hasattr(documents, "to_arrow"):
        return ArrowRows(documents.to_arrow())
    if library == "polars" and hasattr(documents, "collect"):
        return ArrowRows(documents.collect().to_arrow())
    if not isinstance(documents, Iterable):
        raise InputError(
            f"documents cannot be {type(documents).__name__}; give mappings, a Source, a path, a DataFrame or an Arrow "
            "table"
        )
    if isinstance(documents, Iterator):  # it can be read only once, but indexing reads several times
        documents = list(documents)
    if isinstance(documents, (list, tuple)) and documents and isinstance(documents[0], (str, os.PathLike)):
        return Source(documents)
    return documents


class ArrowRows:
    """The rows of an Arrow table.

    Args:
        table: the table.

    Attributes:
        metadata: the metadata of its schema.

    Raises:
        InputError: two columns have the same name.
    """

    def __init__(self, table: pa.Table) -> None:
        repeated = [name for name in table.column_names if table.column_names.count(name) > 1]
        if repeated:
            raise InputError(f"the table has two columns {repeated[0]!r}; rename one")
        self._table = table
        self.metadata: Mapping[bytes, bytes] = table.schema.metadata or {}

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Record]:
        return self.with_matrices(None)

    def with_matrices(self, field: str | None) -> Iterator[Record]:
        """The rows, with a column of token vectors as arrays.

        Args:
            field: name of the column; None: no such column.
        """
        number = 0
        for batch in self._table.to_batches(max_chunksize=_ROWS):
            for record in batch_records(batch, field):
                yield f"row {number}", record
                number += 1


class PandasRows:
    """The rows of a pandas DataFrame. NaN, NaT and NA are None; the index is left out.

    Args:
        frame: the DataFrame.

    Attributes:
        names: names of the columns.

    Raises:
        InputError: two columns have the same name.
    """

    def __init__(self, frame: Any) -> None:
        names = [str(name) for name in frame.columns]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise InputError(f"the DataFrame has two columns {repeated[0]!r}; rename one")
        self._frame, self.names = frame, names

    def check_fields(self, id_field: str | None, others: Iterable[str]) -> None:
        """Check that no field that is read is in the index, which is not.

        Args:
            id_field: name of the field with the id; None if ids are made.
            others: names of other fields that are read.

        Raises:
            InputError: the index has the name of such a field, or there is no id but an index other than 0, 1, 2, ...
        """
        index = self._frame.index
        named = [
            name for name in (id_field, *others) if name is not None and name in index.names and name not in self.names
        ]
        if named:
            name, remedy = named[0], "df.reset_index()"
        elif id_field and id_field not in self.names and type(index).__name__ != "RangeIndex":
            name, remedy = id_field, f"df.reset_index(names={id_field!r})"
        else:
            return
        raise InputError(
            f"the DataFrame has no column {name!r} (columns: {', '.join(self.names)}), and its index is not read; give "
            f"{remedy}, which makes the index a column"
        )

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for start in range(0, len(self._frame), _ROWS):
            rows = self._frame.iloc[start : start + _ROWS]
            columns = [_without_missing(rows.iloc[:, i]) for i in range(len(self.names))]
            for number, values in enumerate(zip(*columns, strict=True), start=start):
                yield f"row {number}", dict(zip(self.names, values, strict=True))


def _without_missing(column: Any) -> list[Any]:
    """The values of a column of pandas, with None in the place of missing ones."""
    return [value if known else None for value, known in zip(column.tolist(), column.notna(), strict=True)]
