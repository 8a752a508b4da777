"""`ShardServer`: one shard of an index. It answers at the version that a request names, so that no answer mixes two."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...indexer.derived.array_files import arrays_folder
from ...indexer.derived.arrays import load_arrays
from ...indexer.derived.check import CheckReport, check_index
from ...indexer.errors import StorageError
from ...indexer.read.documents import Document
from ...indexer.table.database import connect
from ...indexer.table.shard import Shard
from ...indexer.table.table import open_index_table
from ...onnx_export.progress import no_progress
from ..search.calibrator import Calibrator
from ..search.explain import rows_of_ids
from ..search.fetch import chosen_columns, document_parts, fetch_hits
from ..search.pipeline import rank, score_ids
from ..search.plan import SearchOptions
from ..search.query_encoder import EncodedQuery
from ..search.results import Hit, Stopwatch
from ..search.stored_codes import StoredCodes

_KEPT = 2  # versions: the one that is searched, and the next or the one before


@dataclass(frozen=True)
class Place:
    """Where an index is. It can be pickled.

    Attributes:
        db: database folder or URI.
        table: name of the table.
        storage_options: LanceDB's options for the object store.
    """

    db: str
    table: str
    storage_options: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Version:
    """The version of a table that a request is for.

    Attributes:
        number: its number.
        build_id: of the table: one that is dropped and made again comes to the same numbers with other rows.
        phrase_weight: the phrase weight of the model at this version.
    """

    number: int
    build_id: int
    phrase_weight: float


@dataclass(frozen=True)
class FoundInShard:
    """What a shard found.

    Attributes:
        hits: its best hits, best first.
        documents: the id of each hit's document.
        row_ids: LanceDB's row id of each hit: among equal scores the lower one comes first.
        scored: number of rows that were scored by their codes.
        missing: ids that the search was restricted to and that the shard does not have.
        complete: whether all rows of the shard were scored that the search was allowed to find.
        recall: as `Hits.recall`, of this shard.
        stages: milliseconds of each stage.
    """

    hits: list[Hit]
    documents: list[str]
    row_ids: list[int]
    scored: int
    missing: tuple[str, ...]
    complete: bool
    recall: float | None
    stages: dict[str, float]


class StaleVersionError(StorageError):
    """A request names a version that this shard does not have open."""


class ShardServer:
    """Searches one shard of an index.

    It needs no model: queries come as vectors. Several threads may ask at the same time.

    Args:
        place: where the index is.
        shard: which rows it searches.
        derived: as in `Searcher.open`.
    """

    def __init__(self, place: Place, shard: Shard, *, derived: bool = True) -> None:
        self._place, self._shard, self._derived = place, shard, derived
        self._database = connect(place.db, storage_options=place.storage_options)
        self._open: dict[Version, tuple[StoredCodes, Calibrator]] = {}  # the one that was opened last is the last
        self._lock = threading.Lock()

    def open(self, version: Version) -> int:
        """Open a version of the table, unless it is open.

        Args:
            version: the version.

        Returns:
            Number of the shard's rows.

        Raises:
            StorageError: the version cannot be read, or the table was made again.
        """
        with self._lock:
            if version not in self._open:
                before = self._open[next(reversed(self._open))][1] if self._open else None
                table = open_index_table(self._database, self._place.table, version=version.number)
                if table.header.build_id != version.build_id:
                    raise StorageError(f"{table.place()} was made again; refresh and search again")
                index = replace(table, shard=self._shard)
                codes = StoredCodes(index, load_arrays(index, derived=self._derived), version.phrase_weight)
                folder = arrays_folder(index) if self._derived else None
                self._open[version] = codes, Calibrator(codes, folder, before)
                for old in list(self._open)[:-_KEPT]:
                    del self._open[old]
            return len(self._open[version][0])

    def search(self, version: Version, text: str | None, vectors: np.ndarray, options: SearchOptions) -> FoundInShard:
        """The best rows of the shard.

        Args:
            version: version of the table.
            text: the query's text; None if it is not known.
            vectors: its token vectors, float32 (tokens, dim).
            options: the options of the search.

        Raises:
            StaleVersionError: the version is not open.
            InputError: as `Searcher.search`.
            StorageError: the database cannot be read.
        """
        codes, calibrator = self._at(version)
        watch = Stopwatch()
        columns = chosen_columns(codes, options.fields)
        settled, level = calibrator.settled(options)
        ranked = rank(codes, text, vectors, settled, watch, level=level)
        with watch.stage("fetch"):
            hits = fetch_hits(codes, ranked, columns, passages=options.passages)
        return FoundInShard(
            hits,
            codes.ids(ranked.rows),
            codes.row_ids[ranked.rows].tolist(),
            ranked.scored,
            ranked.missing,
            ranked.complete,
            calibrator.expected(settled, level, ranked),
            watch.stages,
        )

    def score(
        self, version: Version, vectors: np.ndarray, ids: Sequence[str], phrase_weight: float | None
    ) -> np.ndarray:
        """MaxSim of documents by id: float32 (ids,), NaN for one that the shard does not have.

        Args:
            version: version of the table.
            vectors: the query's token vectors.
            ids: ids of documents or passages.
            phrase_weight: as in `SearchOptions`.

        Raises:
            StaleVersionError: the version is not open.
            InputError: as `Searcher.score_vectors`.
        """
        return score_ids(self._at(version)[0], vectors, ids, phrase_weight)

    def known(self, version: Version, ids: Sequence[str]) -> list[int]:
        """Positions of the ids that the shard has, ascending, each once.

        Raises:
            StaleVersionError: the version is not open.
        """
        positions, _ = self._at(version)[0].find_ids(ids)
        return np.unique(positions).tolist()

    def parts(self, version: Version, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """The rows of documents or passages by id, as `document_parts`.

        Raises:
            StaleVersionError: the version is not open.
            StorageError: the database cannot be read.
        """
        return document_parts(self._at(version)[0], ids)

    def best_passages(
        self, version: Version, vectors: np.ndarray, ids: Sequence[str], phrase_weight: float | None
    ) -> list[tuple[Document, np.ndarray]]:
        """Title, text and token vectors of documents that are in the shard; of several passages the best for a query.

        Args:
            version: version of the table.
            vectors: the query's token vectors.
            ids: ids of documents or passages.
            phrase_weight: as in `SearchOptions`.

        Raises:
            StaleVersionError: the version is not open.
            InputError: an id that the shard does not have.
        """
        codes = self._at(version)[0]
        query = EncodedQuery(vectors, truncated=False)
        found = rows_of_ids(codes, ids, query, codes.phrase_weight_for(phrase_weight))
        return [(document, codes.vectors(row)) for row, document in found]

    def check(self, version: Version) -> CheckReport:
        """Check the shard's derived arrays and rows, as `Index.check`, and the files of a table in a folder.

        Raises:
            StaleVersionError: the version is not open.
            StorageError: the table is damaged, or cannot be read.
        """
        return check_index(self._at(version)[0].index, no_progress)

    def pid(self) -> int:
        """Id of the process that answers."""
        return os.getpid()

    def _at(self, version: Version) -> tuple[StoredCodes, Calibrator]:
        found = self._open.get(version)
        if found is None:
            raise StaleVersionError(
                f"table {self._place.table!r}: shard {self._shard} has no version {version.number} open; ask again"
            )
        return found
