"""Models for MTEB: our encoder, and our index, in its retrieval and reranking tasks.

import mteb
from tansaku.plugin.hosts.mteb import TansakuModel
results = mteb.evaluate(TansakuModel(), mteb.get_tasks(["JaqketRetrieval"]))
"""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import numpy as np

from ...indexer.index import Index
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError, MissingExtraError
from ..evaluation.ranking import exact_maxsim
from ..search.plan import Recall, SearchOptions
from ..search.searcher import Searcher

try:
    import torch
    from mteb.models import ModelMeta, MultiVectorSearchEncoderWrapper
    from mteb.models.model_meta import ScoringFunction
    from mteb.types import PromptType
except ImportError as error:
    raise MissingExtraError("mteb", "mteb") from error

__all__ = ["TansakuIndexModel", "TansakuModel"]

_log = logging.getLogger(__name__)

_TOGETHER = 500  # documents scored at a time

Heaps = dict[str, list[tuple[float, str]]]  # query id → scores and ids of documents


class TansakuModel(MultiVectorSearchEncoderWrapper):
    """An encoder of ours: float32 vectors of all tokens, every document scored by MaxSim, nothing approximated.

    Args:
        encoder: the model; None takes the one that ships inside.

    Attributes:
        mteb_model_meta: its name and, as the revision, its bundle's fingerprint: what MTEB files results under.
    """

    corpus_chunk_size = 5_000  # documents whose vectors are in memory at a time

    def __init__(self, encoder: Encoder | None = None) -> None:
        self.encoder = encoder or Encoder.load()
        self.mteb_model_meta = _model_meta(self.encoder, {})

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """MaxSim of every query with every document, float32 (queries, documents); one alone may be a matrix.

        MTEB's own fills documents up with zeros to the longest beside them, which count where a maximum is negative.
        """
        queries, documents = _matrices(embeddings1), _matrices(embeddings2)
        scores = np.empty((len(queries), len(documents)), np.float32)
        for start in range(0, len(documents), _TOGETHER):
            some = documents[start : start + _TOGETHER]
            scores[:, start : start + len(some)] = exact_maxsim(queries, some)
        return torch.from_numpy(scores)

    def _encode(self, inputs: Any, *, prompt_type: PromptType | None = None, **options: Any) -> list[torch.Tensor]:
        """Token vectors of the texts in a data loader's batches; of a text without a word a zero, which scores 0."""
        encode = self.encoder.encode_queries if prompt_type is PromptType.query else self.encoder.encode_documents
        nothing = np.zeros((1, self.encoder.dim), np.float32)
        encoded: list[torch.Tensor] = []
        for batch in inputs:
            texts = batch["text"]
            vectors = iter(encode([text for text in texts if text.strip()]))
            encoded += [torch.from_numpy(next(vectors) if text.strip() else nothing) for text in texts]
        return encoded


class TansakuIndexModel(TansakuModel):
    """An encoder of ours with its index: compressed vectors and the search that finds them, as in production.

    A task's corpus is indexed in a folder of its own, which is removed after the search.

    Args:
        encoder: the model; None takes the one that ships inside.
        nbits: bits per dimension of a residual: 1, 2 or 4.
        pool: 2 and more merge token vectors; see `Index.create`.
        recall: "fast", "balanced" or "exact"; see `SearchOptions`.
    """

    def __init__(
        self, encoder: Encoder | None = None, *, nbits: int = 2, pool: int = 1, recall: Recall = "balanced"
    ) -> None:
        super().__init__(encoder)
        SearchOptions(recall=recall)
        self.nbits = nbits
        self.pool = pool
        self.recall: Recall = recall
        self.mteb_model_meta = _model_meta(self.encoder, {"nbits": nbits, "pool": pool, "recall": recall})
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def index(self, corpus: Any, **options: Any) -> None:
        """Index a task's corpus; documents without a word are left out, and score 0 where they are to be ranked."""
        super().index(corpus, **options)
        self._clear()
        texts = ((str(row["id"]), f"{row.get('title') or ''} {row['text']}".strip()) for row in corpus)
        documents = [{"id": doc_id, "text": text} for doc_id, text in texts if text]
        if not documents:
            raise InputError(f"all {len(corpus)} documents of the corpus are empty; there is nothing to index")
        if len(documents) < len(corpus):
            _log.warning("%d of %d documents are empty and were not indexed", len(corpus) - len(documents), len(corpus))
        self._folder = tempfile.TemporaryDirectory(prefix="tansaku-mteb-")
        try:
            Index.create(self._folder.name, "corpus", documents, encoder=self.encoder, nbits=self.nbits, pool=self.pool)
        except BaseException:
            self._clear()
            raise

    def search(self, queries: Any, **options: Any) -> dict[str, dict[str, float]]:
        """Search the corpus, or rank the documents that a reranking task gives; as MTEB's `SearchProtocol` says."""
        try:
            return super().search(queries, **options)
        finally:
            self._clear()

    def _full_corpus_search(
        self, *, query_idx_to_id: dict[int, str], query_embeddings: Any, top_k: int, **options: Any
    ) -> Heaps:
        searcher = self._searcher()
        found: Heaps = {}
        for number, query_id in query_idx_to_id.items():
            documents, scores = searcher.rank_vectors(query_embeddings[number].numpy(), top_k, recall=self.recall)
            found[query_id] = list(zip(scores.tolist(), searcher.ids(documents), strict=True))
        return found

    def _rerank_documents(
        self, *, query_idx_to_id: dict[int, str], query_embeddings: Any, top_ranked: Any, top_k: int, **options: Any
    ) -> Heaps:
        searcher = self._searcher()
        found: Heaps = {}
        for number, query_id in query_idx_to_id.items():
            ids = [str(doc_id) for doc_id in top_ranked.get(query_id, [])]
            if not ids:
                _log.warning("the task gives no documents to rank for query %s", query_id)
                continue
            scores = np.nan_to_num(searcher.score_vectors(query_embeddings[number].numpy(), ids))
            best = np.argsort(-scores, kind="stable")[:top_k]
            found[query_id] = [(float(scores[i]), ids[i]) for i in best.tolist()]
        return found

    def _searcher(self) -> Searcher:
        if self._folder is None:
            raise InputError("no corpus is indexed; call index() before search()")
        return Searcher.open(self._folder.name, "corpus", encoder=self.encoder)

    def _clear(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _matrices(embeddings: Any) -> list[np.ndarray]:
    """Token vectors as a list of matrices: float32 (tokens, dim) each."""
    matrices = [np.asarray(matrix, np.float32) for matrix in embeddings]
    return [np.stack(matrices)] if matrices and matrices[0].ndim == 1 else matrices


def _model_meta(encoder: Encoder, experiment: dict[str, Any]) -> ModelMeta:
    return ModelMeta.create_empty(
        overwrites={
            "name": f"tansaku/{encoder.bundle.name.replace('/', '_')}",
            "revision": encoder.bundle.fingerprint,
            "languages": ["jpn-Jpan"],
            "max_tokens": encoder.bundle.document.max_length,
            "embed_dim": encoder.dim,
            "framework": ["ONNX"],
            "similarity_fn_name": ScoringFunction.MAX_SIM,
            "model_type": ["late-interaction"],
            "experiment_kwargs": experiment or None,
        }
    )
