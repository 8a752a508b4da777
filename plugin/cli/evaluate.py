"""The command `tansaku evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ..evaluation.measures import judged_queries, measure, read_qrels, read_queries, search_all, trec_lines
from ..search.searcher import Searcher
from . import display as console
from .options import AsJson, Bm25Weight, Db, Model, PhraseWeight, RecallOption, SourceOption, TableName


def evaluate(
    db: Db,
    table: TableName,
    queries: Annotated[Path, typer.Option(help="Queries: JSONL, CSV, TSV or Parquet with _id and text.")],
    qrels: Annotated[
        Path | None, typer.Option(help="Judgements: BEIR .tsv or TREC format; --run alone asks all queries.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many hits a query is searched for, at least 10.")] = 10,
    recall: RecallOption = "balanced",
    source: SourceOption = "lists",
    bm25_weight: Bm25Weight = 0.0,
    phrase_weight: PhraseWeight = None,
    run_file: Annotated[Path | None, typer.Option("--run", help="Write the hits to this TREC run file.")] = None,
    as_json: AsJson = False,
    model: Model = None,
) -> None:
    """Measure how well an index ranks, over the judged queries.

    Example: `tansaku evaluate --db ./db --table docs --queries queries.jsonl --qrels qrels.tsv`
    """
    if k < 10:
        raise InputError(f"k is {k}; the measures look at the first 10 hits, so it must be 10 or more")
    if qrels is None and run_file is None:
        raise InputError("nothing to measure by and nothing to write; give --qrels, --run or both")
    judgements = read_qrels(qrels) if qrels else {}
    asked = read_queries(queries)
    if judgements:
        asked = judged_queries(asked, judgements)
    searcher = Searcher.open(db, table, encoder=Encoder.load(model))
    with console.ProgressDisplay() as progress:
        run = search_all(
            searcher,
            asked,
            k=k,
            progress=lambda done: progress("search", done, len(asked)),
            recall=recall,
            source=source,
            bm25_weight=bm25_weight,
            phrase_weight=phrase_weight,
        )
    metrics = measure(run, judgements) if judgements else {}
    if run_file:
        run_file.write_text("\n".join(trec_lines(run)) + "\n", encoding="utf-8")
    if as_json:
        console.show_json({"metrics": metrics, "queries": len(asked)})
        return
    console.out.print(f"{len(asked):,} queries")
    for name, value in metrics.items():
        console.out.print(f"{name:<8} {value:.4f}")
