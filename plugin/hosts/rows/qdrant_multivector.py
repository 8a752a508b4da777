"""Token vectors in a Qdrant collection, as a multivector that Qdrant itself ranks by MaxSim.

```python
from qdrant_client import QdrantClient, models
from tansaku import Coder
from tansaku.plugin.hosts.rows.qdrant_multivector import QdrantMultivectorRows
int8 = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True))
client = QdrantClient("http://localhost:6333")
store = QdrantMultivectorRows.create(Coder(phrase_weight=0), client, "docs", quantization_config=int8)
store.add([{"id": "kyoto", "text": "京都は794年から都だった。", "year": 794}])
hits = store.search("昔の首都はどこ？")
```
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from ....onnx_export.errors import InputError, MissingExtraError
from ....onnx_export.kinds import check_whole
from ...rerank.host_search import HostError
from ...rows.coder import CodedQuery, Coder
from ...rows.columns import check_name
from ...rows.row_search import FoundRow, Nearest, RowHit, RowHits
from ...rows.row_store import CodedRow
from .qdrant import VECTOR_COLUMN, QdrantRows, host_errors, index_of, vector_of

try:
    from qdrant_client import QdrantClient, models
except ImportError as error:
    raise MissingExtraError("qdrant-client", "qdrant") from error

__all__ = ["QdrantMultivectorRows"]

TOKENS_COLUMN = "tansaku_tokens"


class QdrantMultivectorRows(QdrantRows):
    """`QdrantRows` whose points also have their token vectors, as a multivector, and which Qdrant ranks.

    A search is one query: Qdrant finds the ``candidates`` nearest row vectors, and ranks them by MaxSim over their
    token vectors (``max_sim``). It sends ids, texts and fields, and no codes. The token vectors are those that the
    codes decode to, so that scores are those of `QdrantRows` without phrases. Codes stay in the payload: rows are
    explained and moved by them.

    Qdrant knows no phrase weight, so the coder must have none. `RowHits.candidates` is the number of hits that Qdrant
    gave, and `RowHit.row_rank` is 0, since Qdrant does not say how the row vectors ranked.

    Args:
        coder: makes row vectors and codes; one with ``phrase_weight=0``.
        client: see `QdrantRows`.
        collection: see `QdrantRows`.
        tokens_column: name of the multivector.
        options: options of `QdrantRows`.

    Raises:
        InputError: a coder with a phrase weight, or a multivector of another length or distance; as `QdrantRows`.
        HostError: the collection has no such multivector; as `QdrantRows`.
        CodesError: as `QdrantRows`.
    """

    def __init__(
        self, coder: Coder, client: QdrantClient, collection: str, *, tokens_column: str = TOKENS_COLUMN, **options: Any
    ) -> None:
        if coder.phrase_weight:
            raise InputError(
                f"the coder has the phrase weight {coder.phrase_weight:g}, and Qdrant's max_sim has none; give "
                "Coder(phrase_weight=0), or use QdrantRows"
            )
        self.tokens_column = check_name(tokens_column)
        super().__init__(coder, client, collection, **options)

    @classmethod
    def create(
        cls,
        coder: Coder,
        client: QdrantClient,
        collection: str,
        *,
        float16: bool = True,
        hnsw_config: models.HnswConfigDiff | None = None,
        indexes: Mapping[str, str] | None = None,
        quantization_config: models.QuantizationConfig | None = None,
        **options: Any,
    ) -> QdrantMultivectorRows:
        """Make a collection and open it.

        Args:
            coder: see the class.
            client: see the class.
            collection: see the class.
            float16: keep row vectors and token vectors in half precision, in half of the space.
            hnsw_config: see `QdrantRows.create`; token vectors have no index.
            indexes: see `QdrantRows.create`.
            quantization_config: how Qdrant compresses the token vectors, for what it keeps of them besides.
            options: options of the class.

        Raises:
            InputError: see the class.
            HostError: see the class; or there is such a collection already.
        """
        tokens = models.VectorParams(
            **vector_of(coder.codec.dim, float16),
            multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            hnsw_config=models.HnswConfigDiff(m=0),
            quantization_config=quantization_config,
        )
        row = models.VectorParams(**vector_of(coder.row_dim, float16), hnsw_config=index_of(coder, hnsw_config))
        names = options.get("vector_column", VECTOR_COLUMN), options.get("tokens_column", TOKENS_COLUMN)
        with host_errors(collection):
            client.create_collection(collection, dict(zip(names, (row, tokens), strict=True)))
        return cls(coder, client, collection, **options)._with_indexes(indexes)

    @classmethod
    def adopt(cls, *_: Any, **__: Any) -> NoReturn:
        """Refused: Qdrant adds no multivector without an index to a collection that is there.

        Raises:
            InputError: always.
        """
        raise InputError(
            "a multivector cannot be added to a collection that there is; make a new one with "
            "QdrantMultivectorRows.create, and write the rows there (write_coded)"
        )

    def search(
        self,
        query: str,
        k: int = 10,
        where: models.Filter | Mapping[str, Any] | None = None,
        *,
        candidates: int | None = None,
        exact: bool = False,
    ) -> RowHits:
        """The rows with the nearest row vectors, ranked by MaxSim in Qdrant. See `RowSearch.search`.

        Args:
            query: question or keywords.
            k: number of hits, 1 or more. Fewer come only if the filter allows fewer.
            where: a `models.Filter`, or the same as a dict; None for no filter.
            candidates: number of row vectors that Qdrant looks for; None: as the store was made. At least ``k``.
            exact: compare all row vectors, without Qdrant's index.

        Raises:
            InputError: an empty query, or a number below 1.
            HostError: the server cannot be reached, or refuses.
        """
        check_whole("k", k)
        wanted = max(k, self.candidates if candidates is None else check_whole("candidates", candidates))
        started = time.perf_counter()
        coded = self.coder.encode_query(query)
        encoded = time.perf_counter()
        rows = self._ranked_rows(coded, k, wanted, where, exact)
        if len(rows) < k and not exact:
            exact, rows = True, self._ranked_rows(coded, k, wanted, where, True)
        uncoded, without = self._uncoded_rows(Nearest(rows), k, where)
        hits = RowHits(
            RowHit(row.id, row.score / len(coded.vectors), 0, np.nan, row.text, row.fields)
            for row in [*rows, *without[: k - len(rows)]]
        )
        hits.candidates, hits.exact, hits.uncoded, hits.truncated = len(rows), exact, uncoded, coded.truncated
        done = time.perf_counter()
        hits.stages = {"encode": 1000 * (encoded - started), "database": 1000 * (done - encoded), "maxsim": 0.0}
        return hits

    def _ranked_rows(
        self,
        query: CodedQuery,
        k: int,
        candidates: int,
        where: models.Filter | Mapping[str, Any] | None,
        exact: bool,
    ) -> list[FoundRow]:
        with self._asking(where) as chosen:
            found = self.client.query_points(
                self.collection,
                prefetch=models.Prefetch(
                    query=query.row_vector.tolist(),
                    using=self.vector_column,
                    limit=candidates,
                    filter=self._with_codes(chosen),
                    params=self._params(candidates, exact),
                ),
                query=query.vectors.tolist(),
                using=self.tokens_column,
                limit=k,
                with_payload=self._asked([], self.with_text),
                timeout=self._timeout,
            )
        rows = [self._found(point, point.score)._replace(codes=b"") for point in found.points]  # it has some
        return sorted(rows, key=lambda row: (-row.score, str(row.id)))

    def _point(self, row: CodedRow, before: models.Record | None) -> models.PointStruct:
        point: Any = super()._point(row, before)
        (tokens,) = self.coder.decode([row.codes], rows=[row.id])
        point.vector[self.tokens_column] = tokens.tolist()
        return point

    def _has_vectors(self) -> list[Any]:
        return [*super()._has_vectors(), models.HasVectorCondition(has_vector=self.tokens_column)]

    def _check_vectors(self, found: Mapping[str, models.VectorParams]) -> None:
        super()._check_vectors(found)
        if self.tokens_column not in found:
            raise HostError(
                f"{self.place} has no vector {self.tokens_column!r}, only {sorted(found)}; "
                "QdrantMultivectorRows.create makes a collection with it"
            )
        tokens, dim = found[self.tokens_column], self.coder.codec.dim
        if tokens.multivector_config is None or tokens.distance != models.Distance.DOT or tokens.size != dim:
            raise InputError(
                f"{self.place}: {self.tokens_column!r} is no multivector of {dim} dimensions that is compared by Dot; "
                "name another tokens_column"
            )
