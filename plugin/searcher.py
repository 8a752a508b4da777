"""`Searcher`: a query in, MaxSim-ranked hits out.

The path of a query: encode → probe → gather → prune → refine → fetch. The middle three are in `candidates`, the MaxSim
of refine in `maxsim`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..indexer.codec import ResidualCodec
from ..indexer.documents import RESERVED_FIELDS
from ..indexer.table import Database, IndexTable, connect, open_with_model
from ..onnx_export import Encoder, InputError
from .candidates import InvertedLists, gather, probe, prune
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


@dataclass(frozen=True)
class _Codes:
    """The compressed vectors of all documents, one after the other, as the table held them when it was read."""

    row_ids: np.ndarray  # uint64 (documents,)
    offsets: np.ndarray  # int64 (documents + 1,)
    centroid_ids: np.ndarray  # (tokens,)
    residuals: np.ndarray  # uint8 (tokens, residual bytes)


class Searcher:
    """Searches one index, as it was when opened; open one with `Searcher.open`.

    Attributes:
        encoder: the model that queries are encoded with.
    """

    def __init__(self, table: IndexTable, encoder: Encoder) -> None:
        self.encoder = encoder
        self._table = table.table
        self._codec = table.codec
        # Hits are fetched from the version whose codes are in memory, whatever is written meanwhile.
        self._table.checkout(self._table.version)
        self._codes = _read_codes(table)
        self._lists = InvertedLists.build(self._codes.centroid_ids, self._codes.offsets, len(self._codec.centroids))

    @classmethod
    def open(cls, db: Database, table: str, *, encoder: Encoder | None = None) -> Searcher:
        """Open an index for searching; its codes are read into memory.

        Args:
            db: a database folder, a URI or a LanceDB connection.
            table: name of the table.
            encoder: the model the index was made with; None takes the one that ships inside.

        Raises:
            TableNotFoundError: no such database or table.
            NotAnIndexError: the table was not made by tansaku, or has another format version.
            ModelMismatchError: the index was made with another model.
        """
        return cls(*open_with_model(connect(db), table, encoder))

    def __len__(self) -> int:
        """Number of documents."""
        return len(self._codes.row_ids)

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
        documents, scores = self.rank_vectors(query, k, nprobe=nprobe, candidates=candidates)
        return self._fetch(documents, scores)

    def rank_vectors(
        self, query: np.ndarray, k: int = 10, *, nprobe: int = _NPROBE, candidates: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """`search_vectors` without fetching: document numbers, int64, and scores, float32, best first."""
        for name, value in (("k", k), ("nprobe", nprobe), ("candidates", candidates)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be 1 or more")
        if query.ndim != 2 or query.shape[1] != self._codec.dim or not len(query):
            raise InputError(f"the query's vectors have shape {query.shape}, expected (tokens, {self._codec.dim})")
        limit = candidates or max(_CANDIDATES, _CANDIDATES_PER_HIT * k)
        if limit >= len(self):
            documents = np.arange(len(self))
        else:
            documents, approximate = gather(self._lists, *probe(query, self._codec.centroids, nprobe))
            documents = prune(documents, approximate, limit)
        scores = self._refine(query, documents)
        # Stable, so that documents of equal score keep their order in the index.
        best = np.argsort(-scores, kind="stable")[:k]
        return documents[best], scores[best]

    def _refine(self, query: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """MaxSim over decoded vectors: float32, one per document."""
        scores = [np.empty(0, np.float32)]
        for start in range(0, len(documents), _REFINED_TOGETHER):
            part = documents[start : start + _REFINED_TOGETHER]
            scores.append(maxsim(query, *_decode(self._codes, self._codec, part)))
        return np.concatenate(scores)

    def ids(self, documents: np.ndarray) -> list[str]:
        """Ids of documents given by number."""
        return self._rows(documents, ["id"])["id"].to_pylist()

    def _fetch(self, documents: np.ndarray, scores: np.ndarray) -> list[Hit]:
        columns = [
            name for name in self._table.schema.names if name not in ("token_count", "centroid_ids", "residuals")
        ]
        rows = self._rows(documents, columns).to_pylist()
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

    def _rows(self, documents: np.ndarray, columns: list[str]) -> pa.Table:
        if not len(documents):
            return self._table.schema.empty_table().select(columns)
        row_ids = self._codes.row_ids[documents]
        # LanceDB returns rows in an order of its own.
        found = self._table.take_row_ids(row_ids.tolist()).select(columns).with_row_id().to_arrow()
        position = {row_id: i for i, row_id in enumerate(found["_rowid"].to_pylist())}
        return found.take([position[row_id] for row_id in row_ids.tolist()]).drop_columns(["_rowid"])


def _check_query(query: str) -> None:
    if not isinstance(query, str):
        raise InputError(f"the query is {type(query).__name__}, not str")
    if not query.strip():
        raise InputError("the query is empty; give at least one word")


def _read_codes(index: IndexTable) -> _Codes:
    columns = ["token_count", "centroid_ids", "residuals"]
    rows = index.table.search().select(columns).with_row_id(True).to_arrow()
    codec = index.codec
    lengths = rows["token_count"].to_numpy().astype(np.int64)
    return _Codes(
        row_ids=rows["_rowid"].to_numpy(),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        centroid_ids=np.frombuffer(_joined(rows["centroid_ids"]), codec.id_dtype),
        residuals=np.frombuffer(_joined(rows["residuals"]), np.uint8).reshape(-1, codec.residual_bytes),
    )


def _joined(column: pa.ChunkedArray) -> bytes:
    return b"".join(column.to_pylist())


def _decode(codes: _Codes, codec: ResidualCodec, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of ``documents`` one after the other, and where each begins."""
    starts, ends = codes.offsets[documents], codes.offsets[documents + 1]
    offsets = np.concatenate([[0], np.cumsum(ends - starts)])
    tokens = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
    return codec.decode(codes.centroid_ids[tokens], codes.residuals[tokens]), offsets
