"""Indexes of token vectors that were made elsewhere, and indexes that load no model until one is needed."""

from __future__ import annotations

import lancedb
import numpy as np
import pytest

from tansaku import Encoder, Index, InputError, ModelMismatchError, Rejects, ResumeError, Searcher, SourceError
from tansaku.indexer.table import model

from ..support.fakes import (
    DIM,
    FakeEncoder,
    KilledError,
    after,
    built,
    comparable,
    corpus,
    exhaustive,
    noted_in,
    rows_by_id,
    small_chunks,
    stored,
)

DOCS = corpus(30)
VECTORS = [FakeEncoder().vectors(d["text"]) for d in DOCS]
IDS = [{"id": d["id"]} for d in DOCS]
QUERY = FakeEncoder().vectors("3a9f")


@pytest.fixture
def db(tmp_path):
    return tmp_path / "db"


@pytest.fixture
def index(db):
    return Index.create_from_vectors(db, "t", IDS, VECTORS)


@pytest.fixture
def no_model(monkeypatch):
    """Loading a model fails."""

    def load(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Encoder, "load", load)


class TestCreate:
    def test_is_the_index_that_the_model_makes_of_the_texts(self, db, no_model):
        Index.create(db, "texts", DOCS, encoder=FakeEncoder())
        made = Index.create_from_vectors(db, "t", DOCS, VECTORS, encoder=FakeEncoder())
        assert comparable(stored(db)) == comparable(stored(db, "texts"))
        assert (built(made).rows, built(made).tokens) == (30, sum(map(len, VECTORS)))
        assert Searcher.open(db, "t", encoder=FakeEncoder()).search("3a9f")

    def test_without_a_model_vectors_are_searched(self, db, index, no_model):
        searcher = Searcher.open(db, "t")
        assert [hit.id for hit in searcher.search_vectors(QUERY, 5, recall="exact")] == [
            doc_id for doc_id, _ in exhaustive(db, QUERY)[:5]
        ]
        with pytest.raises(InputError, match=r"made from vectors.*search_vectors"):
            searcher.search("3a9f")

    def test_a_model_that_is_not_the_vectors_own_is_refused(self, db, index):
        for opening in (Index.open, Searcher.open):
            with pytest.raises(ModelMismatchError, match="given vectors"):
                opening(db, "t", encoder=FakeEncoder())

    def test_texts_titles_and_columns_are_kept(self, db):
        documents = [{"id": 1, "text": "京都", "year": 794}, {"_id": "b", "title": "奈良"}, {"id": "c", "text": None}]
        Index.create_from_vectors(db, "t", documents, VECTORS[:3], fulltext=True)
        rows = rows_by_id(db)
        assert [(rows[i]["text"], rows[i]["title"], rows[i]["year"]) for i in ("1", "b", "c")] == [
            ("京都", "", 794),
            ("", "奈良", None),
            ("", "", None),
        ]
        hits = Searcher.open(db, "t").search_vectors(QUERY, where="year < 800")
        assert [hit.id for hit in hits] == ["1"]

    def test_lists_and_other_floats_are_the_same(self, db, index):
        for form in ([m.tolist() for m in VECTORS], [m.astype(np.float64) for m in VECTORS]):
            Index.create_from_vectors(db, "other", iter(IDS), form, overwrite=True)
            assert comparable(stored(db, "other")) == comparable(stored(db))

    def test_vectors_are_pooled(self, db):
        pytest.importorskip("scipy")
        Index.create_from_vectors(db, "t", IDS, VECTORS, pool=2)
        assert stored(db)["token_count"].to_pylist() == [1 + max(1, (len(m) - 1) // 2) for m in VECTORS]

    @pytest.mark.parametrize(
        ("documents", "vectors", "named"),
        [
            (IDS, [], "no vectors"),
            (IDS, VECTORS[:-1], "more documents than matrices of vectors"),
            (IDS[:-1], VECTORS, "29 documents and 30 matrices"),
            (IDS[:2], [VECTORS[0], VECTORS[1][0]], r"document 1: the vectors of 'd1' have shape \(16,\)"),
            (IDS[:2], [VECTORS[0], VECTORS[1][:, :8]], r"'d1' have shape \(\d, 8\), expected \(tokens, 16\)"),
            (IDS[:2], [VECTORS[0], [["a"]]], "'d1' are not an array of numbers"),
            (IDS[:2], [VECTORS[0], 2 * VECTORS[1]], "'d1' has vectors that are not of unit length"),
            (IDS[:2], [VECTORS[0], np.full((2, DIM), np.nan)], "'d1' has vectors that are not finite"),
            (IDS[:2], [VECTORS[0], np.empty((0, DIM))], "'d1' has no vectors"),
            ([IDS[0], IDS[0]], VECTORS[:2], "occurs twice"),
            ([{"text": "a"}], VECTORS[:1], "no field 'id'"),
        ],
    )
    def test_what_cannot_be_indexed_is_named(self, db, documents, vectors, named):
        with pytest.raises(InputError, match=named):
            Index.create_from_vectors(db, "t", documents, vectors)
        assert not db.exists()

    def test_what_cannot_be_indexed_may_be_rejected(self, db, tmp_path):
        vectors = [*VECTORS[:3], 2 * VECTORS[3], VECTORS[4][:, :8], *VECTORS[5:]]
        with Rejects(tmp_path / "rejects") as rejects:
            made = Index.create_from_vectors(db, "t", IDS, vectors, rejects=rejects)
        assert [noted["record"]["id"] for noted in noted_in(rejects)] == ["d4", "d3"]
        assert len(made) == 28
        assert sorted(rows_by_id(db)) == sorted({d["id"] for d in DOCS} - {"d3", "d4"})
        for doc_id, row in rows_by_id(db).items():
            assert row["token_count"] == len(VECTORS[int(doc_id[1:])])


class TestChanges:
    def test_later_vectors_are_added_and_replaced(self, db, index, no_model):
        late = FakeEncoder().vectors("late")
        opened = Index.open(db, "t")
        assert opened.add([{"id": "late"}], vectors=[late]).rows == 1
        assert Searcher.open(db, "t").search_vectors(late, 1)[0].id == "late"
        assert opened.upsert([{"id": "late"}, {"id": "d1"}], vectors=[VECTORS[0], late]).updated == 2
        assert Searcher.open(db, "t").search_vectors(late, 1)[0].id == "d1"
        with pytest.raises(SourceError, match="1 documents and 2 matrices"):
            opened.add([{"id": "x"}], vectors=VECTORS[:2])
        with pytest.raises(InputError, match="'d1' is in the index already"):
            opened.add([{"id": "d1"}], vectors=[late])
        assert opened.delete(["late"]).rows == 1

    def test_texts_need_a_model(self, db, index):
        before = stored(db)
        with pytest.raises(InputError, match=r"made from vectors.*vectors="):
            Index.open(db, "t").add([{"id": "x", "text": "京都"}])
        with pytest.raises(InputError, match=r"made from vectors.*create_from_vectors"):
            index.rebuild()
        assert stored(db).equals(before)

    def test_vectors_come_into_an_index_of_texts(self, db):
        index = Index.create(db, "t", DOCS, encoder=FakeEncoder())
        assert Index.open(db, "t").add([{"id": "x"}], vectors=[QUERY]).rows == 1
        assert Searcher.open(db, "t", encoder=FakeEncoder()).search("3a9f", 1)[0].id == "x"
        with pytest.raises(InputError, match="document 'x' was added as vectors, without a text"):
            index.rebuild()
        index.delete(["x"])
        assert index.rebuild().rows == 30

    def test_not_into_one_of_passages(self, db):
        Index.create(db, "t", DOCS, encoder=FakeEncoder(), passage_tokens=8)
        with pytest.raises(InputError, match="divides documents into passages"):
            Index.open(db, "t").add([{"id": "x"}], vectors=[QUERY])


class TestResume:
    def test_goes_on_with_the_same_vectors_only(self, db, monkeypatch):
        small_chunks(monkeypatch)

        def create(vectors, progress=None):
            return Index.create_from_vectors(db, "t", IDS, vectors, progress=progress)

        with pytest.raises(KilledError):
            create(VECTORS, after(19, lambda *of: None))
        with pytest.raises(ResumeError, match="the documents have changed"):
            create([*VECTORS[:-1], VECTORS[-1][::-1]])
        made = create(VECTORS)
        assert built(made).resumed > 0
        Index.create_from_vectors(db, "whole", IDS, VECTORS)
        assert comparable(stored(db)) == comparable(stored(db, "whole"))


class TestModelOnDemand:
    def test_only_texts_need_one(self, db, no_model, monkeypatch):
        Index.create(db, "t", DOCS, encoder=FakeEncoder())
        index = Index.open(db, "t")
        assert len(index) == 30
        assert index.info().model == "fake"
        assert index.delete(["d1"]).rows == 1
        index.optimize()
        monkeypatch.setattr(model, "find_bundle", lambda _: "its folder")
        with pytest.raises(AssertionError, match="a model was loaded"):
            index.add([{"id": "x", "text": "京都"}])

    def test_it_is_looked_for_then(self, db, no_model, monkeypatch):
        Index.create(db, "t", DOCS, encoder=FakeEncoder())
        index = Index.open(db, "t")
        actions = (
            lambda: index.encoder,
            lambda: index.add([{"id": "x", "text": "京都"}]),
            lambda: index.upsert([{"id": "x", "text": "京都"}]),
            index.rebuild,
        )
        for action in actions:
            with pytest.raises(ModelMismatchError, match=r"'fake'.*'tansaku-ja-small'"):
                action()
        assert len(index) == 30
        monkeypatch.setattr(model, "find_bundle", lambda _: "its folder")
        monkeypatch.setattr(Encoder, "load", lambda *_, **__: FakeEncoder())
        assert index.encoder is index.encoder
        assert index.add([{"id": "x", "text": "京都"}]).rows == 1

    def test_one_that_is_given_is_checked_at_once(self, db):
        Index.create(db, "t", DOCS, encoder=FakeEncoder())
        with pytest.raises(ModelMismatchError):
            Index.open(db, "t", encoder=FakeEncoder("another"))


class TestStorageOptions:
    def test_reach_the_object_store(self, monkeypatch):
        given = []

        def connect(uri, storage_options=None):
            given.append((uri, storage_options))
            raise RuntimeError("no such store")

        monkeypatch.setattr(lancedb, "connect", connect)
        options = {"aws_endpoint": "http://127.0.0.1:1"}
        for make in (
            lambda: Index.create("s3://b/db", "t", DOCS, encoder=FakeEncoder(), storage_options=options),
            lambda: Index.create_from_vectors("s3://b/db", "t", IDS, VECTORS, storage_options=options),
            lambda: Index.open("s3://b/db", "t", storage_options=options),
            lambda: Searcher.open("s3://b/db", "t", storage_options=options),
        ):
            with pytest.raises(Exception, match="no such store"):
                make()
        assert given == [("s3://b/db", options)] * 4

    def test_a_connection_has_its_own(self, db, index):
        with pytest.raises(InputError, match="storage options were given with a connection"):
            Index.open(lancedb.connect(str(db)), "t", storage_options={"region": "x"})
