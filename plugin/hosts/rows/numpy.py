"""Rows in memory, compared by NumPy: the plainest `RowStore`, which others are compared with.

The row vectors are kept in one matrix until the next write, so that a search of 70,000 rows is one product.

```python
from tansaku import Coder
from tansaku.plugin.hosts.rows.numpy import NumpyRows
store = NumpyRows(Coder())
store.add([{"id": "kyoto", "text": "京都は794年から都だった。", "year": 794}])
hits = store.search("昔の首都はどこ？", where=lambda row: row["year"] < 1000)
```
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ....onnx_export.errors import InputError
from ...rows.coder import Coder
from ...rows.columns import joined
from ...rows.row_search import FoundRow, RowId
from ...rows.row_store import CodedRow, RowStore

__all__ = ["NumpyRows"]


class NumpyRows(RowStore[Callable[[Mapping[str, Any]], bool]]):
    """Rows in memory; all row vectors are compared in each search.

    A filter (``where``) is a function of a row, a mapping with the id and the columns, that tells whether it may be
    found. May be used from several threads.

    Args:
        coder: makes row vectors and codes, and ranks by them.
        options: options of `RowStore`.
    """

    def __init__(self, coder: Coder, **options: Any) -> None:
        super().__init__(coder, **options)
        self._rows: dict[RowId, CodedRow] = {}
        self._without: dict[RowId, Mapping[str, Any]] = {}
        self._guard = threading.Lock()
        self._compared: tuple[list[CodedRow], np.ndarray] | None = None  # until the next write

    @property
    def place(self) -> str:
        """See `RowStore`."""
        return "memory"

    def write_uncoded(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write rows without row vector and codes, in place of those with the same ids; `fill` encodes them."""
        with self._guard:
            for record in records:
                row_id = record[self.id_column]
                self._rows.pop(row_id, None)
                self._without[row_id] = {name: value for name, value in record.items() if name != self.id_column}
            self._compared = None

    def _insert(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            for row in rows:
                if row.id in self._rows or row.id in self._without:
                    raise InputError(f"memory has the id {row.id!r}; use upsert to write over it")
            self._rows.update((row.id, row) for row in rows)
            self._compared = None

    def _upsert(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            for row in rows:
                before = self._rows[row.id].columns if row.id in self._rows else self._without.pop(row.id, {})
                self._rows[row.id] = row._replace(columns={**before, **row.columns})
            self._compared = None

    def _fill_codes(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            for row in rows:
                if row.id in self._without:
                    self._rows[row.id] = row._replace(columns=self._without.pop(row.id))
            self._compared = None

    def _known(self, ids: Sequence[RowId]) -> set[RowId]:
        return {row_id for row_id in ids if row_id in self._rows or row_id in self._without}

    def _delete_ids(self, ids: Sequence[RowId]) -> int:
        with self._guard:
            self._compared = None
            return sum(
                self._rows.pop(row_id, None) is not None or self._without.pop(row_id, None) is not None
                for row_id in ids
            )

    def _delete_where(self, where: Callable[[Mapping[str, Any]], bool]) -> int:
        return self._delete_ids([*(row.id for row in self._coded_rows(where)), *self._uncoded_ids(where)])

    def _nearest(
        self, vector: np.ndarray, n: int, where: Callable[[Mapping[str, Any]], bool] | None, exact: bool
    ) -> list[FoundRow]:
        rows, matrix = self._all_vectors()
        scores = matrix @ vector
        places = np.arange(len(rows))
        if where is not None:
            places = places[[self._is_allowed(row.id, row.columns, where) for row in rows]]
        if n < len(places):
            places = places[scores[places] >= np.partition(scores[places], -n)[-n]]
        best = sorted(places.tolist(), key=lambda i: (-scores[i], str(rows[i].id)))[:n]
        return [self._found(rows[i].id, rows[i].columns, rows[i].codes, float(scores[i])) for i in best]

    def _all_vectors(self) -> tuple[list[CodedRow], np.ndarray]:
        """All rows with codes, and their row vectors, float32 (rows, dim)."""
        with self._guard:
            if self._compared is None:
                rows = list(self._rows.values())
                vectors = [row.row_vector for row in rows]
                self._compared = rows, np.stack(vectors) if rows else np.empty((0, self.coder.row_dim), np.float32)
            return self._compared

    def _uncoded(
        self, n: int, where: Callable[[Mapping[str, Any]], bool] | None, after: RowId | None
    ) -> list[FoundRow]:
        ids = [row_id for row_id in sorted(self._uncoded_ids(where), key=_order) if _comes_after(row_id, after)]
        return [self._found(row_id, self._without[row_id], None, with_text=True) for row_id in ids[:n]]

    def _count(self, where: Callable[[Mapping[str, Any]], bool] | None) -> int:
        return len(self._coded_rows(where)) + len(self._uncoded_ids(where))

    def _count_uncoded(self, where: Callable[[Mapping[str, Any]], bool] | None) -> int:
        return len(self._uncoded_ids(where))

    def _read(self, ids: Sequence[RowId]) -> list[FoundRow]:
        found = []
        for row_id in ids:
            if row_id in self._rows:
                row = self._rows[row_id]
                found.append(self._found(row_id, row.columns, row.codes, with_text=True))
            elif row_id in self._without:
                found.append(self._found(row_id, self._without[row_id], None, with_text=True))
        return found

    def _scan(self, n: int, after: RowId | None) -> list[CodedRow]:
        ids = [row_id for row_id in sorted(self._rows, key=_order) if _comes_after(row_id, after)]
        return [self._rows[row_id] for row_id in ids[:n]]

    def _coded_rows(self, where: Callable[[Mapping[str, Any]], bool] | None) -> list[CodedRow]:
        rows = list(self._rows.values())
        return rows if where is None else [row for row in rows if self._is_allowed(row.id, row.columns, where)]

    def _uncoded_ids(self, where: Callable[[Mapping[str, Any]], bool] | None) -> list[RowId]:
        rows = list(self._without.items())
        return [row_id for row_id, columns in rows if where is None or self._is_allowed(row_id, columns, where)]

    def _is_allowed(
        self, row_id: RowId, columns: Mapping[str, Any], where: Callable[[Mapping[str, Any]], bool]
    ) -> bool:
        return bool(where({self.id_column: row_id, **columns}))

    def _found(
        self,
        row_id: RowId,
        columns: Mapping[str, Any],
        codes: bytes | None,
        score: float = np.nan,
        *,
        with_text: bool = False,
    ) -> FoundRow:
        text = joined(columns.get(name) for name in self.text_columns) if with_text or self.with_text else None
        return FoundRow(row_id, codes, score, text, {name: columns.get(name) for name in self.fields})


def _order(row_id: RowId) -> tuple[bool, RowId]:
    return isinstance(row_id, str), row_id


def _comes_after(row_id: RowId, after: RowId | None) -> bool:
    return after is None or _order(row_id) > _order(after)
