from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from tansaku import (
    Document,
    Encoder,
    Index,
    InputError,
    ModelMismatchError,
    NotAnIndexError,
    Searcher,
    TableNotFoundError,
)
from tansaku.plugin.cli.demo import SAMPLE
from tansaku.plugin.evaluation.judgements import judged_queries, read_qrels, read_queries

from ...support.fakes import FakeEncoder, corpus, exhaustive

ANIMALS = [
    {"id": "dog", "title": "犬", "text": "犬は人に飼われる動物で、嗅覚が鋭い。", "year": 2001},
    {"id": "cat", "title": "猫", "text": "猫は夜行性で、暗いところでも目が見える。", "year": 2002},
    {"id": "sea", "text": "海の水は塩辛く、地球の表面の七割を占める。"},
]


@pytest.fixture(scope="module")
def searcher(sample_db: Path, default_encoder: Encoder) -> Searcher:
    return Searcher.open(sample_db, "sample", encoder=default_encoder)


@pytest.fixture(scope="module")
def animals(default_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    db = tmp_path_factory.mktemp("animals")
    Index.create(db, "animals", ANIMALS, encoder=default_encoder)
    return Searcher.open(db, "animals", encoder=default_encoder)


@pytest.mark.integration
def test_finds_the_paragraph_a_question_was_asked_of(searcher: Searcher):
    qrels = read_qrels(SAMPLE / "qrels.tsv")
    queries = judged_queries(read_queries(SAMPLE / "queries.jsonl"), qrels)
    found = sum(searcher.search(text, k=1)[0].id in qrels[query_id] for query_id, text in queries.items())
    assert found / len(queries) >= 0.93


@pytest.mark.integration
def test_few_candidates_find_what_an_exhaustive_search_finds(searcher: Searcher):
    queries = list(read_queries(SAMPLE / "queries.jsonl").values())[:60]
    same = 0
    for vectors in searcher.encoder.encode_queries(queries):
        few, _ = searcher.rank_vectors(vectors, 3, candidates=60)
        all_of_them, _ = searcher.rank_vectors(vectors, 3, candidates=len(searcher))
        same += few[0] == all_of_them[0]
    assert same >= 59


def test_scores_are_maxsim_of_the_decoded_vectors(animals: Searcher, default_encoder: Encoder):
    query = default_encoder.encode_queries(["嗅覚が鋭い動物"])[0]
    uncompressed = default_encoder.encode_documents(["犬 " + ANIMALS[0]["text"]])[0]
    best = animals.search("嗅覚が鋭い動物", k=1, phrase_weight=0.0)[0]
    expected = (query.astype(float) @ uncompressed.astype(float).T).max(axis=1).sum()
    assert best.id == "dog"
    assert best.score == pytest.approx(expected, rel=0.05)


def test_hits_carry_title_text_and_the_callers_columns(animals: Searcher):
    dog, *others = animals.search("嗅覚が鋭い動物はどれ？")
    assert (dog.id, dog.title, dog.text, dog.fields) == ("dog", "犬", ANIMALS[0]["text"], {"year": 2001})
    sea = next(hit for hit in others if hit.id == "sea")
    assert (sea.title, sea.fields) == ("", {"year": None})


@pytest.mark.integration
def test_hits_come_best_first_and_no_more_than_k(searcher: Searcher):
    hits = searcher.search("石油はどうやってできたのか", k=7)
    assert len(hits) == 7
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.id for hit in hits}) == 7


def test_k_beyond_the_index_returns_every_document(animals: Searcher):
    assert {hit.id for hit in animals.search("動物", k=50)} == {"dog", "cat", "sea"}


def test_documents_added_later_are_found_after_opening_again(default_encoder: Encoder, tmp_path: Path):
    index = Index.create(tmp_path, "t", ANIMALS, encoder=default_encoder)
    before = Searcher.open(tmp_path, "t", encoder=default_encoder)
    index.add([{"id": "train", "text": "鉄道は線路の上を走る乗り物である。"}])
    after = Searcher.open(tmp_path, "t", encoder=default_encoder)
    assert after.search("線路を走る乗り物", k=1)[0].id == "train"
    assert "train" not in {hit.id for hit in before.search("線路を走る乗り物")}


def test_a_refresh_brings_what_was_written_since(default_encoder: Encoder, tmp_path: Path):
    index = Index.create(tmp_path, "t", ANIMALS, encoder=default_encoder)
    searcher = Searcher.open(tmp_path, "t", encoder=default_encoder)
    version = searcher.version
    assert searcher.refresh() is False
    index.upsert([{"id": "sea", "text": "海は広い。"}, {"id": "train", "text": "鉄道は線路の上を走る乗り物である。"}])
    index.delete(["cat"])
    assert (searcher.version, len(searcher)) == (version, 3)
    assert searcher.refresh() is True
    assert (searcher.version > version, len(searcher)) == (True, 3)
    found = {hit.id: hit.text for hit in searcher.search("線路を走る乗り物")}
    assert sorted(found) == ["dog", "sea", "train"]
    assert found["sea"] == "海は広い。"


def test_an_index_without_documents_finds_nothing(default_encoder: Encoder, tmp_path: Path):
    Index.create(tmp_path, "t", ANIMALS, encoder=default_encoder).delete(["dog", "cat", "sea"])
    for derived in (True, False):
        searcher = Searcher.open(tmp_path, "t", encoder=default_encoder, derived=derived)
        assert len(searcher) == 0
        assert searcher.search("動物") == []
        assert searcher.search("動物", candidates=1) == []


def test_of_equal_scores_the_first_written_comes_first(tmp_path: Path):
    encoder = FakeEncoder()
    index = Index.create(tmp_path, "t", [{"id": f"a{i}", "text": "same"} for i in range(9)], encoder=encoder)
    index.add([{"id": "0", "text": "same"}])
    searcher = Searcher.open(tmp_path, "t", encoder=encoder)
    assert [hit.id for hit in searcher.search("same", k=20)] == [*(f"a{i}" for i in range(9)), "0"]
    assert [hit.id for hit in searcher.search("same", k=3, candidates=4)] == ["a0", "a1", "a2"]


@pytest.mark.parametrize("derived", [True, False])
def test_an_exhaustive_search_ranks_as_the_stored_codes_do(tmp_path: Path, derived: bool):
    encoder = FakeEncoder()
    index = Index.create(tmp_path, "t", corpus(50), encoder=encoder)
    index.add(corpus(20, "e"))
    index.delete(["d3", "e4"])
    searcher = Searcher.open(tmp_path, "t", encoder=encoder, derived=derived)
    query = encoder.vectors("a0b1")
    expected = exhaustive(tmp_path, query)
    documents, scores = searcher.rank_vectors(query, 100)
    assert searcher.ids(documents) == [doc_id for doc_id, _ in expected]
    np.testing.assert_allclose(scores, [score for _, score in expected], atol=1e-5)
    assert [hit.id for hit in searcher.search_vectors(query, 5)] == [doc_id for doc_id, _ in expected[:5]]


def test_an_open_searcher_outlives_an_overwritten_table(default_encoder: Encoder, tmp_path: Path):
    Index.create(tmp_path, "t", ANIMALS, encoder=default_encoder)
    searcher = Searcher.open(tmp_path, "t", encoder=default_encoder)
    Index.create(tmp_path, "t", [{"id": "new", "text": "別の文書"}], encoder=default_encoder, overwrite=True)
    assert searcher.search("嗅覚", k=1)[0].id == "dog"


@pytest.mark.parametrize(
    ("arguments", "offender"),
    [
        ({"query": ""}, "query is empty"),
        ({"query": " \n"}, "query is empty"),
        ({"query": 7}, "int"),
        ({"query": "犬", "k": 0}, "k is 0"),
        ({"query": "犬", "k": -1}, "k is -1"),
        ({"query": "犬", "nprobe": 0}, "nprobe is 0"),
        ({"query": "犬", "candidates": 0}, "candidates is 0"),
    ],
)
def test_bad_arguments_are_named(animals: Searcher, arguments: dict, offender: str):
    with pytest.raises(InputError, match=offender):
        animals.search(**arguments)


def test_query_vectors_of_another_dimension_are_refused(animals: Searcher):
    with pytest.raises(InputError, match=r"\(3, 64\)"):
        animals.search_vectors(np.ones((3, 64), np.float32))


@pytest.mark.integration
def test_another_model_is_refused(sample_db: Path, default_encoder: Encoder):
    other = Encoder.load(threads=1)
    other.bundle = dataclasses.replace(default_encoder.bundle, name="other", files={"model.onnx": "0" * 64})
    with pytest.raises(ModelMismatchError, match="other"):
        Searcher.open(sample_db, "sample", encoder=other)


def test_a_table_that_is_not_ours_is_refused(tmp_path: Path):
    lancedb.connect(tmp_path).create_table("plain", pa.table({"id": ["a"]}))
    with pytest.raises(NotAnIndexError, match="plain"):
        Searcher.open(tmp_path, "plain")


def test_a_missing_database_is_not_made(tmp_path: Path):
    with pytest.raises(TableNotFoundError, match="nowhere"):
        Searcher.open(tmp_path / "nowhere", "t")
    assert not (tmp_path / "nowhere").exists()


def whole(documents: Sequence[Document | None]) -> list[Document]:
    """Documents all of which must have been found."""
    found = [document for document in documents if document is not None]
    assert len(found) == len(documents)
    return found


class TestRead:
    def test_documents_come_whole_in_the_order_asked_for(self, animals: Searcher):
        documents = animals.read(["sea", "zz", "dog", "sea"])
        assert documents.pop(1) is None
        sea, dog, again = whole(documents)
        assert (dog.id, dog.title, dog.text, dog.fields) == ("dog", "犬", ANIMALS[0]["text"], {"year": 2001})
        assert (sea.title, sea.text, sea.fields) == ("", ANIMALS[2]["text"], {"year": None})
        assert again == sea
        assert animals.read([]) == []

    def test_one_string_is_no_list_of_ids(self, animals: Searcher):
        with pytest.raises(InputError, match="give a list"):
            animals.read("dog")

    def test_passages_are_put_together_in_their_order(self, tmp_path: Path):
        encoder = FakeEncoder()
        sentences = [f"{i:x}a。" for i in range(12)]
        docs = [{"id": "a", "text": "".join(sentences), "n": 1}, {"id": "b", "text": "b", "n": 2}]
        index = Index.create(tmp_path, "t", docs, encoder=encoder, passage_tokens=3)
        index.upsert([{"id": "b", "text": "".join(sentences[::-1]), "n": 3}])
        searcher = Searcher.open(tmp_path, "t", encoder=encoder)
        b, a = whole(searcher.read(["b", "a"]))
        assert (a.text, a.fields) == ("\n".join(sentences), {"n": 1})
        assert (b.text, b.fields) == ("\n".join(sentences[::-1]), {"n": 3})
        assert [d.text for d in whole(searcher.read(["a#1"]))] == [sentences[1]]
        assert searcher.read(["a#99"]) == [None]

    def test_what_is_read_is_the_version_that_is_open(self, tmp_path: Path):
        encoder = FakeEncoder()
        index = Index.create(tmp_path, "t", corpus(5), encoder=encoder)
        searcher = Searcher.open(tmp_path, "t", encoder=encoder)
        index.upsert([{"id": "d1", "text": "new"}])
        index.delete(["d2"])
        assert [document.text for document in whole(searcher.read(["d1", "d2"]))] == [d["text"] for d in corpus(5)[1:3]]
        searcher.refresh()
        assert [document.text for document in whole(searcher.read(["d1"]))] == ["new"]
        assert searcher.read(["d2"]) == [None]

    def test_a_version_that_was_given_up_is_left_for_the_latest(self, tmp_path: Path):
        encoder = FakeEncoder()
        index = Index.create(tmp_path, "t", corpus(5), encoder=encoder)
        searcher = Searcher.open(tmp_path, "t", encoder=encoder)
        index.upsert([{"id": "d1", "text": "new"}])
        index.optimize(keep=timedelta(0))
        assert [document.text for document in whole(searcher.read(["d1"]))] == ["new"]
