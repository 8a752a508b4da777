"""The commands about what a database holds, from `tables` to `drop`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from datetime import date, datetime, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...onnx_export.counts import counted
from ...onnx_export.errors import InputError
from . import display
from .messages import said
from .options import AsJson, Db, Quiet, StorageOptions, TableName, open_table, storage_options
from .terminal import as_json as json_of

if TYPE_CHECKING:
    from ...indexer.table.table import IndexTable


def tables(db: Db, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """List the indexes of a database, with their documents and models.

    Example: `tansaku tables --db ./db`
    """
    from ...indexer.index import Index

    options = storage_options(storage_option)
    names = Index.names(db, storage_options=options)
    found = [Index.open(db, name, storage_options=options).info() for name in names]
    if as_json:
        columns = ("table", "documents", "rows", "model", "version")
        display.show_json({"tables": [{column: getattr(info, column) for column in columns} for info in found]})
    else:
        display.show_tables(found)


def get(
    ids: Annotated[list[str], typer.Argument(help="Ids of documents or passages.")],
    db: Db,
    table: TableName,
    storage_option: StorageOptions = None,
) -> None:
    """Print documents by id, one JSON object in a line. Ids that the index does not have end the command with status 1.

    Example: `tansaku get doc1 doc2 --db ./db --table docs`
    """
    from ...indexer.index import Index
    from ...indexer.table.conditions import Condition

    opened = open_table(db, table, storage_options(storage_option))
    condition = "parent_id IN $ids OR id IN $ids" if opened.header.passage_tokens else "id IN $ids"
    missing = dict.fromkeys(ids)
    for document in Index(table, opened).documents(where=Condition(condition, ids=ids)):
        missing.pop(document["id"], None)
        missing.pop(document.get("parent_id", ""), None)
        typer.echo(_line(document))
    if missing:
        display.show_warning(f"not in the index: {', '.join(missing)}")
        raise typer.Exit(1)


def dump(
    db: Db,
    table: TableName,
    where: Annotated[
        str | None, typer.Option(help="Condition over the columns, such as 'year < 1950'; by default all.")
    ] = None,
    storage_option: StorageOptions = None,
) -> None:
    """Print all documents with their columns as JSONL: a backup that `tansaku index` reads again.

    JSON has no dates and decimals: they are printed as text, and a message has the options that read them again.

    Example: `tansaku dump --db ./db --table docs > docs.jsonl`
    """
    from ...indexer.index import Index

    lost: dict[str, str] = {}
    opened = Index.open(db, table, storage_options=storage_options(storage_option))
    for document in opened.documents(where=where, whole=True):
        lost |= {name: kind for name, kind in _types_that_json_lacks(document).items() if name not in lost}
        typer.echo(_line(document))
    if lost:
        given = " ".join(f"--column-type {shlex.quote(f'{name}={kind}')}" for name, kind in lost.items())
        display.show_warning(f"JSON has no dates and decimals; to index this again, give tansaku index {given}")


def copy(
    db: Db,
    table: TableName,
    to_db: Annotated[
        str | None, typer.Option(help="Folder or URI of the copy's database; by default that of the index.")
    ] = None,
    to_table: Annotated[str | None, typer.Option(help="Name of the copy; by default that of the index.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replacement of a table with that name.")] = False,
    quiet: Quiet = False,
    storage_option: StorageOptions = None,
) -> None:
    """Copy an index into another table or database; its rows are counted and compared by a checksum.

    Example: `tansaku copy --db ./db --table docs --to-db ./backup`
    """
    from ...indexer.index import Index

    options = storage_options(storage_option)
    opened = Index.open(db, table, storage_options=options)
    with display.ProgressDisplay() as progress:
        made = opened.copy(to_db, to_table, overwrite=overwrite, progress=progress, storage_options=options)
    if not quiet:
        place = db if to_db is None else to_db
        documents = _documents_of(open_table(place, made.name, options))
        display.out.print(display.shown(said(f"{documents} copied to the table {made.name} in {place}")))


def rename(
    db: Db,
    table: TableName,
    to_table: Annotated[str, typer.Option(help="New name of the table.")],
    quiet: Quiet = False,
    storage_option: StorageOptions = None,
) -> None:
    """Give an index another name; old versions are not kept.

    Example: `tansaku rename --db ./db --table docs --to-table articles`
    """
    from ...indexer.index import Index

    with display.ProgressDisplay() as progress:
        Index.rename(db, table, to_table, progress=progress, storage_options=storage_options(storage_option))
    if not quiet:
        display.out.print(display.shown(said(f"table {table} is now {to_table}")))


def versions(db: Db, table: TableName, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """List the versions of an index that are kept: each write leaves one, `tansaku optimize` removes old ones.

    Example: `tansaku versions --db ./db --table docs`
    """
    from ...indexer.index import Index

    found = Index.open(db, table, storage_options=storage_options(storage_option)).versions()
    if as_json:
        display.show_json({"versions": [dataclasses.asdict(version) for version in found]})
    else:
        display.show_versions(found)


def restore(
    db: Db,
    table: TableName,
    version: Annotated[int, typer.Option("--version", help="Number of the version, as `tansaku versions` shows it.")],
    storage_option: StorageOptions = None,
) -> None:
    """Make an earlier version of an index the latest one; the later versions are kept.

    Example: `tansaku restore --db ./db --table docs --version 3`
    """
    from ...indexer.index import Index

    options = storage_options(storage_option)
    Index.open(db, table, storage_options=options).restore(version)
    now = open_table(db, table, options)
    line = f"version {now.table.version} of {table} is version {version} again, with {_documents_of(now)}"
    display.out.print(display.shown(said(line)))


def drop(
    db: Db,
    table: TableName,
    yes: Annotated[bool, typer.Option("--yes", help="Confirmation: nothing is asked.")] = False,
    storage_option: StorageOptions = None,
) -> None:
    """Remove an index for good, with all its documents.

    Example: `tansaku drop --db ./db --table docs --yes`
    """
    from ...indexer.index import Index

    options = storage_options(storage_option)
    documents = _documents_of(open_table(db, table, options))
    if not yes:
        try:
            yes = typer.confirm(said(f"Remove the table {table!r} with {documents}?"), err=True)
        except typer.Abort:
            yes = False
    if not yes:
        raise InputError(f"table {table!r} was not removed; confirm with --yes")
    Index.drop(db, table, storage_options=options)
    display.out.print(display.shown(said(f"table {table!r} removed")))


def _documents_of(index: IndexTable) -> str:
    """The number of documents: `Index.info` reads and checks more, which takes longer and fails where it is damaged."""
    from ...indexer.table.contents import count_documents
    from ...indexer.table.database import storage_errors

    with storage_errors(index.place()):
        return counted(count_documents(index), "document")


def _types_that_json_lacks(document: Mapping[str, Any]) -> dict[str, str]:
    """The column types, as in `--column-type`, of values that JSON has only as text."""
    found: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, datetime):
            found[name] = "timestamp" if value.tzinfo is None else f"timestamp({_zone(value.tzinfo)})"
        elif isinstance(value, date):
            found[name] = "date"
        elif isinstance(value, Decimal):
            found[name] = f"decimal(38,{-int(value.as_tuple().exponent)})"
    return found


def _zone(zone: tzinfo) -> str:
    """The name of a time zone, as in the type of its column; those of an offset alone are called UTC+09:00."""
    name = str(zone)
    return name.removeprefix("UTC") if name.startswith(("UTC+", "UTC-")) else name


def _line(document: dict[str, Any]) -> str:
    return json_of(document, indent=None)
