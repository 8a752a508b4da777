"""The command `tansaku search`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...onnx_export.errors import InputError
from ...onnx_export.files import check_output, write_output
from . import display
from .hits import Answer, HitFormat, chosen_fields, show_answers
from .messages import language
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

if TYPE_CHECKING:
    from ..search.searcher import Searcher

_AT_ONCE = 64  # queries searched before their hits are printed


def search(
    db: Db,
    table: TableName,
    query: Annotated[str | None, typer.Argument(help="Question or keywords.", show_default=False)] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            "--queries",
            help="File of queries in place of one: a query in each line of .txt; or JSONL, JSON, CSV, TSV or Parquet "
            "with id and text.",
        ),
    ] = None,
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
    explain_html: Annotated[
        Path | None,
        typer.Option("--explain-html", help="File for a page that shows which words of each hit matched."),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--fields",
            help="Names of the fields to show, between commas: columns, title, text or snippet. May be repeated.",
        ),
    ] = None,
    hit_format: Annotated[
        HitFormat,
        typer.Option(
            "--format", help="Format of the hits: `text` for people, `json`, or a hit in each line: `jsonl` or `tsv`."
        ),
    ] = "text",
    derived: Annotated[
        bool,
        typer.Option(
            "--derived/--no-derived",
            help="Arrays kept on disk next to the table for fast searches; --no-derived reads the table alone.",
        ),
    ] = True,
    as_json: AsJson = False,
    quiet: Quiet = False,
    model: Model = None,
    threads: Threads = None,
    storage_option: StorageOptions = None,
) -> None:
    """Search an index; what matches is marked.

    Example: `tansaku search "金閣寺" --db ./db --table docs --where "year < 1500" --explain`
    """
    from ..search.cuts import queries_warning, query_warning
    from ..search.explain_html import Explained, explain_page
    from ..search.fetch import hit_columns
    from ..search.searcher import Searcher

    form = _format(hit_format, as_json, explain)
    asked = _queries(query, queries)
    opened = open_table(db, table, storage_options(storage_option))
    searcher = Searcher(opened, load_models(model, threads), derived=derived)
    names = chosen_fields(fields, hit_columns(opened.table.schema, opened.header))
    options: dict[str, Any] = {
        "recall": recall,
        "where": where,
        "ids": ids,
        "passages": passages,
        "source": source,
        "bm25_weight": bm25_weight,
        "phrase_weight": phrase_weight,
        "nprobe": nprobe,
        "candidates": candidates,
        "fields": read_for(form, names),
    }
    with_snippets = form in ("text", "json") if names is None or form == "text" else "snippet" in names
    if queries is not None:
        warning = queries_warning(searcher.encoder, asked.values())
    else:
        warning = query_warning(searcher.encoder) if queries_warning(searcher.encoder, asked.values()) else None
    if warning:
        display.show_warning(warning)
    if explain_html is not None:
        check_output(explain_html)
    answers: Iterable[Answer] = _answers(
        searcher, asked, k, options, with_snippets, explain or explain_html is not None
    )
    with display.NotesOfWaiting():
        if explain_html is not None:
            answers = list(answers)
            page = explain_page([Explained(one.query, one.explanations) for one in answers], language=language())
            write_output(explain_html, [page])
            if not explain:
                answers = [dataclasses.replace(one, explanations=[]) for one in answers]
        show_answers(answers, form, names, several=queries is not None)


def _format(given: HitFormat, as_json: bool, explain: bool) -> HitFormat:
    if as_json and given not in ("text", "json"):
        raise InputError(f"--json and --format {given} are different formats; give one of them")
    form: HitFormat = "json" if as_json else given
    if explain and form == "tsv":
        raise InputError("TSV has no place for what --explain says; use --format jsonl")
    return form


def read_for(form: HitFormat, names: Sequence[str] | None) -> list[str] | None:
    """What is read of hits: what is shown of them. For people a snippet is always shown, which needs the text."""
    if form == "text":
        return list(dict.fromkeys(["title", "text", *(name for name in names or () if name != "snippet")]))
    if names is None:
        return ["title", "text"] if form == "tsv" else None
    return [name for name in names if name != "snippet"]


def _queries(query: str | None, file: Path | None) -> Mapping[str, str]:
    """Query id → text."""
    from ..search.query_encoder import check_query

    if (query is None) == (file is None):
        raise InputError("search needs a query or a file of queries (--queries FILE); give one of them")
    if file is None:
        return {"1": check_query(query or "")}
    return read_queries_of(file)


def read_queries_of(file: Path) -> dict[str, str]:
    """Query id → text, from a file of queries.

    Raises:
        InputError: there are no queries in it.
        SourceError: it cannot be read, or a record of it.
    """
    from ..evaluation.judgements import read_queries, read_query_lines

    with display.LoggedWarnings():
        found = read_query_lines(file) if file.suffix.lower() == ".txt" else read_queries(file)
    if not found:
        raise InputError(f"{file}: there are no queries in it")
    return found


def _answers(
    searcher: Searcher,
    asked: Mapping[str, str],
    k: int,
    options: Mapping[str, Any],
    with_snippets: bool,
    explain: bool,
) -> Iterator[Answer]:
    from ..search.cuts import documents_warning

    phrase_weight = options["phrase_weight"]
    items = list(asked.items())
    for start in range(0, len(items), _AT_ONCE):
        part = items[start : start + _AT_ONCE]
        texts = [text for _, text in part]
        ranked = (
            searcher.search_many(texts, k, **options) if len(items) > 1 else [searcher.search(texts[0], k, **options)]
        )
        for (query_id, text), hits in zip(part, ranked, strict=True):
            found = [hit.id for hit in hits]
            snippets = searcher.snippets(text, found, phrase_weight=phrase_weight) if with_snippets else []
            explanations = (
                [searcher.explain(text, doc_id, phrase_weight=phrase_weight) for doc_id in found] if explain else []
            )
            if cut := [explanation.id for explanation in explanations if explanation.cut]:
                display.show_warning(documents_warning(searcher.encoder, cut, len(explanations)))
            yield Answer(query_id, text, hits, snippets, explanations)
