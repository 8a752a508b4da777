"""Whole BEIR folders measured: BM25, exhaustive MaxSim, and the index as users get it. Needs the extra ``evaluate``.

A BEIR folder has ``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``) and
``qrels/SPLIT.tsv`` (query-id, corpus-id, score).
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
from ...onnx_export.progress import Progress, no_progress
from ..search.plan import Recall, SearchOptions
from ..search.searcher import Searcher
from .bm25 import Bm25
from .judgements import Corpus, Qrels, Run, beir_file, judged_queries, qrels_file, read_qrels, read_queries
from .measures import MEASURES, measure, require_ir_measures
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
        name: the folder's.
        split: the name of the judgements.
        corpus: what is ranked.
        queries: query id → text, of the judged ones.
        qrels: query id → document id → grade, of ``queries``.
        documents: how many the corpus has, those without a word left out.
        empty: how many have no word: they are not ranked.
        missing: ids that are judged but are not in the corpus; what is relevant among them cannot be found.
        revision: a hash of the documents, queries and judgements, 16 hexadecimal digits.
    """

    name: str
    split: str
    corpus: Corpus = field(repr=False)
    queries: dict[str, str] = field(repr=False)
    qrels: Qrels = field(repr=False)
    documents: int
    empty: int
    missing: tuple[str, ...]
    revision: str

    @classmethod
    def read(cls, folder: str | Path, split: str = "dev", questions: int | None = None) -> Beir:
        """Read and check a folder; the corpus is gone through once and not kept.

        Args:
            folder: with corpus.jsonl, queries.jsonl (each also .jsonl.gz, .jsonl.zst or .parquet) and qrels/SPLIT.tsv.
            split: which judgements.
            questions: only so many of the judged queries, every so-manieth of them; None takes all.

        Raises:
            SourceError: a file is missing, has no such split, or has a record that cannot be used; names the place.
            InputError: a judged query is not among the queries, a document is not as `DocumentReader` wants it, or no
                judged document is in the corpus.
        """
        if questions is not None and questions < 1:
            raise InputError(f"questions is {questions}; it must be 1 or more")
        folder = Path(folder)
        corpus = Corpus(beir_file(folder, "corpus"))
        qrels = read_qrels(qrels_file(folder, split))
        queries = judged_queries(read_queries(beir_file(folder, "queries")), qrels)
        if questions is not None:
            queries = dict(list(queries.items())[:: max(1, len(queries) // questions)][:questions])
        qrels = {query_id: qrels[query_id] for query_id in queries}

        digest = hashlib.blake2b(repr((queries, qrels)).encode("utf-8", "surrogatepass"), digest_size=8)
        known: set[str] = set()
        for document in DocumentReader(corpus):
            known.add(document.id)
            digest.update(content_bytes(document))
        if not known:
            raise SourceError(f"{corpus.path}: no passage with a word here; there is nothing to rank")
        judged = dict.fromkeys(doc_id for grades in qrels.values() for doc_id in grades)
        missing = tuple(doc_id for doc_id in judged if doc_id not in known and doc_id not in corpus.empty)
        if len(missing) == len(judged):
            raise InputError(
                f"{corpus.path}: none of the {len(judged):,} judged documents is here, {missing[0]!r} for one; "
                f"give the corpus that the judgements of {split!r} are for"
            )
        name = folder.resolve().name
        return cls(name, split, corpus, queries, qrels, len(known), len(corpus.empty), missing, digest.hexdigest())


@dataclass(frozen=True)
class BeirResult:
    """How well one way ranks.

    Attributes:
        beir: what was ranked; it has the numbers of queries and documents.
        way: "BM25", "NAME exhaustive" or "NAME index".
        k: how many documents were ranked for each query.
        measures: those of `BEIR_MEASURES` that look at no more than ``k`` documents.
        seconds: of everything: encoding, indexing and searching.
        run: query id → document id → score, best first; of every query, perhaps nothing.
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
    progress: Progress = no_progress,
) -> Iterator[BeirResult]:
    """Rank a BEIR folder by BM25 and by every model, exhaustively and through an index; yields a result for each.

    Args:
        folder: see `Beir.read`.
        split: likewise.
        models: name → encoder.
        ways: which of "bm25", "exhaustive" and "index".
        k: how many documents are ranked for each query; measures that look at more are left out.
        questions: see `Beir.read`.
        nbits: bits per dimension of a residual in the index: 1, 2 or 4.
        recall: "fast", "balanced" or "exact"; see `SearchOptions`.
        progress: called as the work goes on, with stages named "WAY: STAGE".

    Raises what `Beir.read` raises, InputError for an argument that cannot be used, and MissingExtraError without the
    extra ``evaluate``, all before anything is encoded.
    """
    check_nbits(nbits)
    SearchOptions(k=k, recall=recall)
    unknown = sorted(set(ways) - set(WAYS))
    if unknown or not ways:
        raise InputError(f"ways are {list(ways)}; give some of {', '.join(WAYS)}")
    if not models and set(ways) != {"bm25"}:
        raise InputError("there are no models; give an encoder, or the way bm25 alone")
    beir = Beir.read(folder, split, questions)
    require_ir_measures()

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
            progress("read", number, beir.documents, 0)

    index = Bm25(texts())
    run: Run = {}
    for query_id, text in beir.queries.items():
        run[query_id] = index.best(text, k)
        progress("search", len(run), len(beir.queries), 0)
    return run


def exhaustive(beir: Beir, encoder: Encoder, k: int = 100, *, progress: Progress = no_progress) -> Run:
    """The ``k`` best documents for every query by MaxSim of float32 token vectors; of equal ones the earlier first.

    Memory: the vectors of all queries and of 1,000 documents, and ``k`` and 1,000 scores for each query.
    """
    queries = encoder.encode_queries(beir.queries.values())
    best = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]  # documents' numbers and scores
    ids: list[str] = []
    n_tokens = 0
    for chunk in chunks(DocumentReader(beir.corpus), _DOCUMENTS_PER_BATCH):
        vectors = encoder.encode_documents([document.encoded_text for document in chunk])
        for document, matrix in zip(chunk, vectors, strict=True):
            if not len(matrix):
                raise InputError(f"{document.place}: document {document.id!r}: the model gives no vectors")
        numbers = np.arange(len(ids), len(ids) + len(chunk))
        ids += [document.id for document in chunk]
        n_tokens += sum(map(len, vectors))
        for i, fresh in enumerate(exact_maxsim(queries, vectors)):
            documents, scores = np.concatenate([best[i][0], numbers]), np.concatenate([best[i][1], fresh])
            order = np.argsort(-scores, kind="stable")[:k]
            best[i] = documents[order], scores[order]
        progress("encode", len(ids), beir.documents, n_tokens)
    return {
        query_id: {ids[d]: s for d, s in zip(documents.tolist(), scores.tolist(), strict=True)}
        for query_id, (documents, scores) in zip(beir.queries, best, strict=True)
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
    """The ``k`` best documents for every query as users get them: `Index.create` in a temporary folder, `Searcher`."""
    with tempfile.TemporaryDirectory(prefix="tansaku-beir-") as folder:
        Index.create(folder, "corpus", beir.corpus, encoder=encoder, nbits=nbits, progress=progress)
        searcher = Searcher.open(folder, "corpus", encoder=encoder)
        return search_all(searcher, beir.queries, k=k, recall=recall, progress=progress)


def mteb_result(result: BeirResult, *, task: str | None = None) -> dict[str, Any]:
    """``result`` as MTEB writes a retrieval task's: what `mteb.TaskResult.from_dict` and `from_disk` read.

    Scores are named and computed as MTEB 2 does, at 1, 3, 5, 10, 20, 100 and 1000 as far as that many were ranked:
    of equal scores the greater document id first, grades of 1 and more are relevant, linear gains, a query that found
    nothing counts as 0. Means are rounded as in MTEB's files: to five digits, those of MRR, which MTEB rounds only
    there, to six. Abstention (nAUC) is left out. ``mteb_version`` is null, for MTEB had no part in it, and
    ``dataset_revision`` is `Beir.revision`.

    Args:
        result: of `evaluate_beir`.
        task: name of the task; None takes the folder's.

    Raises InputError if fewer than 10 documents were ranked, as the main score is nDCG@10.
    """
    if result.k < MTEB_MIN_K:
        raise InputError(f"k is {result.k}; MTEB's main score is nDCG@10, so it must be {MTEB_MIN_K} or more")
    cutoffs = [cutoff for cutoff in _MTEB_K if cutoff <= result.k]
    wanted = {f"{ours}_at_{k}": f"{theirs}@{k}" for ours, theirs in _MTEB_SCORES.items() for k in cutoffs}
    values = measure(_without_ties(result.run), result.beir.qrels, wanted)
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


def _result(beir: Beir, way: str, k: int, rank: Callable[..., Run], progress: Progress) -> BeirResult:
    started = time.perf_counter()
    run = rank(beir, k=k, progress=lambda stage, *counts: progress(f"{way}: {stage}", *counts))
    seconds = time.perf_counter() - started
    measures = {name: text for name, text in BEIR_MEASURES.items() if int(name.split("@")[1]) <= k}
    return BeirResult(beir, way, k, measure(_without_ties(run), beir.qrels, measures), seconds, run)


def _without_ties(run: Run) -> Run:
    """``run`` with places for scores. Of equal ones the greater id is first, as in trec_eval and MTEB.

    ir_measures would leave the order of equal ones to the program that computes a measure; they differ.
    """
    return {
        query_id: {
            doc_id: -float(place)
            for place, doc_id in enumerate(sorted(scores, key=lambda doc_id: (scores[doc_id], doc_id), reverse=True))
        }
        for query_id, scores in run.items()
    }
