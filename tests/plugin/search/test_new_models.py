"""A table that gets another model while it is searched: who opened it without a model goes on with the new one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tansaku import Encoder, Index, ModelMismatchError, Reranker, Searcher
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.model import Models
from tansaku.indexer.table.table import open_index_table
from tansaku.plugin.search.latest_searcher import LatestSearcher

from ...support.fakes import FakeEncoder, NewerEncoder, corpus, make_findable

pytestmark = pytest.mark.integration

DOCS = corpus(30)
QUERY = "3a9f"


@pytest.fixture
def models(monkeypatch):
    """The models that are known on this machine: the earlier and the newer one."""
    earlier, newer = FakeEncoder(), NewerEncoder()
    make_findable(monkeypatch, earlier, newer)
    return earlier, newer


@pytest.fixture
def db(tmp_path, models):
    Index.create(tmp_path, "t", DOCS, encoder=models[0])
    return tmp_path


@pytest.fixture
def searcher(db):
    return Searcher.open(db, "t")


def change_model(db):
    Index.open(db, "t").rebuild(encoder=NewerEncoder())


def found(searcher, query=QUERY):
    return [(hit.id, pytest.approx(hit.score, abs=1e-6)) for hit in searcher.search(query)]


def newer_hits(db, query=QUERY):
    return found(Searcher.open(db, "t", encoder=NewerEncoder()), query)


def test_a_refresh_brings_the_new_model(db, searcher, models):
    before = found(searcher)
    change_model(db)
    assert found(searcher) == before
    assert searcher.refresh()
    assert searcher.encoder is models[1]
    assert found(searcher) == newer_hits(db) != before
    assert not searcher.refresh()


def test_a_model_that_was_given_stays(db, models):
    searcher = Searcher.open(db, "t", encoder=models[0])
    before = found(searcher)
    change_model(db)
    with pytest.raises(ModelMismatchError, match="rebuild --change-model"):
        searcher.refresh()
    assert found(searcher) == before


def test_a_model_that_is_not_known_yet_leaves_the_earlier_answers(db, searcher, models, monkeypatch):
    before = found(searcher)
    change_model(db)
    make_findable(monkeypatch, models[0])
    for _ in range(2):
        with pytest.raises(ModelMismatchError, match="TANSAKU_MODELS"):
            searcher.refresh()
    assert found(searcher) == before
    make_findable(monkeypatch, *models)
    assert searcher.refresh()
    assert found(searcher) == newer_hits(db)


def test_searches_are_answered_while_the_new_model_is_loaded(db, searcher, monkeypatch):
    before = found(searcher)
    change_model(db)
    find, answers = Models.find, []

    def slowly(self, index):
        answers.append(found(searcher))
        return find(self, index)

    monkeypatch.setattr(Models, "find", slowly)
    searcher.refresh()
    assert answers == [before]


def test_a_query_is_never_encoded_by_one_model_and_scored_by_another(db, searcher, models, monkeypatch):
    encode = models[0].encode_query_tokens
    before = found(searcher)
    change_model(db)

    def encode_and_refresh(tokenized):
        vectors = encode(tokenized)
        searcher.refresh()
        return vectors

    monkeypatch.setattr(models[0], "encode_query_tokens", encode_and_refresh)
    for expected in (before, newer_hits(db)):
        (hits,) = searcher.search_many([QUERY])
        assert [(hit.id, pytest.approx(hit.score, abs=1e-6)) for hit in hits] == expected


def test_a_search_whose_version_is_gone_is_made_again_with_the_new_model(db, searcher):
    found(searcher)
    change_model(db)
    Index.open(db, "t").optimize(timedelta(0))
    assert found(searcher) == newer_hits(db)


def test_a_reranker_ranks_codes_and_texts_by_one_model(db, searcher):
    reranker = Reranker(searcher=searcher)
    change_model(db)
    searcher.refresh()
    texts, ids = [doc["text"] for doc in DOCS[:4]], [DOCS[0]["id"], DOCS[1]["id"], None, None]
    expected = {r.index: r.score for r in Reranker(NewerEncoder()).rerank(QUERY, texts)}
    for ranked in reranker.rerank(QUERY, texts, ids=ids):
        assert ranked.score == pytest.approx(expected[ranked.index], abs=0.02 if ranked.index < 2 else 1e-6)


def test_a_model_is_loaded_once_for_tables_that_are_opened_together(db, models, monkeypatch):
    Index.create(db, "u", DOCS, encoder=models[0])
    monkeypatch.setattr(Encoder, "load", lambda path, threads=None: FakeEncoder())
    shared = Models()
    first, second = (Searcher(open_index_table(connect(db), name), shared) for name in ("t", "u"))
    assert first.encoder is second.encoder is not Searcher.open(db, "t").encoder


def test_an_index_writes_with_the_new_model(db, models):
    index = Index.open(db, "t")
    index.add([{"id": "before", "text": "zzz"}])
    change_model(db)
    index.add([{"id": "after", "text": "qqqq"}])
    assert index.encoder is models[1]
    assert newer_hits(db, "qqqq")[0][0] == "after"


def test_a_latest_searcher_is_opened_again(db):
    current: list[FakeEncoder] = [FakeEncoder()]
    latest = LatestSearcher(lambda: Searcher.open(db, "t", encoder=current[-1]))
    before = found(latest())
    change_model(db)
    with pytest.raises(ModelMismatchError):
        latest()
    current.append(NewerEncoder())
    assert found(latest()) == newer_hits(db) != before
