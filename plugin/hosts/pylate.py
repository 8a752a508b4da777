"""An index for PyLate: vectors of any ColBERT model in our format, under PyLate's retriever and evaluation.

from pylate import models, retrieve
from tansaku.plugin.hosts.pylate import TansakuIndex
index = TansakuIndex(index_folder="indexes", index_name="colbert", override=True)
index.add_documents(ids, model.encode(texts, is_query=False))
scores = retrieve.ColBERT(index=index).retrieve(model.encode(queries, is_query=True), k=10)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from lancedb.expr import col

from ...indexer.codec.codec import check_nbits
from ...indexer.errors import TableNotFoundError
from ...indexer.index import Index
from ...indexer.table.codec_table import codec_table
from ...indexer.table.database import connect, database_exists, drop_table, storage_errors
from ...indexer.table.model import VectorsOnly
from ...indexer.table.table import IndexTable, check_name, open_index_table
from ...onnx_export.errors import InputError, MissingExtraError
from ..search.latest import LatestSearcher
from ..search.plan import Recall, SearchOptions
from ..search.searcher import Searcher

try:
    from pylate.indexes.base import Base  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise MissingExtraError("pylate", "pylate") from error

__all__ = ["TansakuIndex"]

_log = logging.getLogger(__name__)


class TansakuIndex(Base):
    """Token vectors in a table of ours; final ranking by MaxSim over codes, as PyLate's ``PLAID`` gives it.

    The codec is trained on the documents of the first `add_documents`: let it be most of them.

    Args:
        index_folder: a LanceDB database: a folder (made if missing) or a URI.
        index_name: name of the table.
        override: remove an index of that name.
        nbits: bits per dimension of a residual: 1, 2 or 4.
        recall: "fast", "balanced" or "exact"; see `SearchOptions`.
        threads: queries searched at a time; None is as many as there are CPUs.

    Raises InputError for options that are none, ModelMismatchError for a table that was made from texts.
    """

    def __init__(
        self,
        index_folder: str | Path = "indexes",
        index_name: str = "colbert",
        override: bool = False,
        *,
        nbits: int = 2,
        recall: Recall = "balanced",
        threads: int | None = None,
    ) -> None:
        check_name(index_name)
        check_nbits(nbits)
        SearchOptions(recall=recall)
        self.index_folder = str(index_folder)
        self.index_name = index_name
        self.nbits = nbits
        self.recall: Recall = recall
        self.threads = threads
        self._latest = LatestSearcher(self._open_searcher)
        if override and database_exists(self.index_folder):
            for name in (index_name, codec_table(index_name)):
                drop_table(connect(self.index_folder), name)
        opened = self._opened()
        if opened is not None:
            opened.header.check_model(VectorsOnly(opened.codec.dim).bundle, opened.place())

    @property
    def is_end_to_end_index(self) -> bool:
        """True: a call returns ranked documents, and PyLate scores nothing itself."""
        return True

    def add_documents(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, documents_ids: str | Sequence[str], documents_embeddings: Any, batch_size: int | None = None
    ) -> TansakuIndex:
        """Index documents; all of them, or after an error none.

        Args:
            documents_ids: their ids; integers are taken for their digits.
            documents_embeddings: (tokens, dim) each, of unit length: arrays, tensors or lists. Rows of zeros, with
                which PyLate fills up, are left out.
            batch_size: not used; PyLate passes it.

        Raises InputError for another number of ids than of documents, for an id that is there already or given twice,
        for vectors of another shape or length, and for a document without any.
        """
        return self._write(documents_ids, documents_embeddings, update=False)

    def update_documents(self, documents_ids: str | Sequence[str], documents_embeddings: Any) -> TansakuIndex:
        """`add_documents`, but a document whose id is there already takes the place of the old one."""
        return self._write(documents_ids, documents_embeddings, update=True)

    def remove_documents(self, documents_ids: Sequence[str]) -> TansakuIndex:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Remove documents by id; how many of the ids are unknown is logged."""
        ids = _ids(documents_ids)
        opened = self._opened()
        missing = ids
        if opened is not None and ids:
            missing = Index.open(self.index_folder, self.index_name).delete(ids).missing
        if missing:
            _log.warning("%d of %d documents to be removed are not in the index", len(missing), len(ids))
        return self

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        queries_embeddings: Any,
        k: int = 10,
        subset: Sequence[Sequence[str]] | Sequence[str] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """The ``k`` best documents of each query, best first.

        Args:
            queries_embeddings: (tokens, dim) each; one matrix is one query.
            k: how many documents.
            subset: ids of the only documents that are found, or a list of such for each query.

        Returns:
            For each query dicts with ``id`` and ``score``, MaxSim.

        Raises InputError for an empty index, ``k`` below 1, vectors of another shape, and another number of subsets
        than of queries.
        """
        queries = _matrices(queries_embeddings)
        searcher = self._latest.or_none()
        if searcher is None:
            raise InputError(f"the index {self.index_name!r} is empty; add documents before searching")
        allowed: list[list[str] | None] = [None] * len(queries)
        if subset is not None:
            per_query = len(subset) > 0 and not isinstance(subset[0], (str, int))
            allowed = [_ids(some) for some in subset] if per_query else [_ids(subset)] * len(queries)
        if len(allowed) != len(queries):
            raise InputError(f"there are {len(queries)} queries and {len(allowed)} subsets; give one for each query")

        def found(query: np.ndarray, ids: list[str] | None) -> list[dict[str, Any]]:
            hits = searcher.search_vectors(query, k, ids=ids, recall=self.recall)
            if hits.missing:
                _log.warning("%d of %d ids in a subset are not in the index", len(hits.missing), len(ids or ()))
            return [{"id": hit.id, "score": hit.score} for hit in hits]

        with ThreadPoolExecutor(self.threads or os.cpu_count()) as pool:
            return list(pool.map(found, queries, allowed))

    def get_documents_embeddings(self, documents_ids: Sequence[Sequence[str]]) -> list[list[np.ndarray]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the codes of documents stand for: float32 (tokens, dim) each, near what was given.

        Raises InputError for an id that the index has not.
        """
        wanted = [_ids(ids) for ids in documents_ids]
        opened = self._opened()
        vectors: dict[str, np.ndarray] = {}
        different = sorted({doc_id for ids in wanted for doc_id in ids})
        if opened is not None and different:
            codec = opened.codec
            with storage_errors(opened.place()):
                query = opened.table.search().where(col("id").isin(different))
                rows = query.select(["id", "centroid_ids", "residuals"]).to_arrow()
            for row in rows.to_pylist():
                ids = np.frombuffer(row["centroid_ids"], codec.id_dtype)
                residuals = np.frombuffer(row["residuals"], np.uint8).reshape(len(ids), -1)
                vectors[row["id"]] = codec.decode(ids, residuals)
        missing = [doc_id for doc_id in different if doc_id not in vectors]
        if missing:
            raise InputError(
                f"the index has no document {missing[0]!r} ({len(missing)} of {len(different)} are unknown)"
            )
        return [[vectors[doc_id] for doc_id in ids] for ids in wanted]

    def _write(self, documents_ids: str | Sequence[str], documents_embeddings: Any, *, update: bool) -> TansakuIndex:
        ids = [documents_ids] if isinstance(documents_ids, str) else _ids(documents_ids)
        matrices = [_without_padding(matrix) for matrix in _matrices(documents_embeddings)]
        if len(ids) != len(matrices):
            raise InputError(f"there are {len(ids)} ids and {len(matrices)} documents; give one id for each document")
        if not ids:
            return self
        records = [{"id": doc_id} for doc_id in ids]
        if self._opened() is None:
            # PyLate adds other documents after an interruption: it does not continue the same call.
            Index.create_from_vectors(
                self.index_folder, self.index_name, records, matrices, nbits=self.nbits, resume=False
            )
        else:
            index = Index.open(self.index_folder, self.index_name)
            write = index.upsert if update else index.add
            write(records, vectors=matrices, resume=False)
        return self

    def _opened(self) -> IndexTable | None:
        if not database_exists(self.index_folder):
            return None
        try:
            return open_index_table(connect(self.index_folder), self.index_name)
        except TableNotFoundError:
            return None

    def _open_searcher(self) -> Searcher:
        opened = open_index_table(connect(self.index_folder), self.index_name)
        return Searcher(opened, VectorsOnly(opened.codec.dim))


def _ids(given: Sequence[Any]) -> list[str]:
    if isinstance(given, str):
        raise InputError("expected a list of ids, got one string; put it in a list")
    for i, doc_id in enumerate(given):
        if not isinstance(doc_id, (str, int, np.integer)) or isinstance(doc_id, bool):
            raise InputError(f"id {i} is {type(doc_id).__name__}; it must be a string or an integer")
    return [str(doc_id) for doc_id in given]


def _matrices(embeddings: Any) -> list[np.ndarray]:
    """Arrays, tensors or lists as float32 (tokens, dim) each; a single matrix as a list of one."""
    if getattr(embeddings, "ndim", None) == 2:
        embeddings = [embeddings]
    return [np.asarray(_on_cpu(matrix), np.float32) for matrix in embeddings]


def _without_padding(matrix: np.ndarray) -> np.ndarray:
    return matrix[matrix.any(axis=1)] if matrix.ndim == 2 else matrix


def _on_cpu(matrix: Any) -> Any:
    # NumPy knows no bfloat16.
    return matrix.detach().cpu().float() if hasattr(matrix, "detach") else matrix
