"""The command `tansaku`."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..indexer import FieldNames, Index, IndexInfo, SourceFile
from ..indexer.info import describe
from ..indexer.table import connect, open_index_table
from ..onnx_export import Encoder, InputError, TansakuError
from . import console
from .demo import run_demo
from .evaluate import judged_queries, measure, read_qrels, read_queries, search_all, trec_lines
from .searcher import Searcher

app = typer.Typer(
    help="Japanese late-interaction search: token vectors compressed in LanceDB, ranked by MaxSim, on a CPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)

Db = Annotated[str, typer.Option("--db", help="Folder or URI of the LanceDB database.")]
TableName = Annotated[str, typer.Option("--table", help="Name of the table.")]
Model = Annotated[
    Path | None, typer.Option("--model", help="Folder of an encoder bundle; by default the one that ships inside.")
]
Threads = Annotated[int | None, typer.Option("--threads", help="Threads for encoding; by default all cores.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Mode(str, Enum):
    """What `tansaku index` does with the table."""

    create = "create"
    append = "append"
    overwrite = "overwrite"


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
    source: Annotated[Path, typer.Argument(help="Documents: a .jsonl, .jsonl.gz, .parquet or .tsv file.")],
    db: Db,
    table: TableName,
    id_field: Annotated[str | None, typer.Option(help="Field with the id; by default _id or id.")] = None,
    text_field: Annotated[str, typer.Option(help="Field with the text.")] = "text",
    title_field: Annotated[str, typer.Option(help="Field with the title, if there is one.")] = "title",
    nbits: Annotated[int, typer.Option(help="Bits per dimension: 1, 2 or 4.")] = 2,
    mode: Annotated[Mode, typer.Option(help="Make a new table, add to one, or replace one.")] = Mode.create,
    model: Model = None,
    threads: Threads = None,
) -> None:
    """Index documents as compressed token vectors. Other fields than id, text and title become columns.

    Example: `tansaku index docs.jsonl --db ./db --table docs`
    """
    names = FieldNames(id_field, text_field, title_field)
    documents = SourceFile(source)
    encoder = Encoder.load(model, threads=threads)
    started = time.perf_counter()
    with console.ProgressDisplay() as progress:
        if mode is Mode.append:
            built = Index.open(db, table, encoder=encoder)
            built.add(documents, names=names, progress=progress)
        else:
            overwrite = mode is Mode.overwrite
            built = Index.create(
                db, table, documents, encoder=encoder, nbits=nbits, names=names, overwrite=overwrite, progress=progress
            )
    if built.last_build:
        console.show_build(built.last_build, time.perf_counter() - started)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="Question or keywords.")],
    db: Db,
    table: TableName,
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 10,
    as_json: AsJson = False,
    model: Model = None,
) -> None:
    """Search an index.

    Example: `tansaku search "梅雨がないのはどこ？" --db ./db --table docs -k 3`
    """
    hits = Searcher.open(db, table, encoder=Encoder.load(model)).search(query, k)
    if as_json:
        ranked = [{"rank": rank, **dataclasses.asdict(hit)} for rank, hit in enumerate(hits, start=1)]
        _print_json({"query": query, "hits": ranked})
    else:
        console.show_hits(query, hits)


@app.command()
def info(db: Db, table: TableName, as_json: AsJson = False) -> None:
    """Show what an index holds and how many bytes a token takes.

    Example: `tansaku info --db ./db --table docs`
    """
    found: IndexInfo = describe(table, open_index_table(connect(db), table))
    if as_json:
        _print_json({**dataclasses.asdict(found), "bytes_per_token": found.bytes_per_token})
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
    as_json: AsJson = False,
) -> None:
    """Turn a ColBERT checkpoint into an encoder bundle, and measure how near its vectors are.

    Needs the extra `export`, and `japanese` for tokenizers that run MeCab.

    Example: `tansaku export answerdotai/JaColBERTv2.5 ./jacolbert --int8`
    """
    # These bring torch and transformers, which no other command needs.
    from ..onnx_export.export import export_checkpoint
    from ..onnx_export.load import load_checkpoint

    loaded = load_checkpoint(
        checkpoint, revision=revision, query_expansion=query_expansion.value if query_expansion else None
    )
    bundle = export_checkpoint(loaded, out, precision="int8" if int8 else "float32")
    size = sum(file.stat().st_size for file in out.iterdir())
    if as_json:
        _print_json({"bundle": str(out), "bytes": size, **dataclasses.asdict(bundle)})
    else:
        console.show_bundle(out, bundle, size)


@app.command()
def evaluate(
    db: Db,
    table: TableName,
    queries: Annotated[Path, typer.Option(help="Queries: .jsonl, .jsonl.gz, .parquet or .tsv with _id and text.")],
    qrels: Annotated[Path, typer.Option(help="Judgements: BEIR .tsv or TREC format.")],
    k: Annotated[int, typer.Option("-k", help="How many hits a query is searched for, at least 10.")] = 10,
    run_file: Annotated[Path | None, typer.Option("--run", help="Write the hits to this TREC run file.")] = None,
    as_json: AsJson = False,
    model: Model = None,
) -> None:
    """Measure how well an index ranks, over the judged queries.

    Example: `tansaku evaluate --db ./db --table docs --queries queries.jsonl --qrels qrels.tsv`
    """
    if k < 10:
        raise InputError(f"k is {k}; the measures look at the first 10 hits, so it must be 10 or more")
    judgements = read_qrels(qrels)
    asked = judged_queries(read_queries(queries), judgements)
    searcher = Searcher.open(db, table, encoder=Encoder.load(model))
    with console.ProgressDisplay() as progress:
        run = search_all(searcher, asked, k=k, progress=lambda done: progress("search", done, len(asked)))
    metrics = measure(run, judgements)
    if run_file:
        run_file.write_text("\n".join(trec_lines(run)) + "\n", encoding="utf-8")
    if as_json:
        _print_json({"metrics": metrics, "queries": len(asked)})
        return
    console.out.print(f"{len(asked):,} queries")
    for name, value in metrics.items():
        console.out.print(f"{name:<8} {value:.4f}")


def main() -> None:
    """Entry point: errors that tansaku raises on purpose end the command with status 2."""
    try:
        app()
    except TansakuError as error:
        console.show_error(error)
        sys.exit(2)


def _print_json(content: dict[str, Any]) -> None:
    # Columns of the caller's may hold dates and the like, which JSON has no form for.
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2, default=str))
