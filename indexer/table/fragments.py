"""Rows as fragments in a table's folder, and their commit. LanceDB has no such calls: they need the extra `ray`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from lancedb.db import DBConnection
from lancedb.expr import Expr, col

from ...onnx_export.errors import MissingExtraError
from ..codec.codec import ResidualCodec
from ..errors import StorageError
from .aligned import aligned
from .changes import on_latest
from .codec_table import Fit
from .counted import check_merged
from .database import find_table, location_of, storage_errors
from .table import IndexTable, check_absent, check_first, make_index_table, write_stream


@dataclass(frozen=True)
class FragmentPlace:
    """Where fragments are written. It can be pickled.

    Attributes:
        uri: the table's folder or URI.
        storage_options: LanceDB's options for object stores.
        appends: whether the rows join those of a table; False: they replace them, or make the table.
    """

    uri: str
    storage_options: Mapping[str, str] | None
    appends: bool

    @staticmethod
    def of(database: DBConnection, name: str, *, appends: bool) -> FragmentPlace:
        """The place of a table's fragments.

        Raises:
            InputError: other processes cannot open the database: it is in memory, or LanceDB's cloud.
        """
        folder, options = location_of(database)
        return FragmentPlace(f"{folder.rstrip('/')}/{name}.lance", options, appends)

    @property
    def label(self) -> str:
        """What error messages call it."""
        return f"table {self.uri}"

    @property
    def options(self) -> dict[str, str] | None:
        """The storage options, as Lance takes them."""
        return dict(self.storage_options) if self.storage_options else None


def write_fragments(place: FragmentPlace, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> list[str]:
    """Write rows as fragments. They are not in the table before `commit_fragments`.

    Args:
        place: where.
        schema: the table's schema.
        batches: the rows.

    Returns:
        Lance's metadata of each fragment, as JSON; usually one fragment.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        StorageError: the disk or the object store failed.
    """
    made: list[Any] = []

    def write(reader: pa.RecordBatchReader) -> None:
        made.extend(
            _lance().fragment.write_fragments(
                reader,
                place.uri,
                mode="append" if place.appends else "overwrite",
                enable_stable_row_ids=True,
                storage_options=place.options,
            )
        )

    with storage_errors(place.label):
        write_stream(write, schema, (aligned(batch) for batch in batches))
    return [json.dumps(fragment.to_json()) for fragment in made if fragment.num_rows]


def commit_fragments(place: FragmentPlace, schema: pa.Schema, fragments: Sequence[str], version: int | None) -> int:
    """Make fragments rows of the table, in one transaction.

    Args:
        place: where they are.
        schema: the table's schema.
        fragments: their metadata, as `write_fragments` gave it. All of them must come from this build, once each.
        version: the version of the table that the rows join; None where they replace those of a table or make one.

    Returns:
        The version that was made.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        WriteConflictError: another writer replaced the table at the same time.
        StorageError: the disk or the object store failed.
    """
    lance = _lance()
    metadata = [lance.fragment.FragmentMetadata.from_json(fragment) for fragment in fragments]
    if place.appends:
        operation = lance.LanceOperation.Append(metadata)
    else:
        operation = lance.LanceOperation.Overwrite(schema, metadata)
    with storage_errors(place.label):
        return lance.LanceDataset.commit(
            place.uri,
            operation,
            read_version=version,
            storage_options=place.options,
            enable_stable_row_ids=True,
        ).version


def create_from_fragments(
    database: DBConnection,
    name: str,
    schema: pa.Schema,
    codec: ResidualCodec,
    fit: Fit,
    fragments: Sequence[str],
    *,
    overwrite: bool,
    note_rows: Callable[[int], None],
) -> None:
    """`create_index_table` from fragments.

    Args:
        database: the database.
        name: name of the table.
        schema: schema of the table, with the header.
        codec: the codec, which is stored too.
        fit: how well the codec fits the rows that it was trained on.
        fragments: their metadata, as `write_fragments` gave it.
        overwrite: replace all rows of an existing table by a new version of it.
        note_rows: called with the number of rows, just before they are committed.

    Raises:
        TansakuError: the errors that `create_index_table` lists; MissingExtraError.
    """
    place = FragmentPlace.of(database, name, appends=False)
    rows = rows_of(fragments)

    def make() -> tuple[int, int]:
        note_rows(rows)
        if not overwrite:
            check_absent(database, name)
        version = commit_fragments(place, schema, fragments, None)
        table = find_table(database, name, version)
        if table is not None and not overwrite:
            check_first(table, name)
        return version, rows

    make_index_table(database, name, codec, fit, make, overwrite=overwrite)


def append_fragments(
    index: IndexTable, place: FragmentPlace, fragments: Sequence[str], write_id: int, *, resumed: bool
) -> int:
    """Append fragments to an index.

    Args:
        index: the open table.
        place: where they are.
        fragments: their metadata, as `write_fragments` gave it.
        write_id: the write_id of their rows.
        resumed: whether an interrupted call may have appended them already.

    Returns:
        Number of documents that another writer has added since ``index`` was opened, and that these rows hold too.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        WriteConflictError: another writer replaced the table at the same time.
        StorageError: the disk or the object store failed, or rows are missing after the commit.
    """
    ours = col("write_id") == write_id
    if not fragments or (resumed and on_latest(index, lambda table: table.count_rows(ours.to_sql()))):
        return 0
    opened = index.table.version
    latest = on_latest(index, lambda table: table.version)  # which is still the table that was opened
    version = commit_fragments(place, index.table.schema, fragments, latest)
    check_merged(index.database, index.name, version, write_id, rows_of(fragments), [])
    column = index.header.document_id_field
    others = f"write_id != {int(write_id)} AND _row_created_at_version > {int(opened)}"
    added = _values(index, column, others)
    return len(_values(index, column, ours & col(column).isin(sorted(added)))) if added else 0


def _values(index: IndexTable, column: str, where: str | Expr) -> set[str]:
    found = on_latest(index, lambda table: table.search().where(where).select([column]).to_arrow())
    return set(found[column].to_pylist())


def ids_of(place: FragmentPlace, fragments: Sequence[str]) -> Iterator[list[str]]:
    """The ids of the rows of fragments, which need not be in the table yet.

    Args:
        place: where they are.
        fragments: their metadata, as `write_fragments` gave it.

    Yields:
        Ids, in order.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        StorageError: a file cannot be read.
    """
    _lance()
    from lance.file import LanceFileReader

    with storage_errors(place.label):
        for fragment in fragments:
            for file in json.loads(fragment)["files"]:
                path = f"{place.uri}/data/{file['path']}"
                reader = LanceFileReader(path, storage_options=place.options, columns=["id"])
                for batch in reader.read_all().to_batches():
                    yield batch["id"].to_pylist()


def files_there(place: FragmentPlace) -> Callable[[str], bool]:
    """A function that tells whether the files of a fragment, by its metadata, are in the table's folder.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        StorageError: the folder cannot be read.
    """
    _lance()
    from lance.file import LanceFileSession

    with storage_errors(place.label):
        names = {path.rpartition("/")[2] for path in LanceFileSession(place.uri, place.options).list("data")}
    return lambda fragment: all(file["path"].rpartition("/")[2] in names for file in json.loads(fragment)["files"])


def rows_of(fragments: Sequence[str]) -> int:
    """Number of rows of fragments.

    Raises:
        StorageError: the metadata is not Lance's.
    """
    try:
        return sum(int(json.loads(fragment)["physical_rows"]) for fragment in fragments)
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"metadata of a fragment is damaged ({error}); encode its rows again") from error


def _lance() -> Any:
    os.environ.setdefault("LANCE_LOG", "error")  # it warns that a new table is new
    try:
        import lance
        import lance.fragment
    except ModuleNotFoundError as error:
        raise MissingExtraError("pylance", "ray") from error
    return lance
