"""Haystack: a document store that passes Haystack's own tests, a retriever, a ranker, pipelines that survive YAML."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import pickle
import re
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.core.errors import DeserializationError
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError
from haystack.testing import document_store as suites
from haystack.testing import document_store_async as async_suites
from haystack.utils import Secret

from tansaku import (
    Encoder,
    Index,
    InputError,
    MissingExtraError,
    ModelMismatchError,
    ResidualCodec,
    Searcher,
    TableNotFoundError,
)
from tansaku.plugin.hosts.haystack import TansakuDocumentStore, TansakuRanker, TansakuRetriever, location

from ...support.fakes import FakeEncoder, corpus, exhaustive, small_chunks

pytestmark = pytest.mark.integration

QUERY = "3a9f"
DOCS = [Document(id=d["id"], content=d["text"], meta={"number": i}) for i, d in enumerate(corpus(12))]
RECIPE = Path(__file__).parents[3] / "docs" / "how-to" / "haystack.md"


@pytest.fixture
def encoder(monkeypatch):
    """The encoder that all components get, whatever model they name."""
    encoder = FakeEncoder()
    monkeypatch.setattr(Encoder, "load", lambda path=None, threads=None: encoder)
    forget_encoders()
    yield encoder
    forget_encoders()


def forget_encoders():
    location.shared_encoder.cache_clear()


@pytest.fixture
def document_store(tmp_path, encoder, trained):
    return TansakuDocumentStore(tmp_path / "db")


@pytest.fixture(scope="module")
def codec():
    vectors = FakeEncoder().encode_queries(d["text"] for d in corpus(60))
    return ResidualCodec.train(np.concatenate(vectors), nbits=2, n_centroids=4)


@pytest.fixture
def trained(monkeypatch, codec):
    """Training takes longer than all else here, and what comes of it does not matter."""
    monkeypatch.setattr(ResidualCodec, "train", lambda vectors, *, nbits, n_centroids: codec)


@pytest.fixture
def written(document_store, monkeypatch):
    small_chunks(monkeypatch)
    document_store.write_documents(DOCS)
    return document_store


def by_plain_maxsim(encoder, texts):
    query = encoder.vectors(QUERY)
    return [float((query @ encoder.vectors(text).T).max(axis=1).mean()) for text in texts]


class TestConformance(
    suites.DocumentStoreBaseExtendedTests,
    suites.CountDocumentsByFilterTest,
    suites.CountUniqueMetadataByFilterTest,
    suites.GetMetadataFieldsInfoTest,
    suites.GetMetadataFieldMinMaxTest,
    suites.GetMetadataFieldUniqueValuesTest,
):
    @pytest.fixture
    def document_store(self, tmp_path, encoder, trained):
        return TansakuDocumentStore(tmp_path / "db")

    def test_write_documents(self, document_store):
        """Without a policy a document that is there already is refused."""
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])
        assert document_store.filter_documents() == [document]


class TestAsyncConformance(
    async_suites.CountDocumentsAsyncTest,
    async_suites.CountDocumentsByFilterAsyncTest,
    async_suites.CountUniqueMetadataByFilterAsyncTest,
    async_suites.DeleteAllAsyncTest,
    async_suites.DeleteByFilterAsyncTest,
    async_suites.DeleteDocumentsAsyncTest,
    async_suites.FilterDocumentsAsyncTest,
    async_suites.GetMetadataFieldsInfoAsyncTest,
    async_suites.GetMetadataFieldMinMaxAsyncTest,
    async_suites.GetMetadataFieldUniqueValuesAsyncTest,
    async_suites.UpdateByFilterAsyncTest,
    async_suites.WriteDocumentsAsyncTest,
):
    @pytest.fixture
    def document_store(self, tmp_path, encoder, trained):
        return TansakuDocumentStore(tmp_path / "db")

    async def test_write_documents_async(self, document_store):
        """As `TestConformance.test_write_documents`."""
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])


class TestStore:
    def test_all_of_a_document_comes_back(self, document_store):
        document = Document(
            id="京都/1",
            content=" 古い都。\n",
            meta={
                "a": {"b": [1, 2.5, None, True]},
                "半角": "ｶﾅ",
                "half": "\ud800",
                "content": "of the metadata",
                "x.y": 1,
            },
            blob=ByteStream(b"\x00\xff", meta={"m": 1}, mime_type="image/png"),
            score=0.25,
            embedding=[0.1, 1e-17, -3.0],
            sparse_embedding=SparseEmbedding(indices=[1, 7], values=[0.5, 0.25]),
        )
        before = document.to_dict(flatten=False)
        document_store.write_documents([document, Document(id="2", content="x", meta={"a": "another type"})])
        assert document_store.filter_documents()[0] == document
        assert document.to_dict(flatten=False) == before

    def test_tuples_come_back_as_lists(self, document_store):
        # Haystack's DocumentSplitter makes such.
        document_store.write_documents([Document(content="x", meta={"range": (0, 10)})])
        assert document_store.filter_documents()[0].meta == {"range": [0, 10]}

    def test_documents_come_in_the_order_of_their_first_writing(self, written):
        written.write_documents([Document(id="late", content="ab")])
        written.write_documents([Document(id="d3", content="cd")], DuplicatePolicy.OVERWRITE)
        assert [d.id for d in written.filter_documents()] == [*(d.id for d in DOCS), "late"]

    def test_an_id_twice_in_one_write(self, document_store):
        twice = [Document(id="1", content="ab"), Document(id="1", content="cd")]
        with pytest.raises(DuplicateDocumentError, match="'1' is stored already"):
            document_store.write_documents(twice)
        assert document_store.count_documents() == 0
        assert document_store.write_documents(twice, DuplicatePolicy.SKIP) == 1
        assert document_store.filter_documents()[0].content == "ab"
        assert document_store.write_documents(twice, DuplicatePolicy.OVERWRITE) == 2
        assert document_store.filter_documents()[0].content == "cd"

    @pytest.mark.parametrize(
        ("documents", "said"),
        [
            ([Document(id="a", content="ab"), Document(id="b")], "'b' has no content to index"),
            ([Document(id="a", content=" \n")], "'a' has no content"),
            ([Document(id="a", content="ab", meta={"x": {1, 2}})], "'a' holds a value that JSON cannot keep"),
            ([{"id": "a", "content": "ab"}], "document 0 is dict"),
            (None, "documents is NoneType"),
        ],
    )
    def test_what_cannot_be_indexed_is_named_and_nothing_written(self, document_store, documents, said):
        with pytest.raises(InputError, match=said):
            document_store.write_documents(documents)
        assert document_store.count_documents() == 0

    def test_no_documents_are_no_table(self, document_store, tmp_path):
        assert document_store.write_documents([]) == 0
        assert document_store.late_interaction_retrieval(QUERY) == []
        assert not (tmp_path / "db").exists()

    def test_documents_that_are_cut_are_reported(self, document_store, caplog):
        with caplog.at_level(logging.WARNING):
            document_store.write_documents([Document(content="a" * 20), Document(content="b")])
        assert "1 of 2 texts are longer" in caplog.text

    def test_changes_of_other_processes_are_seen(self, written, tmp_path, encoder):
        assert len(written.late_interaction_retrieval(QUERY, top_k=100)) == 12
        other = TansakuDocumentStore(tmp_path / "db")
        other.delete_documents(["d0", "d1"])
        assert len(written.late_interaction_retrieval(QUERY, top_k=100)) == 10
        other.delete_all_documents(recreate_index=True)
        assert written.late_interaction_retrieval(QUERY) == []
        other.write_documents(DOCS[:3])
        assert len(written.late_interaction_retrieval(QUERY)) == 3
        assert written.count_documents() == 3

    def test_metadata_to_embed_is_indexed_and_content_stays(self, tmp_path, encoder):
        store = TansakuDocumentStore(tmp_path / "db", meta_fields_to_embed=["title", "page", "none"])
        store.write_documents([Document(content="ab", meta={"title": "京", "page": 4, "none": None})])
        assert set(encoder.encoded) == {"京 4 ab"}
        assert store.filter_documents()[0].content == "ab"

    def test_a_table_made_otherwise_can_be_read_and_written(self, tmp_path, encoder):
        documents = [{"id": f"k{i}", "text": f"a{i}", "title": "t" * (i % 2), "year": 1990 + i} for i in range(6)]
        Index.create(tmp_path / "db", "mine", documents, encoder=encoder)
        store = TansakuDocumentStore(tmp_path / "db", "mine")
        later = {"field": "meta.year", "operator": ">", "value": 1993}
        assert [d.meta for d in store.filter_documents(later)] == [{"year": 1994}, {"title": "t", "year": 1995}]
        assert {d.id for d in store.late_interaction_retrieval(QUERY, later)} == {"k4", "k5"}
        store.write_documents([Document(id="x", content="x", meta={"year": 1999, "tag": "n"})])
        found = {document.id: document.meta for document in store.filter_documents()}
        assert (found["x"], found["k4"]) == ({"year": 1999, "tag": "n"}, {"year": 1994})

    def test_a_table_of_passages_is_refused(self, tmp_path, encoder):
        Index.create(tmp_path / "db", "p", corpus(3), encoder=encoder, passage_tokens=5)
        with pytest.raises(InputError, match="DocumentSplitter"):
            TansakuDocumentStore(tmp_path / "db", "p").count_documents()

    def test_a_table_of_another_model_is_refused(self, written, tmp_path, monkeypatch):
        monkeypatch.setattr(Encoder, "load", lambda path=None, threads=None: FakeEncoder("other"))
        forget_encoders()
        with pytest.raises(ModelMismatchError):
            TansakuDocumentStore(tmp_path / "db").late_interaction_retrieval(QUERY)

    def test_filters_are_checked_over_an_empty_store_too(self, document_store):
        for filters in ({"operator": "AND"}, {"field": "meta.x", "operator": "~", "value": 1}, {"conditions": []}):
            with pytest.raises(FilterError):
                document_store.filter_documents(filters)
            with pytest.raises(FilterError):
                document_store.late_interaction_retrieval(QUERY, filters)

    @pytest.mark.parametrize(
        "filters",
        [
            {"field": "meta.x", "operator": ">", "value": 3},
            {"operator": "AND", "conditions": ["x"]},
            {"operator": "AND", "conditions": 3},
        ],
    )
    def test_what_cannot_be_compared_is_a_filter_error(self, document_store, filters):
        document_store.write_documents([Document(content="x", meta={"x": {"nested": 1}})])
        with pytest.raises(FilterError):
            document_store.filter_documents(filters)

    def test_filters_may_name_what_is_no_metadata(self, document_store):
        document_store.write_documents([Document(id="1", content="ab", score=0.5), Document(id="2", content="cd")])
        for field, value in (("content", "ab"), ("id", "1"), ("score", 0.5)):
            filters = {"field": field, "operator": "==", "value": value}
            assert document_store.count_documents_by_filter(filters) == 1
            assert [d.id for d in document_store.late_interaction_retrieval(QUERY, filters)] == ["1"]


class TestRetriever:
    def test_order_and_scores_are_those_of_maxsim(self, written, encoder, tmp_path):
        found = TansakuRetriever(written, top_k=5).run(QUERY)["documents"]
        expected = exhaustive(tmp_path / "db", encoder.vectors(QUERY), "documents")[:5]
        assert [d.id for d in found] == [doc_id for doc_id, _ in expected]
        assert [d.score for d in found] == pytest.approx([score / 4 for _, score in expected], abs=1e-4)
        assert [d.meta for d in found] == [{"number": int(d.id[1:])} for d in found]

    def test_filters_hold_for_all_that_is_found(self, written):
        few = {"field": "meta.number", "operator": "in", "value": [3, 5, 7]}
        retriever = TansakuRetriever(written, filters=few)
        assert {d.id for d in retriever.run(QUERY)["documents"]} == {"d3", "d5", "d7"}
        one = {"field": "meta.number", "operator": "==", "value": 9}
        assert [d.id for d in retriever.run(QUERY, filters=one)["documents"]] == ["d9"]
        merging = TansakuRetriever(written, filters=few, filter_policy=FilterPolicy.MERGE)
        not_three = {"field": "id", "operator": "!=", "value": "d3"}
        for made in (merging, TansakuRetriever.from_dict(merging.to_dict())):
            assert {d.id for d in made.run(QUERY, filters=not_three)["documents"]} == {"d5", "d7"}
        none = {"field": "meta.number", "operator": "==", "value": -1}
        assert retriever.run(QUERY, filters=none) == {"documents": []}

    def test_top_k_of_a_run_counts(self, written):
        retriever = TansakuRetriever(written, top_k=2)
        assert [len(retriever.run(QUERY, top_k=k)["documents"]) for k in (None, 1, 100)] == [2, 1, 12]

    async def test_runs_asynchronously(self, written):
        retriever = TansakuRetriever(written)
        assert await retriever.run_async(QUERY, top_k=3) == retriever.run(QUERY, top_k=3)

    @pytest.mark.parametrize(
        "options",
        [
            {"recall": "exact"},
            {"recall": 0.95},
            {"where": "id < 'd2'"},
            {"ids": ["d1", "d2", "zz"]},
            {"source": "fused", "bm25_weight": 0.5},
            {"phrase_weight": 0.5},
            {"nprobe": 1},
            {"candidates": 2},
        ],
    )
    def test_the_options_of_a_search_reach_it(self, document_store, tmp_path, encoder, options):
        store = TansakuDocumentStore(tmp_path / "db", fulltext=True)
        store.write_documents(DOCS)
        expected = Searcher.open(tmp_path / "db", "documents", encoder=encoder).search(QUERY, **options)
        retriever = TansakuRetriever(store, **options)
        for made in (retriever, TansakuRetriever.from_dict(retriever.to_dict())):
            assert [d.id for d in made.run(QUERY)["documents"]] == [hit.id for hit in expected]

    def test_ids_and_filters_both_hold(self, written):
        few = {"field": "meta.number", "operator": "in", "value": [3, 5, 7]}
        retriever = TansakuRetriever(written, filters=few, ids=["d5", "d6"])
        assert [d.id for d in retriever.run(QUERY)["documents"]] == ["d5"]

    def test_an_unknown_option_is_refused(self, written):
        with pytest.raises(InputError, match="unknown search option 'filter'"):
            written.late_interaction_retrieval(QUERY, filter={})
        with pytest.raises(InputError, match="use top_k"):
            written.late_interaction_retrieval(QUERY, k=3)

    @pytest.mark.parametrize(
        ("filters", "said"),
        [
            ([], "operator"),
            ({"field": "meta.number", "operator": "==", "value": 1, "where": "x"}, "unknown key 'where'"),
            ({"operator": "NOT", "conditions": [], "condition": 1}, "unknown key 'condition'"),
            (
                {"operator": "AND", "conditions": [{"field": "id", "operator": "==", "value": 1, "values": 2}]},
                "unknown key 'values'",
            ),
        ],
    )
    def test_a_filter_of_which_haystack_would_ignore_a_part_is_refused(self, written, filters, said):
        with pytest.raises(FilterError, match=said):
            written.late_interaction_retrieval(QUERY, filters)
        with pytest.raises(FilterError, match=said):
            written.delete_by_filter(filters)
        assert written.count_documents() == len(DOCS)

    @pytest.mark.parametrize("filters", [None, {}])
    def test_an_empty_filter_changes_nothing(self, written, filters):
        with pytest.raises(FilterError, match="delete all documents: call delete_all_documents"):
            written.delete_by_filter(filters)
        with pytest.raises(FilterError, match="update all documents"):
            written.update_by_filter(filters, {"number": 0})
        assert [d.meta for d in written.filter_documents()] == [d.meta for d in DOCS]

    @pytest.mark.parametrize("arguments", [{"top_k": 0}, {"score": "best"}, {"recall": "perfect"}])
    def test_arguments_that_are_none_are_refused(self, written, arguments):
        with pytest.raises(InputError, match=next(iter(arguments))):
            TansakuRetriever(written, **arguments)

    @pytest.mark.parametrize("query", ["", "　\n", None])
    def test_a_query_without_a_word_is_refused(self, written, query):
        with pytest.raises(InputError, match="the query"):
            TansakuRetriever(written).run(query)

    def test_another_store_is_refused(self):
        with pytest.raises(InputError, match="InMemoryDocumentStore"):
            TansakuRetriever(cast("TansakuDocumentStore", InMemoryDocumentStore(shared=False)))


class TestRanker:
    def test_without_an_index_contents_are_ranked(self, encoder):
        before = [dataclasses.asdict(d) for d in DOCS]
        ranked = TansakuRanker(top_k=20).run(QUERY, DOCS)["documents"]
        expected = by_plain_maxsim(encoder, [d.content for d in DOCS])
        assert [d.id for d in ranked] == [DOCS[i].id for i in sorted(range(12), key=lambda i: (-expected[i], i))]
        assert [d.score for d in ranked] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
        assert [dataclasses.asdict(d) for d in DOCS] == before

    def test_what_the_index_has_is_not_encoded(self, written, encoder, tmp_path):
        ranker = TansakuRanker(tmp_path / "db", "documents", top_k=20)
        ranker.warm_up()
        encoder.encoded.clear()
        ranked = ranker.run(QUERY, [*DOCS, Document(id="new", content="zz")])["documents"]
        assert encoder.encoded == ["zz"]
        expected = exhaustive(tmp_path / "db", encoder.vectors(QUERY), "documents")
        assert [d.id for d in ranked if d.id != "new"] == [doc_id for doc_id, _ in expected]

    def test_what_cannot_be_scored_is_left_out_and_reported(self, encoder, caplog):
        with caplog.at_level(logging.WARNING):
            ranked = TansakuRanker().run(QUERY, [Document(id="a"), Document(id="b", content="ab")])["documents"]
        assert [d.id for d in ranked] == ["b"]
        assert "1 of 2 documents have neither" in caplog.text

    def test_of_equal_ids_the_first_counts(self, encoder):
        twice = [Document(id="1", content="ab"), Document(id="2", content="cd"), Document(id="1", content="ef")]
        assert {d.content for d in TansakuRanker().run(QUERY, twice)["documents"]} == {"ab", "cd"}

    def test_metadata_to_embed_comes_before_the_content(self, encoder):
        TansakuRanker(meta_fields_to_embed=["title"]).run(QUERY, [Document(content="ab", meta={"title": "京"})])
        assert encoder.encoded == ["京 ab"]

    def test_changes_of_the_index_are_seen(self, written, tmp_path, encoder):
        ranker = TansakuRanker(tmp_path / "db", "documents")
        bare = [Document(id="d1"), Document(id="new")]
        assert [d.id for d in ranker.run(QUERY, bare)["documents"]] == ["d1"]
        written.write_documents([Document(id="new", content=QUERY)])
        assert [d.id for d in ranker.run(QUERY, bare)["documents"]] == ["new", "d1"]

    def test_nothing_to_rank_is_an_empty_ranking(self, encoder):
        assert TansakuRanker().run("", []) == {"documents": []}

    async def test_runs_asynchronously(self, encoder):
        assert await TansakuRanker().run_async(QUERY, DOCS) == TansakuRanker().run(QUERY, DOCS)

    @pytest.mark.parametrize(
        "arguments", [{"top_k": 0}, {"score": "best"}, {"db": "db"}, {"table": "t"}, {"phrase_weight": -1}]
    )
    def test_arguments_that_are_none_are_refused(self, encoder, arguments):
        with pytest.raises(InputError, match=r"top_k|score|database|phrase_weight"):
            TansakuRanker(**arguments).run(QUERY, DOCS)

    def test_phrases_weigh_as_asked(self, encoder):
        plain, phrases = (TansakuRanker(phrase_weight=weight).run(QUERY, DOCS)["documents"] for weight in (0, 5))
        assert [d.score for d in plain] != [d.score for d in phrases]

    def test_an_index_that_is_not_there_is_named(self, tmp_path, encoder):
        with pytest.raises(TableNotFoundError, match="'t'"):
            TansakuRanker(tmp_path / "db", "t").run(QUERY, DOCS)


class TestPipelines:
    def test_a_pipeline_survives_yaml(self, tmp_path, encoder):
        store = TansakuDocumentStore(tmp_path / "db", "t", nbits=4, meta_fields_to_embed=["title"])
        few = {"field": "meta.number", "operator": "<", "value": 6}
        pipeline = Pipeline()
        pipeline.add_component("retriever", TansakuRetriever(store, top_k=4, filters=few, score="raw", recall="exact"))
        pipeline.add_component("ranker", TansakuRanker(tmp_path / "db", "t", top_k=2))
        pipeline.connect("retriever.documents", "ranker.documents")
        text = pipeline.dumps()
        with pytest.raises(DeserializationError, match="allow"):
            Pipeline.loads(text)
        loaded = Pipeline.loads(text, allowed_modules=["tansaku.*"])
        assert loaded.dumps() == text
        store.write_documents(DOCS)
        asked = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY}}
        found = loaded.run(asked)["ranker"]["documents"]
        assert found == pipeline.run(asked)["ranker"]["documents"]
        assert len(found) == 2
        assert "encoder" not in text

    def test_documents_are_written_by_a_pipeline(self, document_store):
        pipeline = Pipeline()
        pipeline.add_component("writer", DocumentWriter(document_store, policy=DuplicatePolicy.SKIP))
        pipeline = Pipeline.loads(pipeline.dumps(), allowed_modules=["tansaku.*"])
        assert pipeline.run({"writer": {"documents": DOCS}}) == {"writer": {"documents_written": 12}}
        assert document_store.count_documents() == 12

    def test_secrets_are_written_down_by_the_names_of_their_variables(self, tmp_path, encoder, monkeypatch):
        monkeypatch.setenv("STORAGE_KEY", "a secret")
        options = {"key": Secret.from_env_var("STORAGE_KEY"), "region": "ap-northeast-1"}
        for made in (
            TansakuDocumentStore(tmp_path / "db", storage_options=options),
            TansakuRanker(tmp_path / "db", "t", storage_options=options),
        ):
            data = json.dumps(made.to_dict())
            assert "a secret" not in data + repr(made.__dict__)
            assert type(made).from_dict(json.loads(data)).to_dict() == made.to_dict()
        location = TansakuDocumentStore(tmp_path / "db", storage_options=options).location
        assert location.plain_options() == {"key": "a secret", "region": "ap-northeast-1"}
        token = TansakuDocumentStore(tmp_path / "db", storage_options={"key": Secret.from_token("a secret")})
        with pytest.raises(ValueError, match="token"):
            token.to_dict()

    def test_pickle_opens_the_store_again_where_it_lies(self, tmp_path, encoder):
        made = TansakuDocumentStore(tmp_path / "db")
        made.write_documents(DOCS)
        again = pickle.loads(pickle.dumps(TansakuRetriever(made)))
        found = again.run("3a9f", top_k=3)["documents"]
        assert [one.id for one in found] == [one.id for one in TansakuRetriever(made).run("3a9f", top_k=3)["documents"]]

    def test_pickle_opens_the_index_of_a_ranker_again(self, written, encoder, tmp_path):
        ranker = TansakuRanker(tmp_path / "db", "documents")
        assert pickle.loads(pickle.dumps(ranker)).run(QUERY, DOCS) == ranker.run(QUERY, DOCS)

    def test_what_is_written_down_is_plain(self, tmp_path, encoder):
        for made in (
            TansakuDocumentStore(tmp_path / "db", model=tmp_path),
            TansakuRetriever(TansakuDocumentStore(tmp_path)),
            TansakuRanker(tmp_path, "t", model=tmp_path),
        ):
            data = json.loads(json.dumps(made.to_dict()))
            assert type(made).from_dict(data).to_dict() == data


def test_the_recipes_run(default_encoder, tmp_path, monkeypatch):
    forget_encoders()
    monkeypatch.setattr(Encoder, "load", lambda path=None, threads=None: default_encoder)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", RECIPE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    names = {}
    for block in blocks:
        exec(block, names)  # noqa: S102
    forget_encoders()


def test_without_haystack_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tansaku.plugin.hosts.haystack")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "haystack", None)
    with pytest.raises(MissingExtraError, match=r"haystack-ai: pip install 'tansaku\[haystack\]'"):
        importlib.import_module("tansaku.plugin.hosts.haystack")
