"""Models for MTEB: our encoder, and our index, in its retrieval and reranking tasks.

```python
import mteb
from tansaku.plugin.hosts.mteb import TansakuModel
results = mteb.evaluate(TansakuModel(), mteb.get_tasks(["JaqketRetrieval"]))
```
"""

from __future__ import annotations

import inspect
import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ...indexer.index import Index
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError, MissingExtraError
from ..evaluation.ranking import exact_maxsim
from ..search.choices import Recall
from ..search.plan import SearchOptions
from ..search.searcher import Searcher
from ._framework_search import refuse_unknown

try:
    import torch
    from mteb.models import ModelMeta, MultiVectorSearchEncoderWrapper
    from mteb.models.model_meta import ScoringFunction
    from mteb.types import PromptType
except ImportError as error:
    raise MissingExtraError("mteb", "mteb") from error

__all__ = ["TansakuIndexModel", "TansakuModel"]

_logger = logging.getLogger(__name__)

_DOCUMENTS_PER_BATCH = 500  # documents scored at a time

# What MTEB passes to the encoding of texts, and what users may pass: neither changes a vector.
_ENCODE_OPTIONS = ("batch_size", "show_progress_bar", "task_metadata", "hf_split", "hf_subset", "num_proc")

Heaps = dict[str, list[tuple[float, str]]]  # query id → scores and ids of documents


class TansakuModel(MultiVectorSearchEncoderWrapper):
    """Our encoder alone: float32 vectors of all tokens, every document scored by MaxSim, nothing approximated.

    Args:
        encoder: the model; None takes the one that ships inside.

    Attributes:
        mteb_model_meta: what MTEB stores results under: the model's name, and its bundle's fingerprint as the revision.
    """

    corpus_chunk_size = 5_000  # documents whose vectors are in memory at a time

    def __init__(self, encoder: Encoder | None = None) -> None:
        self.encoder = encoder or Encoder.load()
        self.mteb_model_meta = _model_meta(self.encoder, {})

    def index(self, corpus: Any, **options: Any) -> None:
        """Take a task's corpus.

        Args:
            corpus: rows with ``id``, ``text`` and perhaps ``title``.
            options: what MTEB passes on.

        Raises:
            InputError: an argument that MTEB does not have.
        """
        refuse_unknown(options, _parameters(MultiVectorSearchEncoderWrapper.index))
        super().index(corpus, **options)

    def search(self, queries: Any, **options: Any) -> dict[str, dict[str, float]]:
        """Search the corpus, or rank the documents that a reranking task gives.

        Args:
            queries: the queries, as MTEB gives them.
            options: what MTEB passes on; see its ``SearchProtocol``.

        Returns:
            The score of each document found, for each query: query id → document id → score.

        Raises:
            InputError: an argument that MTEB does not have, or an entry of ``encode_kwargs`` other than ``batch_size``
                and ``show_progress_bar``, which change nothing here.
        """
        refuse_unknown(options, _parameters(MultiVectorSearchEncoderWrapper.search))
        return super().search(queries, **options)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """MaxSim of every query with every document.

        MTEB's own function pads documents with zero vectors, which count where a maximum is negative.

        Args:
            embeddings1: token vectors of the queries, (tokens, dim) each; a single matrix is one query.
            embeddings2: token vectors of the documents, in the same forms.

        Returns:
            Scores, float32 (queries, documents).
        """
        queries, documents = _matrices(embeddings1), _matrices(embeddings2)
        scores = np.empty((len(queries), len(documents)), np.float32)
        for start in range(0, len(documents), _DOCUMENTS_PER_BATCH):
            some = documents[start : start + _DOCUMENTS_PER_BATCH]
            scores[:, start : start + len(some)] = exact_maxsim(queries, some)
        return torch.from_numpy(scores)

    def _encode(self, inputs: Any, *, prompt_type: PromptType | None = None, **options: Any) -> list[torch.Tensor]:
        """Token vectors of the texts in a data loader's batches; a text without a word gets a zero."""
        refuse_unknown(options, _ENCODE_OPTIONS)
        of_queries = prompt_type is PromptType.query
        encode = self.encoder.encode_query_tokens if of_queries else self.encoder.encode_tokens
        tokenize = self.encoder.tokenize_queries if of_queries else self.encoder.tokenize_documents
        nothing = np.zeros((1, self.encoder.dim), np.float32)
        encoded: list[torch.Tensor] = []
        n_cut = 0
        for batch in inputs:
            texts = batch["text"]
            tokenized = tokenize([text for text in texts if text.strip()])
            n_cut += sum(text.truncated for text in tokenized)
            vectors = iter(encode(tokenized))
            encoded += [torch.from_numpy(next(vectors) if text.strip() else nothing) for text in texts]
        if n_cut:
            kind, rules = (
                ("queries", self.encoder.bundle.query) if of_queries else ("documents", self.encoder.bundle.document)
            )
            _logger.warning(
                "%d of %d %s are longer than the %d tokens that the model reads; their ends were ignored",
                n_cut,
                len(encoded),
                kind,
                rules.max_length,
            )
        return encoded


class TansakuIndexModel(TansakuModel):
    """An encoder of ours with its index: compressed vectors and the search that finds them, as in production.

    A task's corpus is indexed in a folder of its own, which is removed after the search.

    Args:
        encoder: the model; None takes the one that ships inside.
        nbits: bits per dimension of a residual: 1, 2 or 4.
        pool: 2 and more merge token vectors; see `Index.create`.
        recall: how much of the index is examined: "fast", "balanced", "exact" or a number; see `SearchOptions`, as for
            the arguments that follow.
        phrase_weight: weight given to the similarity of neighbouring tokens.
        nprobe: number of centroids probed for each query token.
        candidates: number of documents that may be scored by their codes.

    Raises:
        InputError: an option that cannot be used; for ``nbits`` and ``pool`` when a corpus is indexed.
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        *,
        nbits: int = 2,
        pool: int = 1,
        recall: Recall = "balanced",
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
    ) -> None:
        super().__init__(encoder)
        self.nbits = nbits
        self.pool = pool
        self.options = SearchOptions(recall=recall, phrase_weight=phrase_weight, nprobe=nprobe, candidates=candidates)
        given = {"phrase_weight": phrase_weight, "nprobe": nprobe, "candidates": candidates}
        experiment = {"nbits": nbits, "pool": pool, "recall": recall}
        experiment |= {name: value for name, value in given.items() if value is not None}
        self.mteb_model_meta = _model_meta(self.encoder, experiment)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def index(self, corpus: Any, **options: Any) -> None:
        """Index a task's corpus.

        Args:
            corpus: rows with ``id``, ``text`` and perhaps ``title``. Documents without a word are left out, and score 0
                in a reranking task.
            options: what MTEB passes on.

        Raises:
            InputError: all documents are empty, an option of the index cannot be used, or an argument that MTEB does
                not have.
        """
        super().index(corpus, **options)
        self._clear()
        texts = ((str(row["id"]), f"{row.get('title') or ''} {row['text']}".strip()) for row in corpus)
        documents = [{"id": doc_id, "text": text} for doc_id, text in texts if text]
        if not documents:
            raise InputError(f"all {len(corpus)} documents of the corpus are empty; there is nothing to index")
        if len(documents) < len(corpus):
            _logger.warning(
                "%d of %d documents are empty and were not indexed", len(corpus) - len(documents), len(corpus)
            )
        self._folder = tempfile.TemporaryDirectory(prefix="tansaku-mteb-")
        try:
            Index.create(self._folder.name, "corpus", documents, encoder=self.encoder, nbits=self.nbits, pool=self.pool)
        except BaseException:
            self._clear()
            raise

    def search(self, queries: Any, **options: Any) -> dict[str, dict[str, float]]:
        """Search the corpus, or rank the documents that a reranking task gives.

        Args:
            queries: the queries, as MTEB gives them.
            options: what MTEB passes on; see its ``SearchProtocol``.

        Returns:
            The score of each document found, for each query: query id → document id → score.

        Raises:
            InputError: no corpus is indexed; and as in `TansakuModel.search`.
        """
        try:
            return super().search(queries, **options)
        finally:
            self._clear()

    def _full_corpus_search(
        self, *, query_idx_to_id: dict[int, str], query_embeddings: Any, top_k: int, **options: Any
    ) -> Heaps:
        searcher = self._searcher()
        asked = replace(self.options, k=top_k, fields=[])
        found: Heaps = {}
        for number, query_id in query_idx_to_id.items():
            hits = searcher.search_vectors(query_embeddings[number].numpy(), **vars(asked))
            found[query_id] = [(hit.score, hit.id) for hit in hits]
        return found

    def _rerank_documents(
        self, *, query_idx_to_id: dict[int, str], query_embeddings: Any, top_ranked: Any, top_k: int, **options: Any
    ) -> Heaps:
        searcher = self._searcher()
        found: Heaps = {}
        for number, query_id in query_idx_to_id.items():
            ids = [str(doc_id) for doc_id in top_ranked.get(query_id, [])]
            if not ids:
                _logger.warning("the task gives no documents to rank for query %s", query_id)
                continue
            weight = self.options.phrase_weight
            scores = np.nan_to_num(searcher.score_vectors(query_embeddings[number].numpy(), ids, phrase_weight=weight))
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


def _parameters(method: Callable[..., Any]) -> list[str]:
    """Names of a method's parameters by keyword; all further ones MTEB takes and drops."""
    parameters = inspect.signature(method).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def _matrices(embeddings: Any) -> list[np.ndarray]:
    """Token vectors as a list of matrices: float32 (tokens, dim) each."""
    matrices = [np.asarray(matrix, np.float32) for matrix in embeddings]
    return [np.stack(matrices)] if matrices and matrices[0].ndim == 1 else matrices


def _model_meta(encoder: Encoder, experiment: dict[str, Any]) -> ModelMeta:
    return ModelMeta.create_empty(
        overwrites={
            "name": f"tansaku/{encoder.bundle.name.replace('/', '_')}",
            "revision": encoder.bundle.scoring_fingerprint,
            "languages": ["jpn-Jpan"],
            "max_tokens": encoder.bundle.document.max_length,
            "embed_dim": encoder.dim,
            "framework": ["ONNX"],
            "similarity_fn_name": ScoringFunction.MAX_SIM,
            "model_type": ["late-interaction"],
            "experiment_kwargs": experiment or None,
        }
    )
