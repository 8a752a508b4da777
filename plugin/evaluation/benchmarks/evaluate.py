"""A benchmark ranked and measured: by BM25, by exhaustive MaxSim, and through an index as users get it.

Where each query has candidates of its own, only these are ranked. Needs the extra ``evaluate``.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ....indexer.codec.codec import check_nbits
from ....indexer.index import Index
from ....indexer.read.documents import DocumentReader
from ....onnx_export.encode.encoder import Encoder
from ....onnx_export.errors import InputError
from ....onnx_export.extras import require_extra
from ....onnx_export.kinds import check_whole
from ....onnx_export.progress import Progress, no_progress
from ...search.choices import Recall
from ...search.plan import SearchOptions
from ...search.searcher import Searcher
from ..beir import WAYS, Beir, Way, bm25, exhaustive, some_of, through_index, without_ties
from ..bm25 import Bm25
from ..judgements import Run, judged_queries
from ..measures import measure
from ..ranking import exact_maxsim
from .names import benchmark_named
from .task import Task

_QUERIES_AT_ONCE = 8  # whose candidates' vectors are in memory
_CUTOFF = re.compile(r"@(\d+)$")


@dataclass(frozen=True)
class TaskResult:
    """The result of one way to rank one task.

    Attributes:
        task: what was ranked.
        beir: the same with what was counted when it was read.
        unjudged: number of queries without judgements, which are not asked.
        way: "BM25", "NAME exhaustive" or "NAME index".
        measures: name → value.
        seconds: time for encoding, indexing and searching.
        run: query id → document id → score, best first.
    """

    task: Task
    beir: Beir
    unjudged: int
    way: str
    measures: dict[str, float]
    seconds: float
    run: Run = field(repr=False)


def evaluate_benchmark(
    name: str,
    folder: str | Path,
    split: str | None = None,
    *,
    models: Mapping[str, Encoder],
    ways: Collection[Way] = WAYS,
    questions: int | None = None,
    nbits: int = 2,
    recall: Recall = "balanced",
    allow_missing: bool = False,
    progress: Progress = no_progress,
) -> Iterator[TaskResult]:
    """Rank the tasks of a public benchmark by BM25 and by every model, exhaustively and through an index.

    As many documents are ranked as the benchmark's measures look at, or all candidates.

    Args:
        name: name of the benchmark, see `names.BENCHMARKS`.
        folder: folder with the files as they are published.
        split: split of the data; None takes the one that is published.
        models: name → encoder.
        ways: ways to rank, of "bm25", "exhaustive" and "index".
        questions: number of judged queries of each task, taken at even distances; None takes all.
        nbits: bits per dimension of a residual in the index: 1, 2 or 4.
        recall: "fast", "balanced", "exact" or a number, see `SearchOptions`.
        allow_missing: whether most of the judged documents may be missing from the corpus.
        progress: called with stages named "TASK, WAY: STAGE".

    Returns:
        An iterator over the results, task after task, made as they are asked for.

    Raises:
        SourceError: a file or a field is missing; names the place. That of a later task comes when its turn does.
        InputError: no benchmark of this name, or an argument that cannot be used.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    check_nbits(nbits)
    SearchOptions(recall=recall)
    if questions is not None:
        check_whole("questions", questions)
    unknown = sorted(set(ways) - set(WAYS))
    if unknown or not ways:
        raise InputError(f"ways are {list(ways)}; use some of {', '.join(WAYS)}")
    if not models and set(ways) != {"bm25"}:
        raise InputError("there are no models; give an encoder, or only the way bm25")
    benchmark = benchmark_named(name)
    require_extra("evaluate", "ir_measures", *(["bm25s"] if "bm25" in ways else []))
    tasks = benchmark.read(Path(folder), split or benchmark.split)

    def results() -> Iterator[TaskResult]:
        for task in tasks:
            beir, unjudged = _read(task, questions, allow_missing)
            for way, rank in _ranked(task, ways, models, nbits, recall).items():
                yield _result(task, beir, unjudged, way, rank, progress)

    return results()


def mean(results: Sequence[TaskResult]) -> dict[str, dict[str, float]]:
    """Way → measure → mean over the tasks, each counted once, of the measures that all of them have."""
    of_ways: dict[str, list[dict[str, float]]] = {}
    for result in results:
        of_ways.setdefault(result.way, []).append(result.measures)
    return {
        way: {name: sum(m[name] for m in some) / len(some) for name in some[0] if all(name in m for m in some)}
        for way, some in of_ways.items()
    }


def bm25_of_candidates(beir: Beir, candidates: Mapping[str, list[str]], *, progress: Progress = no_progress) -> Run:
    """Every query's candidates by `Bm25`, whose statistics are of the candidates of all queries.

    Args:
        beir: queries, and the corpus of all candidates.
        candidates: query id → document ids. Those without text are left out.
        progress: called with the stage "search".

    Returns:
        Query id → document id → score, best first.

    Raises:
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    index = Bm25((document.id, document.encoded_text) for document in DocumentReader(beir.corpus))
    run: Run = {}
    for query_id, text in beir.queries.items():
        ids = [doc_id for doc_id in candidates[query_id] if doc_id not in beir.corpus.empty]
        run[query_id] = _best_first(ids, index.scores(text, ids).tolist())
        progress("search", len(run), len(beir.queries), 0)
    return run


def exhaustive_of_candidates(
    beir: Beir, candidates: Mapping[str, list[str]], encoder: Encoder, *, progress: Progress = no_progress
) -> Run:
    """Every query's candidates by MaxSim of float32 token vectors.

    Memory: the texts of all candidates, and the vectors of those of 8 queries. A document is encoded once for each
    such group that it is a candidate in.

    Args:
        beir: queries, and the corpus of all candidates.
        candidates: query id → document ids. Those without text are left out.
        encoder: the model.
        progress: called with the stage "encode".

    Returns:
        Query id → document id → score, best first.

    Raises:
        InputError: the model gives no vectors for a document.
    """
    texts = {document.id: document.encoded_text for document in DocumentReader(beir.corpus)}
    run: Run = {}
    asked = list(beir.queries.items())
    n_tokens = 0
    for start in range(0, len(asked), _QUERIES_AT_ONCE):
        some = asked[start : start + _QUERIES_AT_ONCE]
        ids = {query_id: [one for one in candidates[query_id] if one in texts] for query_id, _ in some}
        wanted = list(dict.fromkeys(doc_id for of_query in ids.values() for doc_id in of_query))
        vectors = dict(zip(wanted, encoder.encode_documents([texts[doc_id] for doc_id in wanted]), strict=True))
        for doc_id, matrix in vectors.items():
            if not len(matrix):
                raise InputError(f"{beir.corpus.path}: document {doc_id!r}: the model gives no vectors")
        n_tokens += sum(map(len, vectors.values()))
        for (query_id, _), query in zip(some, encoder.encode_queries([text for _, text in some]), strict=True):
            of_query = ids[query_id]
            scores = exact_maxsim([query], [vectors[one] for one in of_query])[0].tolist() if of_query else []
            run[query_id] = _best_first(of_query, scores)
        progress("encode", len(run), len(asked), n_tokens)
    return run


def index_of_candidates(
    beir: Beir,
    candidates: Mapping[str, list[str]],
    encoder: Encoder,
    nbits: int = 2,
    recall: Recall = "balanced",
    *,
    progress: Progress = no_progress,
) -> Run:
    """Every query's candidates as users get them: an index of all, and a search among the ids of each query's.

    Args:
        beir: queries, and the corpus of all candidates.
        candidates: query id → document ids. Those that the search does not find are left out.
        encoder: the model.
        nbits: bits per dimension of a residual: 1, 2 or 4.
        recall: "fast", "balanced", "exact" or a number.
        progress: called with the stages of `Index.create`, then "search".

    Returns:
        Query id → document id → score, best first.
    """
    with tempfile.TemporaryDirectory(prefix="tansaku-benchmark-") as folder:
        Index.create(folder, "corpus", beir.corpus, encoder=encoder, nbits=nbits, progress=progress)
        searcher = Searcher.open(folder, "corpus", encoder=encoder)
        run: Run = {}
        for query_id, text in beir.queries.items():
            ids = candidates[query_id]
            hits = searcher.search(text, len(ids), ids=ids, recall=recall, fields=[])
            run[query_id] = {hit.id: hit.score for hit in hits}
            progress("search", len(run), len(beir.queries), 0)
        return run


def _read(task: Task, questions: int | None, allow_missing: bool) -> tuple[Beir, int]:
    """The task as all ways of ranking take it; of a task with candidates, only the asked queries' are read."""
    queries = judged_queries(task.queries, task.qrels)
    unjudged = len(task.queries) - len(queries)
    if questions is not None:
        queries = some_of(queries, questions)
    corpus = task.corpus
    if task.candidates is not None:
        corpus = corpus.only({doc_id for query_id in queries for doc_id in task.candidates[query_id]})
    return Beir.of(task.name, task.split, corpus, queries, task.qrels, allow_missing=allow_missing), unjudged


def _ranked(
    task: Task, ways: Collection[Way], models: Mapping[str, Encoder], nbits: int, recall: Recall
) -> dict[str, Callable[..., Run]]:
    """Way → what ranks by it."""
    k, candidates = _depth(task), task.candidates
    ranked: dict[str, Callable[..., Run]] = {}
    if "bm25" in ways:
        ranked["BM25"] = (
            partial(bm25, k=k) if candidates is None else partial(bm25_of_candidates, candidates=candidates)
        )
    for name, encoder in models.items():
        if "exhaustive" in ways:
            ranked[f"{name} exhaustive"] = (
                partial(exhaustive, encoder=encoder, k=k)
                if candidates is None
                else partial(exhaustive_of_candidates, candidates=candidates, encoder=encoder)
            )
        if "index" in ways:
            ranked[f"{name} index"] = (
                partial(through_index, encoder=encoder, k=k, nbits=nbits, recall=recall)
                if candidates is None
                else partial(index_of_candidates, candidates=candidates, encoder=encoder, nbits=nbits, recall=recall)
            )
    return ranked


def _depth(task: Task) -> int:
    """How many documents the measures look at."""
    return max(int(found[1]) for text in task.measures.values() if (found := _CUTOFF.search(text)))


def _result(
    task: Task, beir: Beir, unjudged: int, way: str, rank: Callable[..., Run], progress: Progress
) -> TaskResult:
    started = time.perf_counter()
    run = rank(beir, progress=lambda stage, *counts: progress(f"{task.name}, {way}: {stage}", *counts))
    seconds = time.perf_counter() - started
    measures = measure(without_ties(run), beir.qrels, task.measures)
    return TaskResult(task, beir, unjudged, way, measures, seconds, run)


def _best_first(ids: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    """Equal scores keep the order of the ids."""
    return dict(sorted(zip(ids, scores, strict=True), key=lambda pair: -pair[1]))
