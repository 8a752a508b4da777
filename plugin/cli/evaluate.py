"""The command `tansaku evaluate`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra
from ...onnx_export.files import check_output, write_output
from . import display
from .benchmark import run_benchmark
from .options import (
    AllowMissing,
    AsJson,
    Bm25Weight,
    Candidates,
    Ids,
    Model,
    Nprobe,
    Passages,
    PhraseWeight,
    Quiet,
    RecallOption,
    SourceOption,
    StorageOptions,
    Threads,
    Where,
    load_models,
    open_table,
    storage_options,
)

# What belongs to a benchmark alone, and what it shares with an index.
_OF_BENCHMARK = ("data", "split", "questions", "ways")
_OF_BOTH = ("benchmark", "recall", "allow_missing", "as_json", "quiet", "model", "threads")


def evaluate(
    ctx: typer.Context,
    db: Annotated[str | None, typer.Option("--db", help="Folder or URI of the LanceDB database.")] = None,
    table: Annotated[str | None, typer.Option("--table", help="Name of the table.")] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="File of queries: JSONL, JSON, CSV, TSV or Parquet with _id and text, or TSV without a header."
        ),
    ] = None,
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
    benchmark: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of a public benchmark to measure a model by, in place of an index: jqara, jacwir, miracl-ja, "
            "mr-tydi-ja, mldr-ja, jsquad, esci-ja, esci-ja-corpus, nlp-journal, nanobeir-ja, nanojmteb or hakari.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with the files of the benchmark, as they are published.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the benchmark; by default the one that results are published for.")
    ] = None,
    questions: Annotated[
        int | None,
        typer.Option(help="Number of judged questions of each task of the benchmark, evenly spread; by default all."),
    ] = None,
    ways: Annotated[
        list[str] | None,
        typer.Option(
            "--way",
            metavar="[bm25|exhaustive|index]",
            help="Way to rank the benchmark, as `tansaku beir` does; may be repeated; by default all.",
        ),
    ] = None,
    allow_missing: AllowMissing = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    model: Model = None,
    threads: Threads = None,
    storage_option: StorageOptions = None,
) -> None:
    """Measure how well an index ranks over judged queries, or a model on a public benchmark.

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

    if benchmark is not None:
        _refuse_others(ctx, (*_OF_BOTH, *_OF_BENCHMARK), "an index, not for --benchmark")
        if data is None:
            raise InputError(f"--benchmark {benchmark} needs --data, the folder with its files")
        run_benchmark(
            benchmark,
            data,
            split,
            ways=ways,
            questions=questions,
            recall=recall,
            model=model,
            threads=threads,
            allow_missing=allow_missing,
            as_json=as_json,
        )
        return
    _refuse_others(ctx, [name for name in ctx.params if name not in _OF_BENCHMARK], "a benchmark; give --benchmark")
    if db is None or table is None or queries is None:
        raise InputError("give --db, --table and --queries to measure an index, or --benchmark and --data")
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


def _refuse_others(ctx: typer.Context, taken: Collection[str], of: str) -> None:
    """Refuse options that were given and would not be looked at.

    Raises:
        InputError: there is one; names all.
    """
    given = [
        param.opts[0]
        for param in ctx.command.params
        if param.name not in taken and getattr(ctx.get_parameter_source(param.name or ""), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise InputError(f"{', '.join(given)}: for {of}")
