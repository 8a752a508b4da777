"""The commands that make and change an index: `index`, `delete`, `optimize`, `rebuild`, `info`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...onnx_export.errors import InputError, TansakuError
from ...onnx_export.extras import require_extra
from ...onnx_export.files import check_output
from . import display
from .options import (
    AsJson,
    Db,
    GenerateIds,
    IdField,
    Model,
    Quiet,
    Resume,
    StorageOptions,
    TableName,
    TextField,
    Threads,
    TitleField,
    load_models,
    model_of_vectors,
    open_table,
    pairs,
    storage_options,
)
from .workers import ActorCpus, Actors, Address, On, Processes, chosen_workers

if TYPE_CHECKING:
    from ...indexer.read.rejects import Rejects
    from ...indexer.table.table import IndexTable

_MOST_STDIN_GIB = 1 << 20

Mode = Literal["create", "append", "upsert", "overwrite"]
OnError = Literal["stop", "reject"]


def index(
    context: typer.Context,
    source: Annotated[
        list[str],
        typer.Argument(
            help="Documents: files (JSONL, JSON, CSV, TSV, .txt, .md, also .gz, .zst; Parquet, Arrow, .xlsx), a "
            "pattern, a folder of files, or that of a Lance or Hugging Face dataset; - reads standard input."
        ),
    ],
    db: Db,
    table: TableName,
    id_field: IdField = None,
    text_field: TextField = None,
    title_field: TitleField = "title",
    generate_ids: GenerateIds = False,
    field: Annotated[
        list[str] | None,
        typer.Option("--field", help="Name of another field that becomes a column, by default all; may be repeated."),
    ] = None,
    drop_field: Annotated[
        list[str] | None, typer.Option("--drop-field", help="Name of a field that is left out; may be repeated.")
    ] = None,
    rename_field: Annotated[
        list[str] | None,
        typer.Option("--rename-field", metavar="OLD=NEW", help="Name of a field and of its column; may be repeated."),
    ] = None,
    column_type: Annotated[
        list[str] | None,
        typer.Option(
            "--column-type",
            metavar="NAME=TYPE",
            help="Type of a column: string, integer, number, boolean, date, timestamp, timestamp(ZONE) or "
            "decimal(P,S), by default as the values are; may be repeated.",
        ),
    ] = None,
    source_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Format of the source: `jsonl`, `json`, `csv`, `tsv`, `text`, `parquet`, `arrow` or `excel`; by "
            "default from its name.",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of text, such as cp932, euc-jp or utf-16; by default UTF-8, or found in the text."),
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Name of the sheet of a spreadsheet; by default the first.")] = None,
    header_row: Annotated[
        int | None,
        typer.Option(
            help="Number of the row with the names of the fields, in a spreadsheet, CSV or TSV; by default the first."
        ),
    ] = None,
    max_stdin: Annotated[
        float,
        typer.Option(help="Maximum size of standard input, in GiB; it is kept in the folder for temporary files."),
    ] = 4.0,
    max_unpack_ratio: Annotated[
        float,
        typer.Option(
            help="Maximum ratio of unpacked to compressed size of a source; up to 256 MiB are always unpacked.", min=1
        ),
    ] = 100,
    vectors: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Name of the field with token vectors that were made elsewhere, as by `tansaku encode`; the texts are "
            "not encoded.",
        ),
    ] = None,
    vectors_only: Annotated[
        bool,
        typer.Option(
            "--vectors-only",
            help="Index for vectors of a model without a bundle of tansaku; queries must then be vectors too.",
        ),
    ] = False,
    nbits: Annotated[int, typer.Option(help="Bits per dimension of a new table: 1, 2 or 4.")] = 2,
    pool: Annotated[
        int, typer.Option(help="Pooling factor of a new table: keep one token vector in N (1 = keep all).")
    ] = 1,
    passage_tokens: Annotated[
        int | None,
        typer.Option(help="Maximum tokens of a passage in a new table; by default documents are not divided."),
    ] = None,
    fulltext: Annotated[
        bool, typer.Option("--fulltext", help="Full text search in a new table, for --source text and fused.")
    ] = False,
    mode: Annotated[
        Mode, typer.Option(help="Mode: make a new table, add to one, update documents in one, or replace one.")
    ] = "create",
    resume: Resume = True,
    on_error: Annotated[OnError, typer.Option(help="Action at a bad record: stop, or write it to --rejects.")] = "stop",
    rejects: Annotated[
        Path | None, typer.Option(help="File for rejected records; by default TABLE.rejects.jsonl in this folder.")
    ] = None,
    quiet: Quiet = False,
    model: Model = None,
    threads: Threads = None,
    storage_option: StorageOptions = None,
    on: On = "local",
    processes: Processes = None,
    address: Address = None,
    actors: Actors = None,
    actor_cpus: ActorCpus = 1,
) -> None:
    """Index documents as compressed token vectors; fields besides id, text and title become columns.

    Example: `tansaku index docs.jsonl --db ./db --table docs`
    """
    if pool > 1:
        require_extra("pooling")
    from ...indexer.derived.arrays import load_arrays
    from ...indexer.index import Index
    from ...indexer.read.documents import FieldNames
    from ...indexer.read.rejects import Rejects
    from ...indexer.read.sources import Source

    if not 0 < max_stdin <= _MOST_STDIN_GIB:
        raise InputError(f"max-stdin is {max_stdin}; it must be more than 0 and at most {_MOST_STDIN_GIB:,} GiB")
    if vectors is None and vectors_only:
        raise InputError("--vectors-only: name the field with the token vectors with --vectors")
    if vectors is not None and passage_tokens is not None:
        raise InputError("--passage-tokens: token vectors cannot be divided into passages; leave it out, or --vectors")
    workers = chosen_workers(on, processes, address, actors, actor_cpus)
    rejects_path = None if on_error == "stop" else _rejects_path(rejects, table, source)
    options = storage_options(storage_option)
    models = load_models(model, threads)
    with display.LoggedWarnings():
        documents = Source(
            source,
            format=source_format,
            encoding=encoding,
            sheet=sheet,
            header_row=header_row,
            max_stdin_bytes=int(max_stdin * 2**30),
            max_unpack_ratio=max_unpack_ratio,
        )
    names = FieldNames(
        id_field,
        tuple(text_field or ["text"]),
        title_field,
        generate_ids=generate_ids,
        keep=field,
        drop=drop_field or (),
        rename=pairs(rename_field, "--rename-field", "OLD=NEW"),
        types=pairs(column_type, "--column-type", "NAME=TYPE"),
    )
    rejected = None if rejects_path is None else Rejects(rejects_path)
    started = time.perf_counter()
    opened = open_table(db, table, options) if mode in ("append", "upsert") else None
    is_divided = (passage_tokens if opened is None else opened.header.passage_tokens) is not None
    rows = "passages" if is_divided else "documents"
    with (
        _rejects_shown_at_error(rejected),
        _interruptible(db, table, options),
        display.LoggedWarnings(),
        display.ProgressDisplay(rows) as progress,
    ):
        if opened is not None:
            built = Index(table, opened, models)
            layout = {"nbits": nbits, "pool": pool, "passage_tokens": passage_tokens, "fulltext": fulltext}
            _check_layout(context, opened, layout)
            write = built.add if mode == "append" else built.upsert
            how = {"names": names, "rejects": rejected, "resume": resume, "progress": progress, "on": workers}
            write(documents, vectors=vectors, **how)
        elif vectors is not None:
            built = Index.create_from_vectors(
                db,
                table,
                documents,
                vectors,
                encoder=model_of_vectors(documents, models, vectors_only),
                nbits=nbits,
                pool=pool,
                fulltext=fulltext,
                names=names,
                overwrite=mode == "overwrite",
                rejects=rejected,
                resume=resume,
                progress=progress,
                storage_options=options,
                on=workers,
            )
        else:
            built = Index.create(
                db,
                table,
                documents,
                encoder=models.default(),
                nbits=nbits,
                pool=pool,
                passage_tokens=passage_tokens,
                fulltext=fulltext,
                names=names,
                overwrite=mode == "overwrite",
                rejects=rejected,
                resume=resume,
                progress=progress,
                storage_options=options,
                on=workers,
            )
    if built.last_build and not quiet:
        display.show_build(built.last_build, time.perf_counter() - started)
    if rejected is not None:
        rejected.close()
        display.show_rejects(rejected)
    if on != "ray":  # whose driver need not be where searches are
        # Done here, so that the first search does not have to.
        load_arrays(open_table(db, table, options))


def delete(
    db: Db,
    table: TableName,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of documents or passages.")] = None,
    id_options: Annotated[
        list[str] | None, typer.Option("--id", help="Id of a document or passage; may be repeated.")
    ] = None,
    ids_file: Annotated[Path | None, typer.Option(help="File with one id per line.")] = None,
    where: Annotated[str | None, typer.Option(help="Condition over the columns, such as 'year < 1950'.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count of what would be deleted; nothing is.")] = False,
    storage_option: StorageOptions = None,
) -> None:
    """Delete documents by id, or all that meet a condition.

    Example: `tansaku delete doc1 doc2 --db ./db --table docs`
    """
    from ...indexer.index import Index
    from ...indexer.read.sources import lines_of

    given = [*(ids or ()), *(id_options or ())]
    if ids_file is not None:
        with display.LoggedWarnings():
            given += [line for _, line in lines_of(ids_file) if line]
    chosen = given if given or ids_file is not None else None
    opened = Index.open(db, table, storage_options=storage_options(storage_option))
    display.show_delete(opened.delete(chosen, where=where, dry_run=dry_run), dry_run=dry_run)


def optimize(
    db: Db,
    table: TableName,
    keep_hours: Annotated[float, typer.Option(help="Hours for which old versions of the table are kept.")] = 1.0,
    storage_option: StorageOptions = None,
) -> None:
    """Merge small data files of a table and remove its old versions.

    Example: `tansaku optimize --db ./db --table docs`
    """
    from ...indexer.index import Index

    if not 0 <= keep_hours <= 1e6:
        raise InputError(f"keep-hours is {keep_hours}; it must not be negative, and at most 1,000,000")
    opened = Index.open(db, table, storage_options=storage_options(storage_option))
    display.show_optimize(opened.optimize(timedelta(hours=keep_hours)))


def rebuild(
    db: Db,
    table: TableName,
    nbits: Annotated[
        int | None, typer.Option(help="Bits per dimension of the new codec: 1, 2 or 4; by default unchanged.")
    ] = None,
    change_model: Annotated[
        bool, typer.Option("--change-model", help="Change of the index to the model inside tansaku, or to --model.")
    ] = False,
    resume: Resume = True,
    quiet: Quiet = False,
    model: Model = None,
    threads: Threads = None,
    storage_option: StorageOptions = None,
) -> None:
    """Train a new codec on the documents as they are now and encode them again; `tansaku info` shows when it pays.

    With --model the index gets another model. The search continues with the earlier one until the new rows are there.

    Example: `tansaku rebuild --db ./db --table docs`
    """
    from ...indexer.index import Index

    options = storage_options(storage_option)
    models = load_models(model, threads)
    opened = Index(table, open_table(db, table, options), None if model is not None else models)
    encoder = models.default() if change_model or model is not None else None
    started = time.perf_counter()
    with _interruptible(db, table, options), display.ProgressDisplay() as progress:
        report = opened.rebuild(nbits=nbits, encoder=encoder, resume=resume, progress=progress)
    if not quiet:
        display.show_build(report, time.perf_counter() - started)


def check(db: Db, table: TableName, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """Check an index for damage on the disk: files against their checksums, codes against the codec.

    Derived arrays that are damaged are made again. Other damage is an error, which names the file.

    Example: `tansaku check --db ./db --table docs`
    """
    from ...indexer.index import Index

    opened = Index.open(db, table, storage_options=storage_options(storage_option))
    with display.ProgressDisplay() as progress:
        report = opened.check(progress=progress)
    if as_json:
        display.show_json(dataclasses.asdict(report))
    else:
        display.show_check(report)


def info(db: Db, table: TableName, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """Show what an index holds, its size in bytes per token, and how far later documents have drifted.

    Example: `tansaku info --db ./db --table docs`
    """
    from ...indexer.index import Index

    found = Index.open(db, table, storage_options=storage_options(storage_option)).info()
    if not as_json:
        display.show_info(found)
        return
    per_token = {name: getattr(found, name) for name in ("bytes_per_token", "searched_bytes_per_token")}
    display.show_json({**dataclasses.asdict(found), **per_token})


@contextlib.contextmanager
def _rejects_shown_at_error(rejected: Rejects | None) -> Iterator[None]:
    """If the command fails, such as for want of documents, say where those are that were rejected."""
    try:
        yield
    except InputError:
        if rejected is not None:
            rejected.close()
            display.show_rejects(rejected)
        raise


@contextlib.contextmanager
def _interruptible(db: str, table: str, options: Mapping[str, str] | None) -> Iterator[None]:
    """At Ctrl-C, say what is kept and how to go on, and end with status 130."""
    from ...indexer.table.database import connect, side_folder
    from ...indexer.write.staging import left_work

    try:
        yield
    except KeyboardInterrupt:
        left = None
        with contextlib.suppress(TansakuError):
            left = left_work(side_folder(connect(db, storage_options=options), table))
        display.show_interrupted(left)
        raise typer.Exit(130) from None


def _check_layout(context: typer.Context, index: IndexTable, layout: Mapping[str, Any]) -> None:
    """Raise InputError if an option of a new table was given that the table there does not have."""
    header = index.header
    found = {"nbits": index.codec.nbits, "pool": header.pool, "passage_tokens": header.passage_tokens}
    for name, there in {**found, "fulltext": header.fulltext}.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and layout[name] != there:
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{option}: {index.place()} was made with {name} {there}; leave out {option}, or make the table again "
                "with --mode overwrite"
            )


def _rejects_path(rejects: Path | None, table: str, source: Sequence[str]) -> Path:
    path = rejects or Path(f"{table}.rejects.jsonl")
    if path.exists() and any(
        path.resolve().is_relative_to(Path(each).resolve()) for each in source
    ):  # it would be replaced
        raise InputError(f"{path}: the file for rejects is among the documents; choose another by --rejects")
    check_output(path)
    return path
