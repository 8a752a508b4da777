"""A whole BEIR folder ranked and measured: by BM25, by exhaustive MaxSim, and through an index as users get it.

Needs the extra ``evaluate``. `judgements` says what a BEIR folder has.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ...indexer.codec.codec import check_nbits
from ...indexer.errors import SourceError
from ...indexer.index import Index
from ...indexer.read.documents import DocumentReader
from ...indexer.read.scan import chunks, content_bytes
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra
from ...onnx_export.kinds import check_whole
from ...onnx_export.progress import Progress, no_progress
from ..search.choices import Recall
from ..search.plan import SearchOptions
from ..search.searcher import Searcher
from .bm25 import Bm25
from .judgements import (
    Corpus,
    Qrels,
    Run,
    beir_file,
    check_missing,
    judged_documents,
    judged_queries,
    qrels_file,
    read_qrels,
    read_queries,
)
from .measures import MEASURES, measure
from .ranking import exact_maxsim, search_all

Way = Literal["bm25", "exhaustive", "index"]
WAYS: tuple[Way, ...] = get_args(Way)

BEIR_MEASURES = {**MEASURES, "recall@100": "R@100"}
MTEB_MIN_K = 10  # MTEB's main score is nDCG@10

_DOCUMENTS_PER_BATCH = 1_000  # whose vectors are in memory at a time
_MTEB_K = (1, 3, 5, 10, 20, 100, 1000)
_MTEB_SCORES = {"ndcg": "nDCG", "map": "AP", "recall": "R", "precision": "P", "mrr": "RR", "hit_rate": "Success"}


@dataclass(frozen=True)
class Beir:
    """One split of a BEIR folder; make one with `Beir.read`.

    Attributes:
        name: name of the folder.
        split: name of the judgements.
        corpus: documents to rank.
        queries: query id → text, of the judged queries.
        qrels: query id → document id → grade, of ``queries``.
        n_documents: number of documents to rank.
        empty: number of documents without text, which are not ranked.
        missing: ids of judged documents that are not in the corpus; those that are relevant cannot be found.
        revision: hash of the documents, queries and judgements, 16 hexadecimal digits.
    """

    name: str
    split: str
    corpus: Corpus = field(repr=False)
    queries: dict[str, str] = field(repr=False)
    qrels: Qrels = field(repr=False)
    n_documents: int
    empty: int
    missing: tuple[str, ...]
    revision: str

    @classmethod
    def read(
        cls, folder: str | Path, split: str = "dev", questions: int | None = None, *, allow_missing: bool = False
    ) -> Beir:
        """Read and check a folder. The corpus is read once and not kept.

        Args:
            folder: folder with corpus.jsonl, queries.jsonl (each also .jsonl.gz, .jsonl.zst or .parquet) and
                qrels/SPLIT.tsv.
            split: SPLIT of the judgements.
            questions: number of judged queries, taken at even distances; None takes all.
            allow_missing: whether most of the judged documents may be missing from the corpus.

        Raises:
            SourceError: a file or the split is missing, or a record cannot be used; names the place.
            InputError: a judged query is not among the queries, a document is not as `DocumentReader` wants it, or
                most of the judged documents are not in the corpus.
        """
        if questions is not None:
            check_whole("questions", questions)
        folder = Path(folder)
        corpus = Corpus(beir_file(folder, "corpus"))
        qrels = read_qrels(qrels_file(folder, split))
        queries = judged_queries(read_queries(beir_file(folder, "queries")), qrels)
        name = folder.resolve().name
        return cls.of(name, split, corpus, queries, qrels, questions, allow_missing=allow_missing)

    @classmethod
    def of(
        cls,
        name: str,
        split: str,
        corpus: Corpus,
        queries: dict[str, str],
        qrels: Qrels,
        questions: int | None = None,
        *,
        allow_missing: bool = False,
    ) -> Beir:
        """The same of data that were read from elsewhere. The corpus is read once and not kept.

        Args:
            name: what results are filed under.
            split: name of the judgements.
            corpus: documents to rank.
            queries: query id → text, of the judged queries.
            qrels: query id → document id → grade.
            questions: number of judged queries, see `read`.
            allow_missing: see `read`.

        Raises:
            SourceError: all documents are empty.
            InputError: as `read`.
        """
        if questions is not None:
            queries = some_of(queries, questions)
        qrels = {query_id: qrels[query_id] for query_id in queries}

        digest = hashlib.blake2b(repr((queries, qrels)).encode("utf-8", "surrogatepass"), digest_size=8)
        known: set[str] = set()
        for document in DocumentReader(corpus):
            known.add(document.id)
            digest.update(content_bytes(document))
        if not known:
            raise SourceError(f"{corpus.path}: all passages are empty; there is nothing to rank")
        known_or_empty = known | corpus.empty
        missing = tuple(doc_id for doc_id in judged_documents(qrels) if doc_id not in known_or_empty)
        check_missing(qrels, missing, str(corpus.path), allow_missing=allow_missing)
        return cls(name, split, corpus, queries, qrels, len(known), len(corpus.empty), missing, digest.hexdigest())


@dataclass(frozen=True)
class BeirResult:
    """The result of one way to rank.

    Attributes:
        beir: the folder that was ranked.
        way: "BM25", "NAME exhaustive" or "NAME index".
        k: number of documents ranked for each query.
        measures: name → value of the measures in `BEIR_MEASURES` that look at no more than ``k`` documents.
        seconds: time for encoding, indexing and searching.
        run: query id → document id → score, best first. Every query is in it, also one that found nothing.
    """

    beir: Beir
    way: str
    k: int
    measures: dict[str, float]
    seconds: float
    run: Run = field(repr=False)


def evaluate_beir(
    folder: str | Path,
    split: str = "dev",
    *,
    models: Mapping[str, Encoder],
    ways: Collection[Way] = WAYS,
    k: int = 100,
    questions: int | None = None,
    nbits: int = 2,
    recall: Recall = "balanced",
    allow_missing: bool = False,
    progress: Progress = no_progress,
) -> Iterator[BeirResult]:
    """Rank a BEIR folder by BM25 and by every model, exhaustively and through an index.

    All errors come before anything is encoded.

    Args:
        folder: a BEIR folder, see `Beir.read`.
        split: SPLIT of the judgements.
        models: name → encoder.
        ways: ways to rank, of "bm25", "exhaustive" and "index".
        k: number of documents ranked for each query; measures that look at more are left out.
        questions: number of judged queries, see `Beir.read`.
        nbits: bits per dimension of a residual in the index: 1, 2 or 4.
        recall: "fast", "balanced", "exact" or a number, see `SearchOptions`.
        allow_missing: whether most of the judged documents may be missing from the corpus.
        progress: called with stages named "WAY: STAGE".

    Returns:
        An iterator over the results, one for each way and model, made as they are asked for.

    Raises:
        SourceError: as `Beir.read`.
        InputError: as `Beir.read`, or an argument that cannot be used.
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    check_nbits(nbits)
    SearchOptions(k=k, recall=recall)
    unknown = sorted(set(ways) - set(WAYS))
    if unknown or not ways:
        raise InputError(f"ways are {list(ways)}; use some of {', '.join(WAYS)}")
    if not models and set(ways) != {"bm25"}:
        raise InputError("there are no models; give an encoder, or only the way bm25")
    require_extra("evaluate", "ir_measures", *(["bm25s"] if "bm25" in ways else []))
    beir = Beir.read(folder, split, questions, allow_missing=allow_missing)

    ranked: dict[str, Callable[..., Run]] = {}
    if "bm25" in ways:
        ranked["BM25"] = bm25
    for name, encoder in models.items():
        if "exhaustive" in ways:
            ranked[f"{name} exhaustive"] = partial(exhaustive, encoder=encoder)
        if "index" in ways:
            ranked[f"{name} index"] = partial(through_index, encoder=encoder, nbits=nbits, recall=recall)
    return (_result(beir, way, k, rank, progress) for way, rank in ranked.items())


def bm25(beir: Beir, k: int = 100, *, progress: Progress = no_progress) -> Run:
    """The ``k`` best documents for every query by `Bm25` over title and text.

    Args:
        beir: what is ranked.
        k: documents for each query; fewer if fewer share a bigram with it.
        progress: called with the stages "read" and "search".

    Returns:
        Query id → document id → score, best first.

    Raises:
        MissingExtraError: the extra ``evaluate`` is not installed.
    """

    def texts() -> Iterator[tuple[str, str]]:
        for number, document in enumerate(DocumentReader(beir.corpus), start=1):
            yield document.id, document.encoded_text
            progress("read", number, beir.n_documents, 0)

    index = Bm25(texts())
    run: Run = {}
    for query_id, text in beir.queries.items():
        run[query_id] = index.best(text, k)
        progress("search", len(run), len(beir.queries), 0)
    return run


def exhaustive(beir: Beir, encoder: Encoder, k: int = 100, *, progress: Progress = no_progress) -> Run:
    """The ``k`` best documents for every query by MaxSim of float32 token vectors; of equal ones the earlier first.

    Memory: the vectors of all queries and of 1,000 documents, and ``k`` + 1,000 scores for each query.

    Args:
        beir: what is ranked.
        encoder: the model.
        k: documents for each query.
        progress: called with the stage "encode".

    Returns:
        Query id → document id → score, best first.

    Raises:
        InputError: the model gives no vectors for a document.
    """
    queries = encoder.encode_queries(beir.queries.values())
    best = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]  # rows in the corpus, and scores
    ids: list[str] = []
    n_tokens = 0
    for chunk in chunks(DocumentReader(beir.corpus), _DOCUMENTS_PER_BATCH):
        vectors = encoder.encode_documents([document.encoded_text for document in chunk])
        for document, matrix in zip(chunk, vectors, strict=True):
            if not len(matrix):
                raise InputError(f"{document.place}: document {document.id!r}: the model gives no vectors")
        rows = np.arange(len(ids), len(ids) + len(chunk))
        ids += [document.id for document in chunk]
        n_tokens += sum(map(len, vectors))
        for i, fresh in enumerate(exact_maxsim(queries, vectors)):
            found, scores = np.concatenate([best[i][0], rows]), np.concatenate([best[i][1], fresh])
            order = np.argsort(-scores, kind="stable")[:k]
            best[i] = found[order], scores[order]
        progress("encode", len(ids), beir.n_documents, n_tokens)
    return {
        query_id: {ids[row]: score for row, score in zip(found.tolist(), scores.tolist(), strict=True)}
        for query_id, (found, scores) in zip(beir.queries, best, strict=True)
    }


def through_index(
    beir: Beir,
    encoder: Encoder,
    k: int = 100,
    nbits: int = 2,
    recall: Recall = "balanced",
    *,
    progress: Progress = no_progress,
) -> Run:
    """The ``k`` best documents for every query as users get them: `Index.create` in a temporary folder, `Searcher`.

    Args:
        beir: what is ranked.
        encoder: the model.
        k: documents for each query.
        nbits: bits per dimension of a residual: 1, 2 or 4.
        recall: "fast", "balanced", "exact" or a number.
        progress: called with the stages of `Index.create`, then "search".

    Returns:
        Query id → document id → score, best first.
    """
    with tempfile.TemporaryDirectory(prefix="tansaku-beir-") as folder:
        Index.create(folder, "corpus", beir.corpus, encoder=encoder, nbits=nbits, progress=progress)
        searcher = Searcher.open(folder, "corpus", encoder=encoder)
        return search_all(searcher, beir.queries, k=k, recall=recall, progress=progress)


def mteb_result(result: BeirResult, *, task: str | None = None) -> dict[str, Any]:
    """A result in MTEB's format for retrieval tasks, which `mteb.TaskResult.from_dict` and `from_disk` read.

    Scores are named and computed as in MTEB 2, at 1, 3, 5, 10, 20, 100 and 1000 as far as that many were ranked. Of
    equal scores the greater document id comes first; grades of 1 and more are relevant; gains are linear; a query that
    found nothing counts as 0. Means are rounded as in MTEB's files: to five digits, those of MRR to six. Abstention
    (nAUC) is left out. ``mteb_version`` is null, as MTEB is not used, and ``dataset_revision`` is `Beir.revision`.

    Args:
        result: a result of `evaluate_beir`.
        task: name of the task; None takes the folder's.

    Returns:
        The content of the JSON file.

    Raises:
        InputError: fewer than 10 documents were ranked, but the main score is nDCG@10.
    """
    if result.k < MTEB_MIN_K:
        raise InputError(f"k is {result.k}; MTEB's main score is nDCG@10, so it must be {MTEB_MIN_K} or more")
    cutoffs = [cutoff for cutoff in _MTEB_K if cutoff <= result.k]
    wanted = {f"{ours}_at_{k}": f"{theirs}@{k}" for ours, theirs in _MTEB_SCORES.items() for k in cutoffs}
    values = measure(without_ties(result.run), result.beir.qrels, wanted)
    scores: dict[str, Any] = {name: round(value, 6 if "mrr" in name else 5) for name, value in values.items()}
    scores["accuracy"] = scores["recall_at_1"]
    scores |= {"main_score": scores["ndcg_at_10"], "hf_subset": "default", "languages": ["jpn-Jpan"]}
    return {
        "dataset_revision": result.beir.revision,
        "task_name": task or result.beir.name,
        "mteb_version": None,
        "scores": {result.beir.split: [scores]},
        "evaluation_time": result.seconds,
        "kg_co2_emissions": None,
        "date": None,
        "evaluation_phases": None,
    }


def some_of(queries: Mapping[str, str], number: int) -> dict[str, str]:
    """A number of queries, taken at even distances."""
    return dict(list(queries.items())[:: max(1, len(queries) // number)][:number])


def without_ties(run: Run) -> Run:
    """``run`` with ranks in place of scores. Of equal scores the greater id comes first, as in trec_eval and MTEB.

    ir_measures leaves the order of equal scores to the program that computes a measure, and these differ.
    """
    return {
        query_id: {
            doc_id: -float(place)
            for place, doc_id in enumerate(sorted(scores, key=lambda doc_id: (scores[doc_id], doc_id), reverse=True))
        }
        for query_id, scores in run.items()
    }


def _result(beir: Beir, way: str, k: int, rank: Callable[..., Run], progress: Progress) -> BeirResult:
    started = time.perf_counter()
    run = rank(beir, k=k, progress=lambda stage, *counts: progress(f"{way}: {stage}", *counts))
    seconds = time.perf_counter() - started
    measures = {name: text for name, text in BEIR_MEASURES.items() if int(name.split("@")[1]) <= k}
    return BeirResult(beir, way, k, measure(without_ties(run), beir.qrels, measures), seconds, run)
