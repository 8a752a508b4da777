"""LanceDB: its full text search as a source of candidates, and a reranker for its own queries.

```python
import lancedb
from tansaku import HostSearch, Reranker, Searcher
from tansaku.plugin.hosts.lancedb import LanceDBSource
reranker = Reranker(searcher=Searcher.open("db", "docs"))
hits = HostSearch(LanceDBSource(lancedb.connect("yours").open_table("docs")), reranker).search("質問")
```
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
from lancedb.rerankers import Reranker as LanceReranker
from lancedb.table import Table

from ...indexer.forks import check_process
from ...onnx_export.errors import InputError
from ..rerank.host_search import Candidate
from ..rerank.reranker import Reranker
from ..search.choices import ScoreMode
from ..search.scores import check_mode
from ._engine_source import TableSource, host_errors
from ._framework_search import rerank
from ._lance_tables import packed, unpacked

__all__ = ["LanceDBSource", "TansakuReranker"]

_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class LanceDBSource(TableSource[str]):
    """LanceDB's full text search (BM25) as a source of candidates.

    The text columns need a full text index. For Japanese make it with ``base_tokenizer`` "icu" or "ngram": the default
    takes a whole sentence for one word. A condition (``where``) is in LanceDB's SQL, ``year >= 2000``; it must come
    from the application, not from users.

    It can be pickled: whoever unpickles it opens the table where it lies. The pickle holds its storage options.

    Args:
        table: a LanceDB table; it need not be one of ours.
        text_columns, id_column, with_text, timeout: see `TableSource`.

    Raises:
        InputError: a column that the table does not have, or a text column without a full text index, which LanceDB
            would search as words between spaces.
    """

    table: Table

    def __post_init__(self) -> None:
        super().__post_init__()
        check_process("LanceDB's table")
        columns = self.table.schema.names
        for name in (self.id_column, *self.text_columns):
            if name not in columns:
                raise InputError(f"table {self.table.name!r} has no column {name!r}; it has {', '.join(columns)}")
        indexed = {name for index in self.table.list_indices() if index.index_type == "FTS" for name in index.columns}
        for name in self.text_columns:
            if name not in indexed:
                raise InputError(f"table {self.table.name!r} has no full text index over {name!r}; make one")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "table": packed(self.table)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, table=unpacked(state["table"]))

    def _search(self, query: str, k: int, where: str | None) -> list[Candidate]:
        check_process("LanceDB's table")
        texts = self.text_columns if self.with_text else []
        with host_errors("LanceDB", self.table.name, RuntimeError, ValueError, OSError):
            search = self.table.search(query, query_type="fts", fts_columns=list(self.text_columns))
            if where is not None:
                search = search.where(where, prefilter=True)
            search = search.select(list(dict.fromkeys([self.id_column, *texts, "_score"]))).limit(k)
            rows = search.to_arrow(timeout=timedelta(seconds=self.timeout)).to_pylist()
        return [self._candidate(row[self.id_column], row["_score"], [row[name] for name in texts]) for row in rows]


class TansakuReranker(LanceReranker):
    """Ranks the rows of a LanceDB query by MaxSim: ``table.search(…).rerank(TansakuReranker(…))``.

    Rows whose ids the index has are scored by its codes, without encoding, the others by their texts. Rows with neither
    come last with the score null, and a warning logs their number.

    Args:
        reranker: our reranker, with a searcher of the index that has the rows' ids, or without, to rank by texts alone;
            None is one without, with the model that ships inside.
        column: name of the column with the text.
        id_column: name of the column with the ids that our index has; not needed to rank by texts alone.
        score: scale of the scores: "mean", "raw" or "logit"; see `Reranker.rerank`.
        return_score: "relevance" leaves LanceDB's own scores out; "all" keeps them.

    Raises:
        InputError: an unknown ``score``; ranking raises it for an empty query, and for rows with neither column.
        ValueError: an unknown ``return_score``.
    """

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        column: str = "text",
        id_column: str = "id",
        score: ScoreMode = "mean",
        return_score: str = "relevance",
    ) -> None:
        super().__init__(return_score)
        self.reranker = reranker or Reranker()
        self.column = column
        self.id_column = id_column
        self.score_mode: ScoreMode = check_mode(score)

    def rerank_hybrid(self, query: str, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        """The rows that either search found, each once, best first."""
        if self.score == "all":
            return self._ranked(query, self._with_both_scores(vector_results, fts_results))
        return self._ranked(query, self.merge_results(vector_results, fts_results))

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        """The rows that a vector search found, best first."""
        return self._ranked(query, vector_results)

    def rerank_fts(self, query: str, fts_results: pa.Table) -> pa.Table:
        """The rows that a full text search found, best first."""
        return self._ranked(query, fts_results)

    def _with_both_scores(self, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        """`merge_results`, in which a row that both searches found has the scores of both.

        LanceDB's own method goes through Python objects and loses the types of columns that are null.
        """
        merged = self.merge_results(vector_results, fts_results)
        for name, results in (("_distance", vector_results), ("_score", fts_results)):
            if name not in results.column_names:
                continue
            place = {row: i for i, row in enumerate(results["_rowid"].to_pylist())}
            at = pa.array([place.get(row) for row in merged["_rowid"].to_pylist()], pa.int64())
            merged = merged.set_column(merged.column_names.index(name), name, results[name].take(at))
        return merged

    def _ranked(self, query: str, rows: pa.Table) -> pa.Table:
        has_ids = self.id_column in rows.column_names and self.reranker.searcher is not None
        has_texts = self.column in rows.column_names
        if not has_ids and not has_texts:
            raise InputError(
                f"the rows have neither {self.id_column!r}, of an index, nor {self.column!r}; select one of them"
            )
        ids = rows[self.id_column].to_pylist() if has_ids else [None] * len(rows)
        texts = rows[self.column].to_pylist() if has_texts else [None] * len(rows)
        # The reranker refuses a row with neither id nor text; here it comes last.
        given = [i for i in range(len(rows)) if ids[i] is not None or texts[i] is not None]
        ranking = rerank(
            self.reranker,
            query,
            [texts[i] for i in given],
            [ids[i] for i in given] if has_ids else None,
            score=self.score_mode,
        )
        order = [given[r.index] for r in ranking]
        scored = set(order)
        left = [i for i in range(len(rows)) if i not in scored]
        if left:
            _logger.warning("%d of %d rows have no id of the index and no text; they come last", len(left), len(rows))
        scores = pa.array([r.score for r in ranking] + [None] * len(left), pa.float32())
        ranked = rows.take(pa.array(order + left, pa.int64())).append_column("_relevance_score", scores)
        return self._keep_relevance_score(ranked)
