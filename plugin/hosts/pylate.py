"""An index for PyLate: vectors of any ColBERT model in our format, under PyLate's retriever and evaluation.

```python
from pylate import models, retrieve
from tansaku.plugin.hosts.pylate import TansakuIndex
index = TansakuIndex(index_folder="indexes", index_name="colbert", override=True)
index.add_documents(ids, model.encode(texts, is_query=False))
scores = retrieve.ColBERT(index=index).retrieve(model.encode(queries, is_query=True), k=10)
```
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lancedb.expr import col

from ...indexer.codec.codec import check_nbits
from ...indexer.errors import TableNotFoundError
from ...indexer.index import Index
from ...indexer.read.vectors import on_cpu
from ...indexer.table.codec_table import codec_table
from ...indexer.table.database import DBConnection, connect, database_exists, drop_table, storage_errors
from ...indexer.table.model import VectorsOnly
from ...indexer.table.table import IndexTable, check_replaceable, check_table_name, open_index_table
from ...onnx_export.cores import usable_cores
from ...onnx_export.errors import InputError, MissingExtraError
from ..search.choices import Recall
from ..search.latest_searcher import LatestSearcher
from ..search.plan import SearchOptions
from ..search.searcher import Searcher

try:
    from pylate.indexes.base import Base  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise MissingExtraError("pylate", "pylate") from error

__all__ = ["TansakuIndex"]

_logger = logging.getLogger(__name__)


class TansakuIndex(Base):
    """Token vectors in a tansaku table; ranking by MaxSim over codes, as PyLate's ``PLAID`` gives it.

    The first `add_documents` trains the codec on its documents: give it most of them.

    Args:
        index_folder: a LanceDB database: a folder (made if missing) or a URI.
        index_name: name of the table.
        override: remove an index of that name.
        nbits: bits per dimension of a residual: 1, 2 or 4.
        recall: how much of the index is examined: "fast", "balanced", "exact" or a number; see `SearchOptions`, as for
            the three arguments that follow.
        phrase_weight: weight given to the similarity of neighbouring tokens; None is 0.
        nprobe: number of centroids probed for each query token.
        candidates: number of documents that may be scored by their codes.
        threads: number of queries searched at a time; None is the number of usable cores.
        storage_options: LanceDB's options for object stores, such as credentials, endpoint and region.

    Raises:
        InputError: an option that cannot be used.
        ModelMismatchError: the table was made from texts.
    """

    def __init__(
        self,
        index_folder: str | Path = "indexes",
        index_name: str = "colbert",
        override: bool = False,
        *,
        nbits: int = 2,
        recall: Recall = "balanced",
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        threads: int | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        check_table_name(index_name)
        check_nbits(nbits)
        self.options = SearchOptions(recall=recall, phrase_weight=phrase_weight, nprobe=nprobe, candidates=candidates)
        self.index_folder = str(index_folder)
        self.index_name = index_name
        self.nbits = nbits
        self.threads = threads
        self._storage_options = storage_options
        self._latest = LatestSearcher(self._open_searcher)
        if override and database_exists(self.index_folder):
            check_replaceable(self._database(), index_name)
            for name in (index_name, codec_table(index_name)):
                drop_table(self._database(), name)
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
        """Index documents: all of them, or after an error none.

        Args:
            documents_ids: ids of the documents; an integer stands for its digits.
            documents_embeddings: token vectors of each document: float (tokens, dim), of unit length; arrays, tensors
                or lists. Rows of zeros, which PyLate pads with, are left out.
            batch_size: not used; PyLate passes it.

        Returns:
            The index itself.

        Raises:
            InputError: different numbers of ids and documents, an id that is stored already or given twice, vectors of
                another shape or length, or a document without vectors.
        """
        return self._write(documents_ids, documents_embeddings, update=False)

    def update_documents(self, documents_ids: str | Sequence[str], documents_embeddings: Any) -> TansakuIndex:
        """`add_documents`, but a document whose id is stored already replaces the stored one.

        Args:
            documents_ids: see `add_documents`.
            documents_embeddings: see `add_documents`.

        Returns:
            The index itself.

        Raises:
            InputError: as `add_documents`, except for an id that is stored already.
        """
        return self._write(documents_ids, documents_embeddings, update=True)

    def remove_documents(self, documents_ids: Sequence[str]) -> TansakuIndex:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Remove documents by id; a warning logs the number of unknown ids.

        Args:
            documents_ids: ids of the documents.

        Returns:
            The index itself.
        """
        ids = _ids(documents_ids)
        opened = self._opened()
        missing = ids
        if opened is not None and ids:
            missing = Index.open(self._database(), self.index_name).delete(ids).missing
        if missing:
            _logger.warning("the index does not have %d of %d documents to be removed", len(missing), len(ids))
        return self

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        queries_embeddings: Any,
        k: int = 10,
        subset: Sequence[Sequence[str]] | Sequence[str] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """The ``k`` best documents of each query, best first.

        Args:
            queries_embeddings: token vectors of each query: float (tokens, dim); a single matrix is one query.
            k: number of documents.
            subset: ids of the only documents that may be found, or a list of ids for each query.

        Returns:
            For each query a list of dicts with ``id`` and ``score``, the MaxSim.

        Raises:
            InputError: an empty index, ``k`` below 1, vectors of another shape, or different numbers of queries and
                subsets.
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

        asked = replace(self.options, k=k)

        def found(query: np.ndarray, ids: list[str] | None) -> list[dict[str, Any]]:
            hits = searcher.search_vectors(query, **vars(replace(asked, ids=ids, fields=[])))
            if hits.missing:
                _logger.warning("the index does not have %d of %d ids in a subset", len(hits.missing), len(ids or ()))
            return [{"id": hit.id, "score": hit.score} for hit in hits]

        with ThreadPoolExecutor(self.threads or usable_cores()) as pool:
            return list(pool.map(found, queries, allowed))

    def get_documents_embeddings(self, documents_ids: Sequence[Sequence[str]]) -> list[list[np.ndarray]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The token vectors that the index stores, close to those given.

        Args:
            documents_ids: lists of ids.

        Returns:
            For each list the vectors of its documents: float32 (tokens, dim) each.

        Raises:
            InputError: an id that the index does not have.
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
                self.index_folder,
                self.index_name,
                records,
                matrices,
                nbits=self.nbits,
                resume=False,
                storage_options=self._storage_options,
            )
        else:
            index = Index.open(self._database(), self.index_name)
            write = index.upsert if update else index.add
            write(records, vectors=matrices, resume=False)
        return self

    def _opened(self) -> IndexTable | None:
        try:
            return open_index_table(self._database(), self.index_name)
        except TableNotFoundError:
            return None

    def _database(self) -> DBConnection:
        return connect(self.index_folder, storage_options=self._storage_options)

    def _open_searcher(self) -> Searcher:
        opened = open_index_table(self._database(), self.index_name)
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
    return [np.asarray(on_cpu(matrix), np.float32) for matrix in embeddings]


def _without_padding(matrix: np.ndarray) -> np.ndarray:
    return matrix[matrix.any(axis=1)] if matrix.ndim == 2 else matrix
