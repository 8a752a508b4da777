"""The command `tansaku search`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from . import display
from .options import (
    AsJson,
    Bm25Weight,
    Candidates,
    Db,
    Ids,
    K,
    Model,
    Nprobe,
    Passages,
    PhraseWeight,
    RecallOption,
    SourceOption,
    StorageOptions,
    TableName,
    Threads,
    Where,
    load_models,
    open_table,
    storage_options,
)


def search(
    query: Annotated[str, typer.Argument(help="Question or keywords.")],
    db: Db,
    table: TableName,
    k: K = 10,
    recall: RecallOption = "balanced",
    where: Where = None,
    ids: Ids = None,
    passages: Passages = False,
    source: SourceOption = "lists",
    bm25_weight: Bm25Weight = 0.0,
    phrase_weight: PhraseWeight = None,
    nprobe: Nprobe = None,
    candidates: Candidates = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Explanation of each hit by the tokens that matched, and each stage's time."),
    ] = False,
    derived: Annotated[
        bool,
        typer.Option(
            "--derived/--no-derived",
            help="Arrays kept on disk next to the table for fast searches; --no-derived reads the table alone.",
        ),
    ] = True,
    as_json: AsJson = False,
    model: Model = None,
    threads: Threads = None,
    storage_option: StorageOptions = None,
) -> None:
    """Search an index.

    Example: `tansaku search "金閣寺" --db ./db --table docs --where "year < 1500" --explain`
    """
    from ..search.cuts import documents_warning, query_warning
    from ..search.searcher import Searcher

    opened = open_table(db, table, storage_options(storage_option))
    searcher = Searcher(opened, load_models(model, threads), derived=derived)
    hits = searcher.search(
        query,
        k,
        recall=recall,
        where=where,
        ids=ids,
        passages=passages,
        source=source,
        bm25_weight=bm25_weight,
        phrase_weight=phrase_weight,
        nprobe=nprobe,
        candidates=candidates,
    )
    if hits.truncated:
        display.show_warning(query_warning(searcher.encoder))
    explanations = [searcher.explain(query, hit.id, phrase_weight=phrase_weight) for hit in hits] if explain else []
    if cut := [explanation.id for explanation in explanations if explanation.cut]:
        display.show_warning(documents_warning(searcher.encoder, cut, len(explanations)))
    if not as_json:
        display.show_hits(query, hits, explanations)
        return
    shown = [{"rank": rank, **dataclasses.asdict(hit)} for rank, hit in enumerate(hits, start=1)]
    for hit, explanation in zip(shown, explanations, strict=False):
        hit["matches"] = [dataclasses.asdict(match) for match in explanation.matches]
        hit["cut"] = explanation.cut
    missing = {"missing": hits.missing} if ids else {}
    about = {"stages_ms": hits.stages, "scored": hits.scored, "truncated": hits.truncated}
    display.show_json({"query": query, "hits": shown, **about, **missing})
