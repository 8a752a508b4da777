"""The commands that move rows with codes between an index, databases and Parquet files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...onnx_export.counts import counted
from ...onnx_export.errors import InputError
from . import display
from .messages import said
from .options import Model, Quiet, Resume, Threads, load_models

if TYPE_CHECKING:
    from ..hosts.rows.moving import MoveReport, RowsToMove
    from ..rows.coder import Coder

Existing = Literal["skip", "replace"]

PlaceArgument = Annotated[
    str,
    typer.Argument(
        help="Place of rows: `index:DB#TABLE`, `postgresql://HOST/DB#TABLE`, `sqlite:FILE#TABLE`, `duckdb:FILE#TABLE`, "
        "`lance:DB#TABLE`, `qdrant:URL#COLLECTION`, `milvus:URL#COLLECTION` or `chroma:FOLDER#COLLECTION`."
    ),
]
IdColumn = Annotated[str, typer.Option(help="Name of the id column in the database.")]
Field = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        help="Name of another column that moves; by default all of an index or a file, none of a database; may be "
        "repeated.",
    ),
]
RowDim = Annotated[
    int | None, typer.Option(help="Length of the row vectors, one that the model's bundle has; by default its first.")
]


def export_codes(
    place: PlaceArgument,
    out: Annotated[Path, typer.Argument(help="Parquet file for the rows.")],
    id_column: IdColumn = "id",
    text_column: Annotated[
        list[str] | None,
        typer.Option(help="Name of a text column in the database, by default text; may be repeated."),
    ] = None,
    field: Field = None,
    row_dim: RowDim = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replacement of a file with that name.")] = False,
    resume: Resume = True,
    quiet: Quiet = False,
    model: Model = None,
    threads: Threads = None,
) -> None:
    """Write the row vectors and codes of a database or an index into a Parquet file, with texts and other columns.

    The vectors of an index are coded again, with the codec of the model's bundle.

    Example: `tansaku export-codes 'lance:./db#articles' articles.parquet`
    """
    from ..hosts.rows.moving import to_file
    from ..hosts.rows.places import FILE, parse_place

    given = parse_place(place)
    if given.kind == FILE:
        raise InputError(f"{place}: is a file already; give a database or an index, and import-codes for a file")
    coder = _coder(model, threads, row_dim)
    with contextlib.ExitStack() as opened:
        options = {"id_column": id_column, "text_columns": text_column or ["text"], "fields": field or ()}
        source = _source(place, coder, field, options, opened)
        with display.ProgressDisplay() as progress:
            report = to_file(source, out, coder, resume=resume, overwrite=overwrite, progress=progress)
    if not quiet:
        _show(report, str(out))


def import_codes(
    source: Annotated[Path, typer.Argument(help="Parquet file that `tansaku export-codes` wrote.")],
    place: PlaceArgument,
    id_column: IdColumn = "id",
    field: Field = None,
    row_dim: RowDim = None,
    existing: Annotated[
        Existing,
        typer.Option(help="Treatment of rows that are there: skip those with codes, or replace them; of an index all."),
    ] = "skip",
    resume: Resume = True,
    quiet: Quiet = False,
    model: Model = None,
    threads: Threads = None,
) -> None:
    """Write rows with codes from a Parquet file into a database or a new index; nothing is encoded.

    A table that is not there is made; one that is there gets the columns for row vectors and codes.

    Example: `tansaku import-codes articles.parquet 'sqlite:shop.db#articles'`
    """
    from ..hosts.rows.moving import to_index, to_rows
    from ..hosts.rows.places import FILE, INDEX, made_rows, parse_place

    target = parse_place(place)
    if target.kind == FILE:
        raise InputError(f"{place}: is a file; copy the file itself")
    coder = _coder(model, threads, row_dim)
    with contextlib.ExitStack() as opened:
        rows = _source(str(source), coder, field, {}, opened)
        with display.LoggedWarnings(), display.ProgressDisplay() as progress:
            if target.kind == INDEX:
                overwrite = existing == "replace"
                _, report = to_index(
                    rows, coder, target.address, target.table, overwrite=overwrite, resume=resume, progress=progress
                )
            else:

                def make(columns: Any, id_type: Any) -> Any:
                    options = {"id_column": id_column, "text_columns": rows.text_columns, "fields": list(columns)}
                    return opened.enter_context(made_rows(target, coder, columns, id_type, **options))

                report = to_rows(rows, make, replace=existing == "replace", progress=progress)
    if not quiet:
        _show(report, str(target))


def _coder(model: Path | None, threads: int | None, row_dim: int | None) -> Coder:
    from ..rows.coder import Coder

    return Coder(load_models(model, threads).default(), row_dim=row_dim)


def _source(
    place: str, coder: Coder, fields: list[str] | None, options: dict[str, Any], opened: contextlib.ExitStack
) -> RowsToMove:
    from ...indexer.table.database import connect
    from ...indexer.table.table import open_index_table
    from ..hosts.rows.codes_file import CodesFile
    from ..hosts.rows.moving import FileRows, IndexRows, StoredRows
    from ..hosts.rows.places import FILE, INDEX, opened_rows, parse_place

    given = parse_place(place) if options else None
    if given is None or given.kind == FILE:
        return FileRows(CodesFile(Path(place), coder), fields)
    if given.kind == INDEX:
        return IndexRows(open_index_table(connect(given.address), given.table), coder, fields)
    return StoredRows(opened.enter_context(opened_rows(given, coder, **options)))


def _show(report: MoveReport, place: str) -> None:
    """Print what was moved."""
    display.out.print(display.shown(said(f"{counted(report.written, 'row')} of {report.read:,} written to {place}")))
    if report.resumed:
        display.out.print(said(f"{report.resumed:,} of them from before the interruption"))
    if report.there:
        display.out.print(said(f"{report.there:,} were there already, and stay (--existing replace writes over them)"))
    if report.without_codes:
        display.show_warning(f"{counted(report.without_codes, 'row')} without codes left out; encode them with fill()")
