"""`RowSearch`: any database, by a function that gives the nearest rows."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest

from tansaku import CodedDocument, Coder, CodesError, FoundRow, InputError, RowSearch

TEXTS = {
    "kyoto": "京都は794年から都だった。",
    "nara": "奈良の大仏は752年に開眼した。",
    "dog": "犬は嗅覚が鋭い動物である。",
    "rain": "北海道には梅雨がない。",
}
QUESTION = "昔の首都はどこ？"


@pytest.fixture(scope="module")
def coder() -> Coder:
    return Coder()


@pytest.fixture(scope="module")
def coded(coder: Coder) -> dict[str, CodedDocument]:
    return dict(zip(TEXTS, coder.encode_documents(list(TEXTS.values())), strict=True))


class Database:
    """Rows in a dict; keeps what it was asked."""

    def __init__(self, coded: dict[str, CodedDocument]) -> None:
        self.coded = coded
        self.asked: list[tuple[int, Any]] = []
        self.without: list[FoundRow] = []

    def nearest(self, vector: np.ndarray, n: int, where: Any) -> list[FoundRow]:
        self.asked.append((n, where))
        rows = [
            FoundRow(name, one.codes, float(one.row_vector @ vector), TEXTS[name], {"length": len(TEXTS[name])})
            for name, one in self.coded.items()
            if where is None or name in where
        ]
        return [*sorted(rows, key=lambda row: -row.score)[:n], *self.without]


@pytest.fixture
def database(coded: dict[str, CodedDocument]) -> Database:
    return Database(coded)


def test_hits_are_in_the_order_of_maxsim(coder: Coder, coded: dict[str, CodedDocument], database: Database):
    hits = RowSearch(coder, database.nearest).search(QUESTION, 3)
    query = coder.encode_query(QUESTION)
    scores = coder.score(query, [one.codes for one in coded.values()]) / len(query.vectors)
    expected = sorted(zip(coded, scores.tolist(), strict=True), key=lambda pair: -pair[1])[:3]
    assert [hit.id for hit in hits] == [name for name, _ in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-6)
    by_rows = [row.id for row in database.nearest(query.row_vector, 4, None)]
    for hit in hits:
        assert hit.row_rank == by_rows.index(hit.id) + 1
        assert hit.row_score == pytest.approx(float(coded[str(hit.id)].row_vector @ query.row_vector), rel=1e-5)
        assert (hit.text, hit.fields) == (TEXTS[str(hit.id)], {"length": len(TEXTS[str(hit.id)])})
    assert (hits.candidates, hits.uncoded, hits.exact, hits.truncated) == (4, 0, False, False)
    assert set(hits.stages) == {"encode", "database", "maxsim"}


def test_the_function_gets_number_and_filter(coder: Coder, database: Database):
    search = RowSearch(coder, database.nearest, candidates=3)
    assert [hit.id for hit in search.search(QUESTION, 2, ["dog"])] == ["dog"]
    search.search(QUESTION, 5)
    search.search(QUESTION, 1, candidates=2)
    assert database.asked == [(3, ["dog"]), (5, None), (2, None)]


def test_tuples(coder: Coder, coded: dict[str, CodedDocument]):
    """A database that gives no more than ids and codes; more rows than were asked for are cut off."""
    search = RowSearch(coder, lambda vector, n, where: ((i, one.codes) for i, one in enumerate(coded.values())))
    hits = search.search(QUESTION)
    assert sorted(hit.id for hit in hits) == [0, 1, 2, 3]
    assert hits[0].id == 0
    assert math.isnan(hits[0].row_score)
    assert (hits[0].text, hits[0].fields) == (None, {})
    assert search.search(QUESTION, 1, candidates=2).candidates == 2


def test_rows_without_codes_come_last(coder: Coder, database: Database):
    database.without = [FoundRow("owl", None, 0.5, "梟"), FoundRow("whale", None)]
    hits = RowSearch(coder, database.nearest).search(QUESTION, 5)
    assert [hit.id for hit in hits][-1] == "owl"
    assert (len(hits), hits.uncoded, hits.candidates) == (5, 2, 4)
    assert (math.isnan(hits[-1].score), hits[-1].row_rank, hits[-1].text) == (True, 0, "梟")


def test_nothing_found(coder: Coder):
    hits = RowSearch(coder, lambda vector, n, where: []).search(QUESTION)
    assert (hits, hits.candidates, hits.uncoded) == ([], 0, 0)


def test_many_queries_and_an_event_loop(coder: Coder, database: Database):
    search = RowSearch(coder, database.nearest)
    questions = [QUESTION, "大仏", "梅雨がないのはどこですか"]
    found = search.search_many(questions, 1)
    assert [hits[0].id for hits in found] == ["kyoto", "nara", "rain"]

    async def work() -> list[Any]:
        return await asyncio.gather(*(search.asearch(question, 1) for question in questions))

    assert asyncio.run(work()) == found
    with pytest.raises(InputError, match="give a list"):
        search.search_many(QUESTION)


def test_a_query_that_is_too_long_says_so(coder: Coder, database: Database):
    assert RowSearch(coder, database.nearest).search("京都" * 3000, 1).truncated


def test_errors(coder: Coder, database: Database, coded: dict[str, CodedDocument]):
    search = RowSearch(coder, database.nearest)
    for query, k, candidates in ((" ", 1, 1), ("犬", 0, 1), ("犬", 1, 0)):
        with pytest.raises(InputError):
            search.search(query, k, candidates=candidates)
    with pytest.raises(InputError, match="exact"):
        search.search("犬", exact=True)
    with pytest.raises(InputError, match="nearest is of type str"):
        RowSearch(coder, "docs")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"Coder\(\)"):
        RowSearch(None, database.nearest)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="candidates"):
        RowSearch(coder, database.nearest, candidates=0)
    for given, said in ((None, "let it return"), ([5], "FoundRows, or tuples"), ([("kyoto",)], "FoundRows, or tuples")):
        with pytest.raises(InputError, match=said):
            RowSearch(coder, lambda vector, n, where, given=given: given).search("犬")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CodesError, match="row 'kyoto'"):
        RowSearch(coder, lambda vector, n, where: [("kyoto", coded["kyoto"].codes[:50])]).search("犬")


def test_what_the_function_raises_comes_through(coder: Coder):
    def down(vector: np.ndarray, n: int, where: Any) -> list[FoundRow]:
        raise ConnectionError("no route to the database")

    with pytest.raises(ConnectionError, match="no route"):
        RowSearch(coder, down).search("犬")
