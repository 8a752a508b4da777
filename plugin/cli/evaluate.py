"""The command `tansaku evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra
from ...onnx_export.files import check_output, write_output
from . import display
from .options import (
    AllowMissing,
    AsJson,
    Bm25Weight,
    Candidates,
    Db,
    Ids,
    Model,
    Nprobe,
    Passages,
    PhraseWeight,
    Quiet,
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


def evaluate(
    db: Db,
    table: TableName,
    queries: Annotated[
        Path,
        typer.Option(
            help="File of queries: JSONL, JSON, CSV, TSV or Parquet with _id and text, or TSV without a header."
        ),
    ],
    qrels: Annotated[
        Path | None,
        typer.Option(help="File of judgements, in BEIR's .tsv or TREC's format; without it, --run asks every query."),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Number of hits for each query, at least 10.")] = 10,
    recall: RecallOption = "balanced",
    where: Where = None,
    ids: Ids = None,
    passages: Passages = False,
    source: SourceOption = "lists",
    bm25_weight: Bm25Weight = 0.0,
    phrase_weight: PhraseWeight = None,
    nprobe: Nprobe = None,
    candidates: Candidates = None,
    run_file: Annotated[Path | None, typer.Option("--run", help="File for the hits, in TREC's run format.")] = None,
    allow_missing: AllowMissing = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    model: Model = None,
    threads: Threads = None,
    storage_option: StorageOptions = None,
) -> None:
    """Measure how well an index ranks, over the judged queries.

    Needs the extra `evaluate`.

    Example: `tansaku evaluate --db ./db --table docs --queries queries.jsonl --qrels qrels.tsv`
    """
    from ..evaluation.judgements import (
        check_missing,
        judged_documents,
        judged_queries,
        read_qrels,
        read_queries,
        trec_lines,
    )
    from ..evaluation.measures import measure
    from ..evaluation.ranking import search_all
    from ..search.cuts import queries_warning
    from ..search.searcher import Searcher

    if qrels is not None:
        require_extra("evaluate", "ir_measures")
    if k < 10:
        raise InputError(f"k is {k}; the measures look at the first 10 hits, so it must be 10 or more")
    if qrels is None and run_file is None:
        raise InputError("nothing to measure by and nothing to write; give --qrels, --run or both")
    if run_file is not None:
        check_output(run_file)
    with display.LoggedWarnings():
        judgements = read_qrels(qrels) if qrels else {}
        asked = read_queries(queries)
    if judgements:
        asked = judged_queries(asked, judgements)
    searcher = Searcher(open_table(db, table, storage_options(storage_option)), load_models(model, threads))
    unknown = searcher.unknown(judged_documents(judgements))
    if said := check_missing(judgements, unknown, f"table {table!r}", allow_missing=allow_missing):
        display.show_warning(said)
    if warning := queries_warning(searcher.encoder, asked.values()):
        display.show_warning(warning)
    with display.NotesOfWaiting(), display.ProgressDisplay() as progress:
        run = search_all(
            searcher,
            asked,
            k=k,
            progress=progress,
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
    metrics = measure(run, judgements) if judgements else {}
    if as_json:
        display.show_json({"metrics": metrics, "queries": len(asked), "missing": len(unknown)})
    else:
        display.show_metrics(metrics, len(asked))
    if run_file:
        write_output(run_file, trec_lines(run))
