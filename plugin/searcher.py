"""`Searcher`: a query in, MaxSim-ranked hits out.

The path of a query: encode → probe → gather → prune → refine → fetch. The middle three are in `candidates`, the MaxSim
of refine in `maxsim`, what they read in `codes`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..indexer import StorageError
from ..indexer.arrays import load_arrays
from ..indexer.database import Database, connect, storage_errors
from ..indexer.schema import CODE_FIELDS, RESERVED_FIELDS, build_column
from ..indexer.table import IndexTable, open_with_model
from ..onnx_export import Encoder, InputError
from .candidates import gather, probe, prune
from .codes import Codes
from .maxsim import maxsim

_NPROBE = 32
_CANDIDATES = 512
_CANDIDATES_PER_HIT = 8
_REFINED_TOGETHER = 256  # documents decoded at a time, which bounds memory


@dataclass(frozen=True)
class Hit:
    """One document found.

    Attributes:
        id: the document's id.
        score: MaxSim, a sum over the query's tokens; comparable within one query only.
        title: the document's title, perhaps empty.
        text: the document's text.
        fields: the caller's other columns.
    """

    id: str
    score: float
    title: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)


class Searcher:
    """Searches one version of an index until it is refreshed; open one with `Searcher.open`.

    Several threads may search at once, also while one refreshes.

    Attributes:
        encoder: the model that queries are encoded with.
    """

    def __init__(self, table: IndexTable, encoder: Encoder, *, derived: bool = True) -> None:
        self.encoder = encoder
        self._derived = derived
        self._codes = self._read(table)

    @classmethod
    def open(cls, db: Database, table: str, *, encoder: Encoder | None = None, derived: bool = True) -> Searcher:
        """Open an index for searching.

        Args:
            db: a database folder, a URI or a LanceDB connection.
            table: name of the table.
            encoder: the model the index was made with; None takes the one that ships inside.
            derived: memory-map arrays that are kept on disk beside the table and made first if they are not there.
                False writes nothing and reads only the centroid ids of all documents, and the residuals of each
                query's candidates from the table: for short-lived readers; slower, with the same hits.

        Raises:
            TableNotFoundError: no such database or table.
            NotAnIndexError: the table was not made by tansaku, or has another format version.
            ModelMismatchError: the index was made with another model.
            StorageError: the database cannot be read.
        """
        return cls(*open_with_model(connect(db), table, encoder), derived=derived)

    @property
    def version(self) -> int:
        """Version of the table that is searched."""
        return self._codes.index.table.version

    def __len__(self) -> int:
        """Number of rows: documents, or passages."""
        return len(self._codes)

    def refresh(self) -> bool:
        """Bring the search to the latest version of the table; returns whether there was a later one.

        Raises as `open` does; the search then stays as it was.
        """
        before = self._codes.index
        latest = self._latest(before)
        if _is_same(latest, before):
            return False
        self._codes = self._read(latest)
        return True

    def search(self, query: str, k: int = 10, *, nprobe: int = _NPROBE, candidates: int | None = None) -> list[Hit]:
        """The ``k`` best documents for ``query``, best first; fewer if the index holds fewer.

        Args:
            query: the question or keywords.
            k: how many hits.
            nprobe: centroids probed per query token.
            candidates: documents ranked by MaxSim; None takes 512, or 8 k if that is more. As many as the index
                holds, or more, makes the search exhaustive.

        Raises InputError for an empty query and for a number below 1.
        """
        _check_query(query)
        return self.search_vectors(self.encoder.encode_queries([query])[0], k, nprobe=nprobe, candidates=candidates)

    def search_vectors(
        self, query: np.ndarray, k: int = 10, *, nprobe: int = _NPROBE, candidates: int | None = None
    ) -> list[Hit]:
        """`search` for a query that is encoded already: float32 (query tokens, dim), unit length."""
        while True:
            codes = self._codes
            try:
                return _fetch(codes, *self._rank(codes, query, k, nprobe, candidates))
            except StorageError:
                # Perhaps `optimize` has given up the version that is open: then all is to be ranked anew.
                self.refresh()
                if codes is self._codes:
                    raise

    def rank_vectors(
        self, query: np.ndarray, k: int = 10, *, nprobe: int = _NPROBE, candidates: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """`search_vectors` without fetching: document numbers, int64, and scores, float32, best first.

        The numbers hold until the next refresh.
        """
        return self._rank(self._codes, query, k, nprobe, candidates)

    def ids(self, documents: np.ndarray) -> list[str]:
        """Ids of documents given by number."""
        return _rows(self._codes, documents, ["id"])["id"].to_pylist()

    def _latest(self, index: IndexTable) -> IndexTable:
        return open_with_model(index.database, index.name, self.encoder)[0]

    def _read(self, index: IndexTable) -> Codes:
        """The codes of ``index``, or of a later version where `optimize` gives up that one while it is read."""
        while True:
            try:
                return Codes(index, load_arrays(index, derived=self._derived))
            except StorageError:
                latest = self._latest(index)
                if _is_same(latest, index):
                    raise
                index = latest

    @staticmethod
    def _rank(
        codes: Codes, query: np.ndarray, k: int, nprobe: int, candidates: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        for name, value in (("k", k), ("nprobe", nprobe), ("candidates", candidates)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be 1 or more")
        if query.ndim != 2 or query.shape[1] != codes.codec.dim or not len(query):
            raise InputError(f"the query's vectors have shape {query.shape}, expected (tokens, {codes.codec.dim})")
        limit = candidates or max(_CANDIDATES, _CANDIDATES_PER_HIT * k)
        if limit >= len(codes):
            documents = np.flatnonzero(codes.alive)
        else:
            documents = prune(*_gathered(codes, query, nprobe), limit)
        scores = _refine(codes, query, documents)
        # Of equal scores the one first written comes first, wherever its codes lie.
        best = np.lexsort((codes.row_ids[documents], -scores))[:k]
        return documents[best], scores[best]


def _is_same(a: IndexTable, b: IndexTable) -> bool:
    return a.table.version == b.table.version and a.header == b.header


def _gathered(codes: Codes, query: np.ndarray, nprobe: int) -> tuple[np.ndarray, np.ndarray]:
    """Documents that the probed centroids reach and their approximate scores, in the order of their row ids."""
    probed = probe(query, codes.codec.centroids, nprobe)
    parts = []
    for base, segment in codes.segments:
        local, scores = gather(segment.lists, len(segment), *probed)
        there = ~segment.deleted[local]
        parts.append((local[there] + base, scores[there]))
    documents = np.concatenate([numbers for numbers, _ in parts])
    scores = np.concatenate([part_scores for _, part_scores in parts])
    order = np.argsort(codes.row_ids[documents], kind="stable")
    return documents[order], scores[order]


def _refine(codes: Codes, query: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """MaxSim over decoded vectors: float32, one per document."""
    scores = np.empty(len(documents), np.float32)
    for start in range(0, len(documents), _REFINED_TOGETHER):
        part = documents[start : start + _REFINED_TOGETHER]
        for inside, vectors, offsets in codes.vectors(part):
            scores[start + inside] = maxsim(query, vectors, offsets)
    return scores


def _fetch(codes: Codes, documents: np.ndarray, scores: np.ndarray) -> list[Hit]:
    ours = (*CODE_FIELDS, build_column(codes.index.header))
    columns = [name for name in codes.index.table.schema.names if name not in ours]
    rows = _rows(codes, documents, columns).to_pylist()
    return [
        Hit(
            id=row["id"],
            score=float(score),
            title=row["title"],
            text=row["text"],
            fields={name: value for name, value in row.items() if name not in RESERVED_FIELDS},
        )
        for row, score in zip(rows, scores, strict=True)
    ]


def _rows(codes: Codes, documents: np.ndarray, columns: list[str]) -> pa.Table:
    index = codes.index
    if not len(documents):
        return index.table.schema.empty_table().select(columns)
    row_ids = codes.row_ids[documents].tolist()
    with storage_errors(index.place()):
        found = index.table.take_row_ids(row_ids).select(columns).with_row_id().to_arrow()
    # LanceDB returns rows in an order of its own, and leaves out what it does not find.
    position = {row_id: i for i, row_id in enumerate(found["_rowid"].to_pylist())}
    if len(position) < len(row_ids):
        raise StorageError(f"{index.place()}: version {index.table.version} has been removed; refresh and search again")
    return found.take([position[row_id] for row_id in row_ids]).drop_columns(["_rowid"])


def _check_query(query: str) -> None:
    if not isinstance(query, str):
        raise InputError(f"the query is {type(query).__name__}, not str")
    if not query.strip():
        raise InputError("the query is empty; give at least one word")
