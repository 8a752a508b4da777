"""Copy an index into another table or database, and give it another name."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from lancedb.db import DBConnection

from ...onnx_export.errors import InputError
from ...onnx_export.progress import Progress
from ..errors import ResumeError, StorageError
from ..read.scan import DOCUMENTS_PER_CHUNK
from ..table.changes import index_text
from ..table.checksum import rows_checksum
from ..table.contents import drop_index
from ..table.database import side_folder, storage_errors
from ..table.table import (
    IndexTable,
    check_absent,
    check_replaceable,
    check_table_name,
    create_index_table,
    open_index_table,
)
from .staging import left_work


def copy_index(index: IndexTable, database: DBConnection, name: str, *, overwrite: bool, progress: Progress) -> int:
    """Copy the latest version of an index in one transaction; the rows are counted when they are stored, and read back.

    Earlier versions and derived arrays are not copied.

    Args:
        index: the open table.
        database: the database of the copy.
        name: name of the copy.
        overwrite: replace a table of that name.
        progress: called after each batch of rows, with the stage "copy".

    Returns:
        The number of rows copied.

    Raises:
        InputError: an index cannot have the name, or it is the index itself.
        TableExistsError: the table exists and ``overwrite`` is false.
        NotAnIndexError: tansaku did not make the table that would be replaced.
        StorageError: a database cannot be read or written, or rows of the copy are missing or differ.
    """
    check_table_name(name)
    if name == index.name and database.uri == index.database.uri:
        raise InputError(f"{index.place()} would be copied onto itself; give another name or another database")
    if not overwrite:
        check_absent(database, name, "replace it by overwrite=True (command line: --overwrite)")
    check_replaceable(database, name)
    with storage_errors(index.place()):
        total = index.table.count_rows()

    def batches() -> Iterator[pa.RecordBatch]:
        done = 0
        with storage_errors(index.place()):
            for batch in index.table.search().to_batches(DOCUMENTS_PER_CHUNK):
                whole = batch.select(schema.names).cast(schema)
                read.append(rows_checksum([whole]))
                yield whole
                done += batch.num_rows
                progress("copy", done, total, 0)

    schema = index.table.schema
    read: list[int] = []
    create_index_table(
        database, name, schema, index.codec, index.fit, batches(), overwrite=overwrite, note_rows=lambda rows: None
    )
    copy = open_index_table(database, name)
    with storage_errors(copy.place()):
        written = rows_checksum(copy.table.search().select(schema.names).to_batches(DOCUMENTS_PER_CHUNK))
    if written != sum(read) % 2**64:
        raise StorageError(
            f"{copy.place()} differs from {index.place()}: the checksum of its rows is another one; drop it, and copy "
            "again to a disk that keeps what is written"
        )
    index_text(copy)
    return total


def rename_index(index: IndexTable, name: str, progress: Progress) -> None:
    """Give an index another name in its database: it is copied, and then removed under the old name.

    Args:
        index: the open table.
        name: the new name.
        progress: as in `copy_index`.

    Raises:
        ResumeError: an interrupted write would be lost.
        WriteConflictError: another writer has changed the table meanwhile; it stays under both names.
        TansakuError: the errors of `copy_index`.
    """
    check_table_name(name)
    if name != index.name:
        check_absent(index.database, name, "remove it first: Index.drop (command line: `tansaku drop`)")
    left = left_work(side_folder(index.database, index.name))
    if left is not None:
        raise ResumeError(
            f"the interrupted write in {left.folder} would be lost; repeat that call first, or remove the folder"
        )
    copy_index(index, index.database, name, overwrite=False, progress=progress)
    drop_index(index.database, index.name, version=index.table.version)
