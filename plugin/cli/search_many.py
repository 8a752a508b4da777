"""The command `tansaku search-many`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from . import display
from .messages import said
from .options import (
    AsJson,
    Bm25Weight,
    Candidates,
    Db,
    K,
    Model,
    Nprobe,
    Passages,
    PhraseWeight,
    Quiet,
    RecallOption,
    Resume,
    SourceOption,
    StorageOptions,
    TableName,
    Threads,
    Where,
    load_models,
    open_table,
    storage_options,
)
from .workers import ActorCpus, Actors, Address, On, Processes, chosen_workers


def search_many(
    db: Db,
    table: TableName,
    queries: Annotated[
        Path,
        typer.Argument(
            help="File of queries: a query in each line of .txt; or JSONL, JSON, CSV, TSV or Parquet with id and text."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="File for the hits: .parquet, or .run or .trec for TREC's run format.")],
    k: K = 10,
    recall: RecallOption = "balanced",
    where: Where = None,
    passages: Passages = False,
    source: SourceOption = "lists",
    bm25_weight: Bm25Weight = 0.0,
    phrase_weight: PhraseWeight = None,
    nprobe: Nprobe = None,
    candidates: Candidates = None,
    resume: Resume = True,
    as_json: AsJson = False,
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
    """Search a file of queries and write the hits to a file; what was interrupted continues.

    Example: `tansaku search-many --db ./db --table docs queries.jsonl hits.parquet`
    """
    from ..evaluation.bulk_search import search_file
    from ..search.cuts import queries_warning
    from ..search.searcher import Searcher
    from .search import read_queries_of

    workers = chosen_workers(on, processes, address, actors, actor_cpus)
    asked = read_queries_of(queries)
    opened = open_table(db, table, storage_options(storage_option))
    searcher = Searcher(opened, load_models(model, threads))
    if warning := queries_warning(searcher.encoder, asked.values()):
        display.show_warning(warning)
    with display.NotesOfWaiting(), display.ProgressDisplay() as progress:
        report = search_file(
            searcher,
            asked,
            out,
            k=k,
            resume=resume,
            progress=progress,
            on=workers,
            recall=recall,
            where=where,
            passages=passages,
            source=source,
            bm25_weight=bm25_weight,
            phrase_weight=phrase_weight,
            nprobe=nprobe,
            candidates=candidates,
        )
    if as_json:
        display.show_json(dataclasses.asdict(report))
        return
    if not quiet:
        line = f"{report.hits:,} hits of {report.queries:,} queries in {out}"
        display.out.print(display.shown(said(line)))
        if report.without_hits:
            display.out.print(display.shown(said(f"{report.without_hits:,} queries found nothing")))
