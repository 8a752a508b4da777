"""The command `tansaku`."""

from __future__ import annotations

import dataclasses
import sys
import time
from datetime import timedelta
from enum import Enum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from ...indexer.derived.arrays import load_arrays
from ...indexer.index import Index
from ...indexer.info import IndexInfo, describe
from ...indexer.read.documents import FieldNames
from ...indexer.read.rejects import Rejects
from ...indexer.read.sources import Source
from ...indexer.table.changes import delete_documents, optimize_table
from ...indexer.table.database import Database, connect
from ...indexer.table.table import open_index_table
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError, TansakuError
from ..search.searcher import Searcher
from . import display as console
from .beir import beir
from .demo import run_demo
from .evaluate import evaluate
from .mcp import mcp
from .options import (
    AsJson,
    Bm25Weight,
    Db,
    Model,
    PhraseWeight,
    RecallOption,
    SourceOption,
    StorageOptions,
    TableName,
    Threads,
)
from .serve import serve

app = typer.Typer(
    help="Japanese late-interaction search: token vectors compressed in LanceDB, ranked by MaxSim, on a CPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)

Resume = Annotated[
    bool, typer.Option(help="Go on where an interrupted command of the same kind stopped, or begin anew.")
]


class Mode(str, Enum):
    """What `tansaku index` does with the table."""

    create = "create"
    append = "append"
    upsert = "upsert"
    overwrite = "overwrite"


class OnError(str, Enum):
    """What `tansaku index` does with a record that cannot be indexed."""

    stop = "stop"
    reject = "reject"


class QueryExpansion(str, Enum):
    """Which mask tokens an exported bundle adds to queries."""

    paper = "paper"
    shipped = "shipped"
    fixed = "fixed"
    none = "none"


@app.command()
def demo(
    db: Annotated[Path | None, typer.Option("--db", help="Keep the database in this folder.")] = None,
) -> None:
    """Index the sample corpus that ships inside, and answer three questions.

    Example: `tansaku demo`
    """
    run_demo(db)


@app.command()
def index(
    source: Annotated[
        str,
        typer.Argument(
            help="Documents: JSONL, CSV, TSV (also .gz, .zst), Parquet, Arrow, a Lance or Hugging Face dataset folder; "
            "- is standard input."
        ),
    ],
    db: Db,
    table: TableName,
    id_field: Annotated[str | None, typer.Option(help="Field with the id; by default _id or id.")] = None,
    text_field: Annotated[str, typer.Option(help="Field with the text.")] = "text",
    title_field: Annotated[str, typer.Option(help="Field with the title, if there is one.")] = "title",
    source_format: Annotated[
        str | None, typer.Option("--format", help="jsonl, csv, tsv, parquet or arrow, where the name does not say.")
    ] = None,
    nbits: Annotated[int, typer.Option(help="Bits per dimension of a new table: 1, 2 or 4.")] = 2,
    pool: Annotated[int, typer.Option(help="Keep one token vector in so many of a new table; 1 keeps all.")] = 1,
    passage_tokens: Annotated[
        int | None, typer.Option(help="Divide documents of a new table into passages of at most so many tokens.")
    ] = None,
    fulltext: Annotated[bool, typer.Option("--fulltext", help="Make a new table with full text search too.")] = False,
    mode: Annotated[Mode, typer.Option(help="Make a new table, add to one, update one, or replace one.")] = Mode.create,
    resume: Resume = True,
    on_error: Annotated[OnError, typer.Option(help="Stop at a bad record, or write it to --rejects.")] = OnError.stop,
    rejects: Annotated[
        Path | None, typer.Option(help="File for rejects; by default TABLE.rejects.jsonl in this folder.")
    ] = None,
    model: Model = None,
    threads: Threads = None,
    storage_option: StorageOptions = None,
) -> None:
    """Index documents as compressed token vectors. Other fields than id, text and title become columns.

    Example: `tansaku index docs.jsonl --db ./db --table docs`
    """
    encoder = Encoder.load(model, threads=threads)
    database = _database(db, storage_option, create=True)
    documents = Source(source, format=source_format)
    left_out = None if on_error is OnError.stop else Rejects(_rejects_path(rejects, table, source))
    started = time.perf_counter()
    with console.ProgressDisplay() as progress:
        how: dict[str, Any] = {
            "names": FieldNames(id_field, text_field, title_field),
            "rejects": left_out,
            "resume": True,
            "restart": not resume,
            "progress": progress,
        }
        if mode is Mode.append:
            built = Index.open(database, table, encoder=encoder)
            built.add(documents, **how)
        elif mode is Mode.upsert:
            built = Index.open(database, table, encoder=encoder)
            built.upsert(documents, **how)
        else:
            built = Index.create(
                database,
                table,
                documents,
                encoder=encoder,
                nbits=nbits,
                pool=pool,
                passage_tokens=passage_tokens,
                fulltext=fulltext,
                overwrite=mode is Mode.overwrite,
                **how,
            )
    if built.last_build:
        console.show_build(built.last_build, time.perf_counter() - started)
    if left_out is not None:
        left_out.close()
        console.show_rejects(left_out)
    load_arrays(open_index_table(connect(database), table))  # so that the first search need not


@app.command()
def delete(
    db: Db,
    table: TableName,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Id of a document; may be repeated.")] = None,
    ids_file: Annotated[Path | None, typer.Option(help="File with one id a line.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition over the columns, such as 'year < 1950'.")] = None,
    storage_option: StorageOptions = None,
) -> None:
    """Delete documents by id, or all that a condition describes.

    Example: `tansaku delete --db ./db --table docs --id doc1 --id doc2`
    """
    given = list(ids or [])
    if ids_file is not None:
        try:
            given += [line for line in ids_file.read_text(encoding="utf-8-sig").splitlines() if line]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{ids_file}: cannot be read ({error})") from error
    named = given if ids is not None or ids_file is not None else None
    console.show_delete(delete_documents(open_index_table(connect(_database(db, storage_option)), table), named, where))


@app.command()
def optimize(
    db: Db,
    table: TableName,
    keep_hours: Annotated[float, typer.Option(help="Keep versions of the table that are not older than this.")] = 1.0,
    storage_option: StorageOptions = None,
) -> None:
    """Merge small data files of a table and give up its old versions.

    Example: `tansaku optimize --db ./db --table docs`
    """
    if not 0 <= keep_hours <= 1e6:
        raise InputError(f"keep-hours is {keep_hours}; it must not be negative, and no more than a million")
    opened = open_index_table(connect(_database(db, storage_option)), table)
    console.show_optimize(optimize_table(opened, timedelta(hours=keep_hours)))


@app.command()
def rebuild(
    db: Db,
    table: TableName,
    nbits: Annotated[int | None, typer.Option(help="Bits per dimension from now on: 1, 2 or 4.")] = None,
    resume: Resume = True,
    model: Model = None,
    threads: Threads = None,
    storage_option: StorageOptions = None,
) -> None:
    """Train a new codec on the documents as they are now and encode all of them again; see drift in `tansaku info`.

    Example: `tansaku rebuild --db ./db --table docs`
    """
    opened = Index.open(_database(db, storage_option), table, encoder=Encoder.load(model, threads=threads))
    started = time.perf_counter()
    with console.ProgressDisplay() as progress:
        report = opened.rebuild(nbits=nbits, resume=True, restart=not resume, progress=progress)
    console.show_build(report, time.perf_counter() - started)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="Question or keywords.")],
    db: Db,
    table: TableName,
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 10,
    recall: RecallOption = "balanced",
    where: Annotated[str | None, typer.Option(help="Only documents for which this SQL condition holds.")] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Only this document; may be repeated.")] = None,
    source: SourceOption = "lists",
    bm25_weight: Bm25Weight = 0.0,
    phrase_weight: PhraseWeight = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show which tokens met, and each stage's time.")] = False,
    derived: Annotated[
        bool, typer.Option(help="Use arrays kept on disk beside the table, or read codes from the table.")
    ] = True,
    as_json: AsJson = False,
    model: Model = None,
    storage_option: StorageOptions = None,
) -> None:
    """Search an index.

    Example: `tansaku search "金閣寺" --db ./db --table docs --where "year < 1500" --explain`
    """
    searcher = Searcher.open(_database(db, storage_option), table, encoder=Encoder.load(model), derived=derived)
    hits = searcher.search(
        query,
        k,
        recall=recall,
        where=where,
        ids=ids,
        source=source,
        bm25_weight=bm25_weight,
        phrase_weight=phrase_weight,
    )
    why = [searcher.explain(query, hit.id, phrase_weight=phrase_weight) for hit in hits] if explain else []
    if as_json:
        ranked = [{"rank": rank, **dataclasses.asdict(hit)} for rank, hit in enumerate(hits, start=1)]
        for hit, explanation in zip(ranked, why, strict=False):
            hit["matches"] = [dataclasses.asdict(match) for match in explanation.matches]
        more = {"missing": hits.missing} if ids else {}
        console.show_json({"query": query, "hits": ranked, "stages_ms": hits.stages, "scored": hits.scored, **more})
    else:
        console.show_hits(query, hits, why)


@app.command()
def info(db: Db, table: TableName, as_json: AsJson = False, storage_option: StorageOptions = None) -> None:
    """Show what an index holds, how many bytes a token takes, and how far later documents have drifted.

    Example: `tansaku info --db ./db --table docs`
    """
    found: IndexInfo = describe(open_index_table(connect(_database(db, storage_option)), table))
    if as_json:
        per_token = {name: getattr(found, name) for name in ("bytes_per_token", "searched_bytes_per_token")}
        console.show_json({**dataclasses.asdict(found), **per_token})
    else:
        console.show_info(found)


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="ColBERT checkpoint: a folder, or owner/name on the model hub.")],
    out: Annotated[Path, typer.Argument(help="Folder for the bundle.")],
    int8: Annotated[bool, typer.Option("--int8", help="int8 weights and products: a quarter of the size.")] = False,
    query_expansion: Annotated[
        QueryExpansion | None,
        typer.Option(help="Mask tokens for queries; by default paper for Stanford checkpoints, else the checkpoint's."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    phrase_weight: Annotated[
        float, typer.Option(help="Of a token's neighbours, in searches that do not say; 0 is MaxSim alone.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Turn a ColBERT checkpoint into an encoder bundle, and measure how near its vectors are.

    Needs the extra `export`, and `japanese` for tokenizers that run MeCab.

    Example: `tansaku export answerdotai/JaColBERTv2.5 ./jacolbert --int8`
    """
    # These bring torch and transformers, which no other command needs.
    from ...onnx_export.convert.export import export_checkpoint
    from ...onnx_export.convert.load import load_checkpoint

    loaded = load_checkpoint(
        checkpoint, revision=revision, query_expansion=query_expansion.value if query_expansion else None
    )
    bundle = export_checkpoint(loaded, out, precision="int8" if int8 else "float32", phrase_weight=phrase_weight)
    size = sum(file.stat().st_size for file in out.iterdir())
    if as_json:
        console.show_json({"bundle": str(out), "bytes": size, **dataclasses.asdict(bundle)})
    else:
        console.show_bundle(out, bundle, size)


app.command()(evaluate)
app.command()(beir)
app.command()(serve)
app.command()(mcp)
for _command in sorted(entry_points(group="tansaku.commands"), key=lambda point: point.name):
    app.command(_command.name)(_command.load())


def main() -> None:
    """Entry point: errors that tansaku raises on purpose end the command with status 2."""
    try:
        app()
    except TansakuError as error:
        console.show_error(error)
        sys.exit(2)


def _rejects_path(rejects: Path | None, table: str, source: str) -> Path:
    path = rejects or Path(f"{table}.rejects.jsonl")
    if path.exists() and path.resolve().is_relative_to(Path(source).resolve()):  # it would be replaced
        raise InputError(f"{path}: the file for rejects is among the documents; choose another by --rejects")
    return path


def _database(db: str, storage_option: list[str] | None, *, create: bool = False) -> Database:
    if not storage_option:
        return db
    options: dict[str, str] = {}
    for option in storage_option:
        key, separator, value = option.partition("=")
        if not separator or not key:
            raise InputError("--storage-option: expected KEY=VALUE")
        options[key] = value
    return connect(db, create=create, storage_options=options)
