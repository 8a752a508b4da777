"""Row vectors and codes in a Chroma collection: the embeddings, and the codes in the metadata.

```python
import chromadb
from chromadb.config import Settings
from tansaku import Coder
from tansaku.plugin.hosts.rows.chroma import ChromaRows
client = chromadb.PersistentClient("db", settings=Settings(anonymized_telemetry=False))
store = ChromaRows.create(Coder(), client, "docs")
store.add([{"id": "kyoto", "text": "京都は794年から都だった。", "year": 794}])
hits = store.search("昔の首都はどこ？", where={"year": {"$lt": 1000}})
```
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ....onnx_export.errors import InputError, MissingExtraError
from ...rerank.host_search import HostError
from ...rows.coder import Coder
from ...rows.columns import joined
from ...rows.row_search import FoundRow, RowId
from ...rows.row_store import CodedRow, RowStore
from ._all_vectors import nearest_of
from ._codes_text import check_codec, codes_from_text, codes_to_text

try:
    import httpx
    from chromadb.api import ClientAPI
    from chromadb.api.async_api import AsyncClientAPI
    from chromadb.errors import ChromaError, NotFoundError
except ImportError as error:
    raise MissingExtraError("chromadb", "chroma") from error

__all__ = ["ChromaRows"]

_AT_ONCE = 1000  # rows that are read or written at a time
_EF_PER_ROW, _LEAST_EF = 4, 2000
_EVERYTHING: Any = ["metadatas", "documents", "embeddings"]
# AttributeError is what a client raises that was closed.
_REFUSALS = (ChromaError, httpx.HTTPError, OSError, RuntimeError, ValueError, TypeError, AttributeError)


class ChromaRows(RowStore[Mapping[str, Any]]):
    """Documents in a collection of Chroma: row vectors as embeddings, compared by ``ip``, and base64 in the metadata.

    A filter (``where``) is a dict, as Chroma takes it: ``{"year": {"$lt": 1000}}``. Ids are strings. The column
    ``document_column`` is Chroma's document, the others are metadata: strings, numbers and truth values. None removes
    one. Chroma never makes an embedding here.

    The codes are metadata, since documents take twice the space of it: 24 KB a row with codes of 5 KB, as Chroma keeps
    strings in an index too. Chroma cannot ask which rows lack a value, so a row with codes also has the metadata
    ``tansaku_codes_set``, of the value true. Who changes a text by another client, removes both.

    A row has one embedding. A collection with the embeddings of another model cannot be used; make a new one.

    Chroma has no exact search: for that, and where its index gave fewer rows than it was asked for, the embeddings are
    read and compared here. The width of its index, ``ef_search``, is a setting of the collection; more rows than half
    of it are looked for by comparing all.

    Rows of one batch are written in one call. Two writers that `add` the same id at the same moment: the slower one
    gets an error. A client of a folder sees other processes' rows only once it is opened again; for several processes,
    run the server. A client of a folder hangs in a process that is forked after it was opened; that is refused.

    May be used from several threads. Its awaitable methods run in threads; an asynchronous client is refused.

    Args:
        coder: makes row vectors and codes, and ranks by them.
        client: a `PersistentClient`, an `EphemeralClient` or an `HttpClient`.
        collection: name of the collection.
        document_column: name of the column that is Chroma's document.
        options: options of `RowStore`.

    Raises:
        InputError: the collection compares by another distance, has embeddings of another length, or the client is
            asynchronous.
        HostError: the server cannot be reached, or it has no such collection.
        CodesError: the collection has codes of another codec or model.
    """

    def __init__(
        self, coder: Coder, client: ClientAPI, collection: str, *, document_column: str = "text", **options: Any
    ) -> None:
        super().__init__(coder, **options)
        _check_client(client)
        self.client, self.collection, self.document_column = client, collection, document_column
        self.set_column = f"{self.codes_column}_set"
        self._guard = threading.Lock()
        self._process = os.getpid() if "rust" in client.get_settings().chroma_api_impl.lower() else None
        try:
            with self._asking():
                self._rows = client.get_collection(collection, embedding_function=None)
                self._most = client.get_max_batch_size()
        except HostError as error:
            if isinstance(error.__cause__, NotFoundError):
                raise HostError(f"{self.place} is not there; ChromaRows.create makes it") from error.__cause__
            raise
        self._ef = self._check_index()
        check_codec(self)

    @classmethod
    def create(
        cls,
        coder: Coder,
        client: ClientAPI,
        collection: str,
        *,
        hnsw: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ChromaRows:
        """Make a collection and open it.

        Args:
            coder: see the class.
            client: see the class.
            collection: see the class; 3 to 512 of the characters ``a-z A-Z 0-9 . _ -``.
            hnsw: settings of Chroma's index, such as ``{"ef_search": 1200}``. What is not set is ``ef_search`` of four
                times the candidates (2,000 at least), ``max_neighbors`` of 32 and ``ef_construction`` of 200, since
                Chroma's own miss some of the nearest rows.
            options: options of the class.

        Raises:
            InputError: see the class.
            HostError: see the class; or there is such a collection already.
        """
        _check_client(client)
        width = max(_LEAST_EF, _EF_PER_ROW * int(options.get("candidates", 0)))
        index = {"ef_search": width, "max_neighbors": 32, "ef_construction": 200, **(hnsw or {}), "space": "ip"}
        with _host_errors(collection):
            client.create_collection(collection, embedding_function=None, configuration={"hnsw": index})  # pyright: ignore[reportArgumentType]
        return cls(coder, client, collection, **options)

    @property
    def place(self) -> str:
        """See `RowStore`."""
        return _place(self.collection)

    def _insert(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            self._refuse_known(self._known([row.id for row in rows]))
            for part in self._parts(rows):
                given = self._given(part)
                for metadata in given["metadatas"]:
                    for name in [name for name, value in metadata.items() if value is None]:
                        del metadata[name]
                with self._asking():
                    self._rows.add(**given)  # which passes over an id that is there
            written = {row.id: row.codes for row in self._read([row.id for row in rows])}
            self._refuse_known({row.id for row in rows if written.get(row.id) != row.codes})

    def _refuse_known(self, ids: set[RowId]) -> None:
        if ids:
            raise InputError(f"{self.place} has the id {min(ids, key=str)!r}; use upsert to write over it")

    def _upsert(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            for part in self._parts(rows):
                given = self._given(part)
                with self._asking():
                    self._rows.upsert(**given)

    def _fill_codes(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            lacking = set(self._ids(self._lacking(None), [row.id for row in rows]))
            for part in self._parts([row for row in rows if row.id in lacking]):
                given = {name: value for name, value in self._given(part).items() if name != "documents"}
                with self._asking():
                    self._rows.update(**given)  # which passes over an id that is not there

    def _given(self, rows: Sequence[CodedRow]) -> dict[str, Any]:
        return {
            "ids": [self._check_id(row.id) for row in rows],
            "embeddings": np.stack([np.asarray(row.row_vector, np.float32) for row in rows]),
            "documents": [row.columns.get(self.document_column) for row in rows],
            "metadatas": [
                {
                    **{name: value for name, value in row.columns.items() if name != self.document_column},
                    self.codes_column: codes_to_text(row.codes),
                    self.set_column: True,
                }
                for row in rows
            ],
        }

    def _known(self, ids: Sequence[RowId]) -> set[RowId]:
        return set(self._ids(None, [self._check_id(row_id) for row_id in ids]))

    def _delete_ids(self, ids: Sequence[RowId]) -> int:
        with self._guard:
            known = [str(row_id) for row_id in self._known(ids)]
            for part in self._parts(known):
                with self._asking():
                    self._rows.delete(ids=part)
            return len(known)

    def _delete_where(self, where: Mapping[str, Any]) -> int:
        with self._guard:
            n_rows = self._count(where)
            chosen = _filter(where)
            with self._asking():
                self._rows.delete(where=chosen)
            return n_rows

    def _nearest(self, vector: np.ndarray, n: int, where: Mapping[str, Any] | None, exact: bool) -> list[FoundRow]:
        if exact or 2 * n > self._ef:
            return self._compared(vector, n, where)
        chosen = _filter(where)
        with self._asking():
            found: Any = self._rows.query(
                query_embeddings=[vector.tolist()],
                n_results=n,
                where=chosen,
                include=["metadatas", "documents", "distances"],
            )
        given = (found[name][0] for name in ("ids", "metadatas", "documents", "distances"))
        rows = [self._found(*row, score=1 - distance) for *row, distance in zip(*given, strict=True)]
        return sorted(rows, key=lambda row: (-row.score, row.id))

    def _compared(self, vector: np.ndarray, n: int, where: Mapping[str, Any] | None) -> list[FoundRow]:
        """The nearest rows by all embeddings, which are read."""
        parts = self._parts(self._ids(where))
        read = (self._get(part, ["embeddings"]) for part in parts)
        best = nearest_of(((rows["ids"], rows["embeddings"]) for rows in read if rows["ids"]), vector, n)
        return [row._replace(score=best[row.id]) for row in self._read(list(best))]

    def _uncoded(self, n: int, where: Mapping[str, Any] | None, after: RowId | None) -> list[FoundRow]:
        return [row._replace(codes=None) for row in self._read(self._first(n, self._lacking(where), after))]

    def _count(self, where: Mapping[str, Any] | None) -> int:
        if where is not None:
            return len(self._ids(where))
        with self._asking():
            return self._rows.count()

    def _count_uncoded(self, where: Mapping[str, Any] | None) -> int:
        return len(self._ids(self._lacking(where)))

    def _read(self, ids: Sequence[RowId]) -> list[FoundRow]:
        rows = {}
        for part in self._parts([self._check_id(row_id) for row_id in ids]):
            read = self._get(part, ["metadatas", "documents"])
            for row in zip(read["ids"], read["metadatas"], read["documents"], strict=True):
                rows[row[0]] = self._found(*row, with_text=True)
        return [rows[row_id] for row_id in ids if row_id in rows]

    def _scan(self, n: int, after: RowId | None) -> list[CodedRow]:
        names = list(dict.fromkeys((*self.text_columns, *self.fields)))
        ids = self._first(n, {self.set_column: True}, after)
        rows = {}
        for part in self._parts(ids):
            read = self._get(part, _EVERYTHING)
            given = (read[name] for name in ("ids", "metadatas", "documents", "embeddings"))
            for row_id, metadata, document, vector in zip(*given, strict=True):
                columns = self._columns(metadata, document)
                codes = codes_from_text(columns.get(self.codes_column), row_id)
                columns = {name: columns.get(name) for name in names}
                rows[row_id] = CodedRow(row_id, np.asarray(vector, np.float32), codes or b"", columns)
        return [rows[row_id] for row_id in ids if row_id in rows]

    # What is asked, and how

    def _check_index(self) -> float:
        """Width of the index; the distance and the length of embeddings are right."""
        with self._asking():
            settings = self._rows.configuration_json
            some: Any = self._rows.get(limit=1, include=["embeddings"])["embeddings"]
        hnsw = settings.get("hnsw")
        space = (hnsw or settings.get("spann") or {}).get("space", "l2")
        if space != "ip":
            raise InputError(
                f"{self.place} compares embeddings by {space!r}; row vectors are compared by 'ip', which a collection "
                "has from the start: make a new one with ChromaRows.create"
            )
        if len(some) and len(some[0]) != self.coder.row_dim:
            raise InputError(
                f"{self.place} has embeddings of {len(some[0])} dimensions, and row vectors of this coder have "
                f"{self.coder.row_dim}; make a new collection with ChromaRows.create"
            )
        width = float("inf") if hnsw is None else hnsw.get("ef_search", 100)
        if width < 2 * self.candidates:
            warnings.warn(
                f"{self.place}: ef_search is {width}, less than twice the {self.candidates} candidates of a search, so "
                f'all embeddings are compared; collection.modify(configuration={{"hnsw": {{"ef_search": '
                f"{2 * self.candidates}}}}}) sets it for the next opening",
                stacklevel=3,
            )
        return width

    def _check_id(self, row_id: RowId) -> str:
        if not isinstance(row_id, str):
            raise InputError(f"{self.place}: ids are strings, and {row_id!r} is {type(row_id).__name__}")
        return row_id

    def _lacking(self, where: Mapping[str, Any] | None) -> dict[str, Any]:
        lacking = {self.set_column: {"$ne": True}}  # also of rows without it
        return lacking if where is None else {"$and": [_filter(where), lacking]}

    def _ids(self, where: Mapping[str, Any] | None, among: Sequence[RowId] | None = None) -> list[str]:
        """Ids of rows, in their order."""
        chosen = _filter(where)
        if among is None:
            with self._asking():
                return sorted(self._rows.get(where=chosen, include=[])["ids"])
        ids: list[str] = []
        for part in self._parts([str(row_id) for row_id in dict.fromkeys(among)]):
            with self._asking():
                ids += self._rows.get(ids=part, where=chosen, include=[])["ids"]
        return sorted(ids)

    def _first(self, n: int, where: Mapping[str, Any], after: RowId | None) -> list[str]:
        return [row_id for row_id in self._ids(where) if after is None or row_id > str(after)][:n]

    def _get(self, ids: list[str], include: Any) -> Any:
        with self._asking():
            return self._rows.get(ids=ids, include=include)

    def _parts(self, given: Sequence[Any]) -> Iterator[list[Any]]:
        """Parts that are small enough for one call; Chroma takes no empty ones."""
        n = min(_AT_ONCE, self._most)
        return (list(given[start : start + n]) for start in range(0, len(given), n))

    def _columns(self, metadata: Mapping[str, Any] | None, document: str | None) -> dict[str, Any]:
        return {**(metadata or {}), self.document_column: document}

    def _found(
        self,
        row_id: str,
        metadata: Mapping[str, Any] | None,
        document: str | None,
        *,
        score: float = np.nan,
        with_text: bool = False,
    ) -> FoundRow:
        columns = self._columns(metadata, document)
        text = joined(map(columns.get, self.text_columns)) if with_text or self.with_text else None
        codes = codes_from_text(columns.get(self.codes_column), row_id)
        return FoundRow(row_id, codes, score, text, {name: columns.get(name) for name in self.fields})

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        if self._process not in (None, os.getpid()):
            raise HostError(
                f"{self.place}: process {os.getpid()} was forked from process {self._process} after that had opened "
                "the client, and Chroma would hang here; open it only after the fork, or start the process with "
                "multiprocessing.get_context('spawn')"
            )
        with _host_errors(self.collection):
            yield


def _check_client(client: Any) -> None:
    if isinstance(client, AsyncClientAPI):
        raise InputError("client is an AsyncHttpClient; give an HttpClient, and await asearch and aadd")


def _place(collection: str) -> str:
    return f"Chroma's collection {collection!r}"


@contextlib.contextmanager
def _host_errors(collection: str) -> Iterator[None]:
    try:
        yield
    except _REFUSALS as error:
        raise HostError(f"{_place(collection)}: {str(error) or type(error).__name__}") from error


def _filter(where: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if where is None:
        return None
    if not isinstance(where, Mapping) or not where:
        raise InputError(f'where is {where!r:.60}; give a dict, such as {{"year": {{"$lt": 1000}}}}, or leave it out')
    return dict(where)
