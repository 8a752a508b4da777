"""How well a search ranks: queries and relevance judgements in, standard measures out. Needs the extra ``evaluate``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ...indexer.errors import SourceError
from ...indexer.read.sources import BadRecord, Source
from ...onnx_export.errors import InputError, MissingExtraError
from ..search.searcher import Searcher

# query id → document id → score, or grade of relevance
Run = dict[str, dict[str, float]]
Qrels = dict[str, dict[str, int]]

MEASURES = {
    "ndcg@10": "nDCG@10",
    "mrr@10": "RR@10",
    "hit@1": "Success@1",
    "hit@3": "Success@3",
    "hit@5": "Success@5",
    "hit@10": "Success@10",
}


def read_queries(path: str | Path) -> dict[str, str]:
    """Query id → text from a JSONL or TSV file with the fields ``_id`` (or ``id``) and ``text``.

    Raises SourceError, naming the place, for a missing field, an empty query or an id that occurs twice.
    """
    queries: dict[str, str] = {}
    for place, record in Source(path):
        if isinstance(record, BadRecord):
            raise SourceError(f"{place}: {record.reason}")
        query_id, text = record.get("_id", record.get("id")), record.get("text")
        if query_id is None or not isinstance(text, str) or not text.strip():
            raise SourceError(
                f"{place}: a query needs the fields '_id' (or 'id') and 'text', and a text that is not empty"
            )
        if str(query_id) in queries:
            raise SourceError(f"{place}: query id {query_id!r} occurs twice")
        queries[str(query_id)] = text
    return queries


def read_qrels(path: str | Path) -> Qrels:
    """Judgements from a BEIR file (query-id, corpus-id, score) or a TREC one (query, 0, document, grade).

    Raises SourceError, naming the line, for another number of fields or a grade that is no integer.
    """
    qrels: Qrels = {}
    for number, parts in _judgement_lines(Path(path)):
        if len(parts) not in (3, 4):
            raise SourceError(f"{path}:{number}: expected 3 fields (BEIR) or 4 (TREC), found {len(parts)}")
        query_id, doc_id, grade = parts[0], parts[-2], parts[-1]
        try:
            qrels.setdefault(query_id, {})[doc_id] = int(grade)
        except ValueError:
            if number == 1:  # a header
                qrels.clear()
                continue
            raise SourceError(f"{path}:{number}: the grade {grade!r} is no integer") from None
    if not qrels:
        raise SourceError(f"{path}: no judgements here")
    return qrels


def search_all(
    searcher: Searcher,
    queries: Mapping[str, str],
    *,
    k: int = 10,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Run:
    """The ``k`` best documents for every query; ``progress`` is told how many queries are done."""
    vectors = dict(zip(queries, searcher.encoder.encode_queries(queries.values()), strict=True))
    return rank_all(searcher, vectors, texts=queries, k=k, progress=progress, **options)


def rank_all(
    searcher: Searcher,
    queries: Mapping[str, np.ndarray],
    *,
    texts: Mapping[str, str] | None = None,
    k: int = 10,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Run:
    """`search_all` for queries that are encoded already; as many at once as there are CPUs.

    Full text, if the options ask for it, needs their ``texts`` too.
    """
    ranked: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def rank(query_id: str) -> tuple[np.ndarray, np.ndarray]:
        text = None if texts is None else texts[query_id]
        return searcher.rank_vectors(queries[query_id], k, query_text=text, **options)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for query_id, found in zip(queries, pool.map(rank, queries), strict=True):
            ranked[query_id] = found
            if progress:
                progress(len(ranked))
    found = np.unique(np.concatenate([documents for documents, _ in ranked.values()]))
    names = dict(zip(found.tolist(), searcher.ids(found), strict=True))
    return {
        query_id: {names[d]: s for d, s in zip(documents.tolist(), scores.tolist(), strict=True)}
        for query_id, (documents, scores) in ranked.items()
    }


def exact_maxsim(queries: Sequence[np.ndarray], documents: Sequence[np.ndarray]) -> np.ndarray:
    """MaxSim of every query with every document, float32 (queries, documents).

    Both are matrices (tokens, dim); no document may be empty.
    """
    scores = np.empty((len(queries), len(documents)), np.float32)
    tokens, firsts = np.concatenate(documents), np.cumsum([0, *map(len, documents[:-1])])
    for i, query in enumerate(queries):
        scores[i] = np.maximum.reduceat(query @ tokens.T, firsts, axis=1).sum(axis=0)
    return scores


def measure(run: Run, qrels: Qrels, measures: Mapping[str, str] = MEASURES) -> dict[str, float]:
    """nDCG@10, MRR@10 and hit@1/3/5/10 of ``run``, averaged over the judged queries.

    ``measures`` asks for others: name → measure as ir_measures writes it. A judged query that is not in ``run`` counts
    as found nothing.
    """
    try:
        import ir_measures
    except ModuleNotFoundError as error:
        raise MissingExtraError("ir-measures", "evaluate") from error
    wanted = {name: ir_measures.parse_measure(text) for name, text in measures.items()}
    values = ir_measures.calc_aggregate(list(wanted.values()), qrels, run)
    return {name: float(values[parsed]) for name, parsed in wanted.items()}


def judged_queries(queries: Mapping[str, str], qrels: Qrels) -> dict[str, str]:
    """Those of ``queries`` that have a judgement; raises InputError if none has, or a judged query has no text."""
    missing = [query_id for query_id in qrels if query_id not in queries]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(qrels)} judged queries are not among the queries, {missing[0]!r} for one; "
            "give the queries that the judgements are for"
        )
    return {query_id: queries[query_id] for query_id in qrels}


def trec_lines(run: Run, tag: str = "tansaku") -> Iterable[str]:
    """``run`` in TREC format, a line per hit."""
    for query_id, scores in run.items():
        for rank, (doc_id, score) in enumerate(scores.items(), start=1):
            yield f"{query_id} Q0 {doc_id} {rank} {score:.6f} {tag}"


def _judgement_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line.rstrip("\n").split("\t") if "\t" in line else line.split()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error
