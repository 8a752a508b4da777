"""Tests that every `RowStore` passes; an adapter of your own can too. They need pytest.

```python
from tansaku.plugin.hosts.rows.conformance import RowStoreTests

class TestMyRows(RowStoreTests[MyRows]):
    def make_store(self, coder, folder, **options):
        return MyRows.create(coder, folder / "db", "docs", columns={"year": "INTEGER", "note": "TEXT"}, **options)

    def year_is(self, year):
        return f"year = {year}"
```
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pytest

from ....onnx_export.errors import InputError
from ...rows.code_bytes import CodesError
from ...rows.coder import Coder
from ...rows.row_search import RowId
from ...rows.row_store import CodedRow, RowStore
from .numpy import NumpyRows

__all__ = ["RowStoreTests", "random_operations", "random_rows"]

DOCUMENTS = [
    {"id": "kyoto", "text": "京都は794年から都だった。", "year": 794, "note": "都"},
    {"id": "nara", "text": "奈良の大仏は752年に開眼した。", "year": 752, "note": "寺"},
    {"id": "dog", "text": "犬は嗅覚が鋭い動物である。", "year": 2020, "note": "動物"},
    {"id": "rain", "text": "北海道には梅雨がない。", "year": 2020, "note": "天気"},
    {"id": "sushi", "text": "寿司は酢飯と魚介類の料理である。", "year": None, "note": "料理"},
]
QUESTIONS = {
    "昔の首都はどこ？": "kyoto",
    "大仏はいつできた": "nara",
    "においに敏感な生き物": "dog",
    "梅雨がないのはどこですか": "rain",
    "酢飯の料理": "sushi",
}
_HARD_IDS = [
    "東京",
    "a b",
    "it's",
    '"quoted"',
    "'; DROP TABLE docs; --",
    "100%_",
    "back\\slash",
    "\u00e9",
    "e\u0301",
    "🍣",
    "x" * 200,
]


@cache
def shared_coder() -> Coder:
    """The coder of all tests: the model inside tansaku."""
    return Coder()


Store = TypeVar("Store", bound=RowStore[Any])


class RowStoreTests(ABC, Generic[Store]):
    """The tests; a subclass says how a table is made.

    Attributes:
        keeps_columns: an upsert leaves columns alone that a document does not give.
        nulls: a column can be NULL.
        n_operations: number of random operations that are compared with a plain dict.
    """

    keeps_columns = True
    nulls = True
    n_operations = 120

    @abstractmethod
    def make_store(self, coder: Coder, folder: Path, **options: Any) -> Store:
        """A store of an empty table, in a new folder, with columns `year` (whole numbers) and `note` (text)."""

    @abstractmethod
    def year_is(self, year: int) -> Any:
        """A filter: `year` is this one."""

    def reopen(self, store: Store) -> Store:
        """Another store of the same table, as another program would open it."""
        pytest.skip("this database is opened once")

    def write_uncoded(self, store: Store, records: Sequence[Mapping[str, Any]]) -> None:
        """Write rows without codes, by the database's own client."""
        pytest.skip("this database has no rows without vectors")

    def write_codes(self, store: Store, row_id: RowId, codes: bytes) -> None:
        """Write other codes into a row, by the database's own client."""
        pytest.skip("not known how to damage a row")

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """A store with `DOCUMENTS`."""
        store = self.make_store(shared_coder(), tmp_path, fields=["year", "note"])
        store.add(self.documents())
        return store

    def documents(self) -> list[dict[str, Any]]:
        """`DOCUMENTS`, without nulls where the database has no nulls."""
        return [
            {name: value for name, value in record.items() if value is not None or self.nulls} for record in DOCUMENTS
        ]

    @pytest.mark.parametrize(("question", "best"), QUESTIONS.items())
    def test_the_right_document_comes_first(self, store: Store, question: str, best: str) -> None:
        """Each question finds its document."""
        hits = store.search(question)
        assert hits[0].id == best
        assert len(hits) == len(DOCUMENTS)
        assert hits.uncoded == 0
        assert hits.candidates == len(DOCUMENTS)

    def test_scores_are_those_of_the_coder(self, store: Store) -> None:
        """Scores are mean cosines over the codes, and fall; the row scores are inner products."""
        coder = store.coder
        texts = {record["id"]: record["text"] for record in DOCUMENTS}
        query = coder.encode_query("昔の首都はどこ？")
        coded = dict(zip(texts, coder.encode_documents(list(texts.values())), strict=True))
        hits = store.search("昔の首都はどこ？", exact=True)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            one = coded[str(hit.id)]
            assert hit.score == pytest.approx(coder.score(query, [one.codes])[0] / len(query.vectors), abs=1e-6)
            if not np.isnan(hit.row_score):
                expected = float(one.row_vector @ query.row_vector)
                assert hit.row_score == pytest.approx(expected, rel=0.02, abs=0.02)  # float16 is allowed

    def test_hits_bring_text_and_fields(self, store: Store) -> None:
        """What was written comes back."""
        best = store.search("昔の首都はどこ？", k=1)[0]
        assert (best.text, best.fields["year"], best.fields["note"]) == ("京都は794年から都だった。", 794, "都")

    def test_a_filter_of_the_database(self, store: Store) -> None:
        """All rows that the filter allows, and no others; also if these are fewer than were asked for."""
        assert {hit.id for hit in store.search("昔の首都はどこ？", where=self.year_is(2020))} == {"dog", "rain"}
        assert store.search("昔の首都はどこ？", where=self.year_is(1)) == []
        assert store.count(self.year_is(2020)) == 2
        assert store.count() == len(store) == len(DOCUMENTS)

    def test_an_id_that_is_there(self, store: Store) -> None:
        """`add` refuses it and writes nothing of the batch."""
        with pytest.raises(InputError, match="kyoto"):
            store.add([{"id": "new", "text": "新しい"}, {"id": "kyoto", "text": "別の文"}])
        assert store.count() == len(DOCUMENTS)
        assert store.search("昔の首都はどこ？", k=1)[0].text == "京都は794年から都だった。"

    def test_upsert(self, store: Store) -> None:
        """Vector, codes and text change together; columns that are not given stay."""
        report = store.upsert(
            [{"id": "dog", "text": "鯨は海に住む大きな哺乳類である。"}, {"id": "owl", "text": "梟は夜に飛ぶ鳥である。"}]
        )
        assert report.written == 2
        best = store.search("海の哺乳類", k=1)[0]
        assert best.id == "dog"
        if self.keeps_columns:
            assert best.fields["year"] == 2020
        assert store.search("夜の鳥", k=1)[0].id == "owl"
        assert store.count() == len(DOCUMENTS) + 1
        assert "嗅覚" not in (store.explain("犬", "dog").text)

    def test_an_upsert_of_rows_with_different_columns(self, store: Store) -> None:
        """A column that one row of the batch gives stays as it is in another that does not give it."""
        store.upsert([{"id": "dog", "text": "犬", "year": 1}, {"id": "rain", "text": "雨", "note": "水"}])
        found = {hit.id: (hit.fields["year"], hit.fields["note"]) for hit in store.search("雨", k=50)}
        if self.keeps_columns:
            assert (found["dog"], found["rain"]) == ((1, "動物"), (2020, "水"))
        assert found["kyoto"] == (794, "都")

    def test_delete(self, store: Store) -> None:
        """By ids and by the database's filter; what was there is counted."""
        assert store.delete(["kyoto", "nobody", "kyoto"]) == 1
        assert store.delete(where=self.year_is(2020)) == 2
        assert {hit.id for hit in store.search("都")} == {"nara", "sushi"}
        with pytest.raises(InputError, match="ids or where"):
            store.delete()
        assert store.delete([]) == 0

    def test_hard_ids_and_texts(self, tmp_path: Path) -> None:
        """Ids and texts come back as they were; no part of them is a command."""
        store = self.make_store(shared_coder(), tmp_path)
        store.add([{"id": row_id, "text": f"{row_id} の文書"} for row_id in _HARD_IDS])
        hits = store.search("文書", k=50)
        assert {hit.id for hit in hits} == set(_HARD_IDS)
        assert {hit.text for hit in hits} == {f"{row_id} の文書" for row_id in _HARD_IDS}
        for row_id in _HARD_IDS:
            assert store.explain("文書", row_id).id == row_id
        assert store.delete(_HARD_IDS) == len(_HARD_IDS)
        assert store.count() == 0

    def test_an_empty_table(self, tmp_path: Path) -> None:
        """No rows, no hits."""
        store = self.make_store(shared_coder(), tmp_path)
        assert store.search("京都") == []
        assert store.count() == 0
        assert list(store.coded_rows()) == []
        assert store.fill().written == 0

    def test_bad_records(self, store: Store) -> None:
        """Each is refused by its place, and nothing is written."""
        for record, named in [
            ({"text": "文"}, "id"),
            ({"id": "", "text": "文"}, "id"),
            ({"id": "x", "text": " "}, "no text"),
            ({"id": "x"}, "no text"),
            ({"id": "x", "text": 5}, "text"),
            ({"id": "x", "text": "\ud800"}, "surrogate"),
            (7, "mappings"),
        ]:
            with pytest.raises(InputError, match=named):
                store.add([record])
        with pytest.raises(InputError, match="twice"):
            store.upsert([{"id": "x", "text": "文"}, {"id": "x", "text": "文"}])
        assert store.count() == len(DOCUMENTS)

    def test_bad_searches(self, store: Store) -> None:
        """Each is refused by name."""
        for query, k, candidates in ((" ", 1, 1), ("犬", 0, 1), ("犬", 1, 0)):
            with pytest.raises(InputError):
                store.search(query, k, candidates=candidates)
        with pytest.raises(InputError, match="nobody"):
            store.explain("犬", "nobody")

    def test_rows_without_codes(self, store: Store) -> None:
        """They are counted, come last, and `fill` encodes them."""
        self.write_uncoded(
            store, [{"id": "whale", "text": "鯨は海に住む大きな哺乳類である。", "year": 2020, "note": "海"}]
        )
        hits = store.search("海の哺乳類")
        assert hits.uncoded == store.count_without_codes() == 1
        assert hits[-1].id == "whale"
        assert np.isnan(hits[-1].score)
        assert len(hits) == store.count() == len(DOCUMENTS) + 1
        assert store.search("海の哺乳類", where=self.year_is(794)).uncoded == 0
        with pytest.raises(InputError, match="no codes"):
            store.explain("海", "whale")
        assert store.fill().written == 1
        hits = store.search("海の哺乳類")
        assert (hits[0].id, hits.uncoded) == ("whale", 0)
        assert hits[0].fields["year"] == 2020
        assert store.fill().written == 0

    def test_a_row_with_an_empty_text(self, store: Store) -> None:
        """`fill` counts it and leaves it; it is not met again and again."""
        self.write_uncoded(store, [{"id": "empty", "text": "", "year": 1, "note": ""}])
        report = store.fill()
        assert (report.written, report.empty) == (0, 1)
        assert store.count_without_codes() == store.search("犬").uncoded == 1
        store.upsert([{"id": "empty", "text": "鯨は海に住む。"}])
        assert store.count_without_codes() == 0

    def test_damaged_codes(self, store: Store) -> None:
        """An error names the row."""
        codes = bytearray(store.coder.encode_documents(["京都は794年から都だった。"])[0].codes)
        codes[40] ^= 1
        self.write_codes(store, "kyoto", bytes(codes))
        with pytest.raises(CodesError, match="kyoto"):
            store.search("都")
        store.upsert([DOCUMENTS[0]])
        assert store.search("昔の首都はどこ？", k=1)[0].id == "kyoto"

    def test_codes_of_another_codec(self, store: Store) -> None:
        """An error names the row and both codecs."""
        codec = store.coder.codec
        other = Coder(store.coder.encoder, codec=dataclasses.replace(codec, centroids=codec.centroids[::-1].copy()))
        self.write_codes(store, "kyoto", other.encode_documents(["京都"])[0].codes)
        with pytest.raises(CodesError, match=f"kyoto.*{other.codec_id}.*{codec.codec_id}"):
            store.search("都")

    def test_another_program_sees_the_rows(self, store: Store) -> None:
        """What one store writes another one finds."""
        other = self.reopen(store)
        assert other.count() == len(DOCUMENTS)
        assert other.search("昔の首都はどこ？", k=1)[0].id == "kyoto"

    def test_the_same_as_in_memory(self, store: Store) -> None:
        """All vectors compared, the order and the scores are those of plain NumPy."""
        model = NumpyRows(store.coder, fields=["year", "note"])
        model.add(self.documents())
        for question in QUESTIONS:
            expected = model.search(question)
            hits = store.search(question, exact=True)
            assert [hit.id for hit in hits] == [hit.id for hit in expected]
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)

    def test_more_rows_than_an_index_looks_at(self, tmp_path: Path) -> None:
        """All candidates that were asked for come, under a filter too."""
        store = self.make_store(shared_coder(), tmp_path, candidates=200)
        rows = random_rows(store.coder, 450)
        store.write_coded(rows)
        assert store.search("京都", k=200).candidates == 200
        found = store.search("京都", k=200, where=self.year_is(1))
        allowed = {row.id for row in rows if row.columns["year"] == 1}
        assert found.candidates == 150
        assert {hit.id for hit in found} == allowed
        assert len(store.search("京都", k=1000)) == 450

    def test_moving_rows(self, store: Store, tmp_path: Path) -> None:
        """Rows that are read can be written elsewhere, with the same vectors and codes."""
        moved = NumpyRows(store.coder, fields=["year", "note"])
        for rows in store.coded_rows(2):
            assert len(rows) <= 2
            moved.write_coded(rows)
        assert moved.count() == len(DOCUMENTS)
        for question in QUESTIONS:
            ours, theirs = (one.search(question, exact=True) for one in (store, moved))
            assert [hit.id for hit in ours] == [hit.id for hit in theirs]
        (tmp_path / "back").mkdir()
        back = self.make_store(store.coder, tmp_path / "back", fields=["year", "note"])
        for rows in moved.coded_rows():
            back.write_coded(rows)
        assert back.search("昔の首都はどこ？", k=1)[0].fields["year"] == 794

    def test_bad_coded_rows(self, store: Store) -> None:
        """They are refused before anything is written."""
        coded = store.coder.encode_documents(["鯨"])[0]
        row = CodedRow("whale", np.zeros(3, np.float32), coded.codes, {"text": "鯨"})
        with pytest.raises(InputError, match=r"whale.*3"):
            store.write_coded([row])
        row = row._replace(row_vector=np.full(store.coder.row_dim, np.nan, np.float32))
        with pytest.raises(InputError, match=r"whale.*not finite"):
            store.write_coded([row])
        row = row._replace(row_vector=coded.row_vector)
        with pytest.raises(InputError, match=r"whale.*twice"):
            store.write_coded([row, row])
        assert store.count() == len(DOCUMENTS)

    def test_in_an_event_loop(self, store: Store) -> None:
        """All verbs can be awaited."""

        async def work() -> tuple[int, list[RowId], int]:
            await store.aadd([{"id": "owl", "text": "梟は夜に飛ぶ鳥である。"}])
            hits = await asyncio.gather(*(store.asearch("夜の鳥", k=1) for _ in range(3)))
            return await store.acount(), [hit[0].id for hit in hits], await store.adelete(["owl"])

        assert asyncio.run(work()) == (len(DOCUMENTS) + 1, ["owl"] * 3, 1)

    def test_random_operations(self, tmp_path: Path) -> None:
        """A long random history leaves the same rows and hits as a plain dict."""
        store = self.make_store(shared_coder(), tmp_path, fields=["year", "note"])
        assert random_operations(self, store, self.n_operations, seed=29) == []


def random_operations(tests: RowStoreTests[Any], store: RowStore[Any], n: int, seed: int) -> list[str]:
    """Do random operations on a store and on rows in memory, and compare what they give.

    Args:
        tests: knows the store's filters.
        store: an empty store, with `fields` year and note.
        n: number of operations.
        seed: seed of the operations.

    Returns:
        A line for each difference.
    """
    draw = random.Random(seed)  # noqa: S311  a test
    model = NumpyRows(store.coder, fields=["year", "note"])
    differences: list[str] = []
    words = ["京都", "奈良", "犬", "雨", "寿司", "鯨", "梟", "寺", "海", "夜"]

    def record(row_id: str) -> dict[str, Any]:
        text = "".join(draw.choice(words) for _ in range(draw.randint(1, 6)))
        return {"id": row_id, "text": text, "year": draw.randint(1, 3), "note": draw.choice(words)}

    def compare(step: int, what: str, ours: Any, theirs: Any) -> None:
        if ours != theirs:
            differences.append(f"operation {step}, {what}: {ours!r:.200}, expected {theirs!r:.200}")

    for step in range(n):
        ids = [f"行{draw.randint(1, 40)}" for _ in range(draw.randint(1, 4))]
        kind = draw.choice(["add", "upsert", "upsert", "delete", "delete_where", "search", "search_where", "count"])
        year = draw.randint(1, 3)
        if kind in ("add", "upsert"):
            records = [record(row_id) for row_id in dict.fromkeys(ids)]
            results = []
            for one in (store, model):
                try:
                    results.append(getattr(one, kind)(records).written)
                except InputError:
                    results.append("refused")
            compare(step, kind, *results)
        elif kind == "delete":
            compare(step, kind, store.delete(ids), model.delete(ids))
        elif kind == "delete_where":
            if draw.random() < 0.3:
                theirs = model.delete(where=lambda row: row["year"] == year)  # noqa: B023  called at once
                compare(step, kind, store.delete(where=tests.year_is(year)), theirs)
        elif kind == "count":
            theirs = model.count(lambda row: row["year"] == year)  # noqa: B023  called at once
            compare(step, kind, (store.count(), store.count(tests.year_is(year))), (model.count(), theirs))
        else:
            where, of_model = None, None
            if kind == "search_where":
                where, of_model = tests.year_is(year), lambda row: row["year"] == year  # noqa: B023
            question = draw.choice(words)
            ours, theirs = store.search(question, 50, where), model.search(question, 50, of_model)
            compare(step, kind, _summary(ours), _summary(theirs))
    compare(n, "count at the end", store.count(), model.count())
    return differences


def _summary(hits: Sequence[Any]) -> list[tuple[Any, ...]]:
    return sorted(
        (hit.id, round(hit.score, 4), hit.text, dict(hit.fields)["year"], dict(hit.fields)["note"]) for hit in hits
    )


def random_rows(coder: Coder, n: int) -> list[CodedRow]:
    """Rows of four random token vectors each, always the same; `year` is 0, 1 or 2.

    Args:
        coder: the coder.
        n: number of rows.
    """
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(n, 4, coder.codec.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    coded = coder.code_vectors(list(vectors))
    return [
        CodedRow(f"{i:04}", one.row_vector, one.codes, {"text": f"文書{i}", "year": i % 3, "note": ""})
        for i, one in enumerate(coded)
    ]
