"""LangChain: its own standard suites for what we claim, and what those leave out."""

from __future__ import annotations

import importlib
import logging
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests
from pydantic import ValidationError

from tansaku import Index, InputError, MissingExtraError, ModelMismatchError, Reranker, Searcher
from tansaku.plugin.hosts.langchain import TansakuCompressor, TansakuRetriever, TansakuVectorStore

from ...support.fakes import FakeEncoder, corpus, exhaustive

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

pytestmark = pytest.mark.integration

RECIPE = Path(__file__).parents[3] / "docs" / "how-to" / "langchain.md"
QUERY = "3a9f"
DOCS = corpus(12, year=lambda i: 1900 + i)
LOGGED = "tansaku.plugin.hosts"


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """A database whose table ``t`` has `DOCS`; not to be changed."""
    folder = tmp_path_factory.mktemp("langchain")
    Index.create(folder, "t", DOCS, encoder=FakeEncoder(), fulltext=True)
    return folder


@pytest.fixture(scope="module")
def opened(db):
    return Searcher.open(db, "t", encoder=FakeEncoder())


@pytest.fixture
def searcher(opened):
    opened.encoder.encoded.clear()
    return opened


@pytest.fixture
def encoder(searcher):
    return searcher.encoder


@pytest.fixture
def store(tmp_path, encoder):
    return TansakuVectorStore(tmp_path / "store", "t", encoder=encoder, columns=["year"])


def by_maxsim(db):
    """Ids and mean scores of all documents, best first."""
    best = exhaustive(db, FakeEncoder().vectors(QUERY))
    return [doc_id for doc_id, _ in best], [score / len(QUERY) for _, score in best]


class TestRetrieverStandard(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _searcher(self, searcher):
        self.searcher = searcher

    @property
    def retriever_constructor(self):
        return TansakuRetriever

    @property
    def retriever_constructor_params(self):
        return {"searcher": self.searcher}

    @property
    def retriever_query_example(self):
        return QUERY


class TestStoreStandard(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        return TansakuVectorStore(tmp_path, "t", encoder=FakeEncoder())


class TestRetriever:
    def test_documents_carry_the_row_and_a_mean_cosine(self, searcher, db):
        ids, scores = by_maxsim(db)
        found = TansakuRetriever(searcher=searcher, k=3).invoke(QUERY)
        by_id = {doc["id"]: doc for doc in DOCS}
        assert [document.id for document in found] == ids[:3]
        assert [document.page_content for document in found] == [by_id[doc_id]["text"] for doc_id in ids[:3]]
        assert [document.metadata.pop("relevance_score") for document in found] == pytest.approx(scores[:3], abs=1e-5)
        assert [document.metadata for document in found] == [
            {"year": by_id[doc_id]["year"], "title": ""} for doc_id in ids[:3]
        ]

    @pytest.mark.parametrize("options", [{"where": "year < 1903"}, {"ids": ["d0", "d2"]}, {"recall": 0.95}])
    async def test_options_may_be_fields_or_of_one_call(self, searcher, options):
        retriever = TansakuRetriever(searcher=searcher, k=12)
        expected = [hit.id for hit in searcher.search(QUERY, 12, **options)]
        always = TansakuRetriever(searcher=searcher, k=12, **options)
        for found in (
            always.invoke(QUERY),
            retriever.invoke(QUERY, **options),
            await always.ainvoke(QUERY),
            await retriever.ainvoke(QUERY, **options),
        ):
            assert [document.id for document in found] == expected
        assert len(always.invoke(QUERY, where=None, ids=None)) == 12

    @pytest.mark.parametrize("source", ["text", "fused"])
    def test_candidates_may_come_from_full_text(self, searcher, source):
        text = DOCS[3]["text"]
        found = TansakuRetriever(searcher=searcher, k=1, source=source, candidates=2).invoke(text)
        assert [document.page_content for document in found] == [text]

    def test_ids_that_the_index_has_not_are_counted_in_the_log(self, searcher, caplog):
        with caplog.at_level(logging.WARNING, LOGGED):
            TansakuRetriever(searcher=searcher, ids=["d1", "zz", "yy"]).invoke(QUERY)
        assert "2 of the ids" in caplog.text

    def test_the_scale_of_the_scores_can_be_chosen(self, searcher):
        mean, raw = (TansakuRetriever(searcher=searcher, k=1, score=score) for score in ("mean", "raw"))
        scores = [retriever.invoke(QUERY)[0].metadata["relevance_score"] for retriever in (mean, raw)]
        assert scores[1] == pytest.approx(scores[0] * len(QUERY))

    def test_documents_have_the_fields_asked_for(self, searcher):
        retriever = TansakuRetriever(searcher=searcher, k=1, fields=["text"])
        (document,), (other,) = retriever.invoke(QUERY), retriever.invoke(QUERY, fields=["year"])
        assert document.page_content
        assert document.metadata.keys() == {"title", "relevance_score"}
        assert (other.page_content, other.metadata.keys()) == ("", {"title", "relevance_score", "year"})

    @pytest.mark.parametrize(
        "fields",
        [{"k": 0}, {"recall": "most"}, {"recall": 0.8}, {"recall": True}, {"ids": "d1"}, {"score": "best"}, {"top": 3}],
    )
    def test_wrong_fields_are_refused_at_once(self, searcher, fields):
        with pytest.raises(ValidationError, match=next(iter(fields))):
            TansakuRetriever(searcher=searcher, **fields)

    @pytest.mark.parametrize(
        ("query", "options", "said"),
        [
            ("", {}, "query is empty"),
            (QUERY, {"k": 0}, "k is 0"),
            (QUERY, {"filter": {"year": 3}}, "unknown search option 'filter'; use"),
            (QUERY, {"where": "century = 3"}, "century"),
        ],
    )
    def test_wrong_calls_are_refused(self, searcher, query, options, said):
        with pytest.raises(InputError, match=said):
            TansakuRetriever(searcher=searcher).invoke(query, **options)


def texts_of(*pairs):
    return [Document(text, id=doc_id, metadata={"n": n}) for n, (doc_id, text) in enumerate(pairs)]


class TestCompressor:
    def test_stored_ids_are_ranked_by_codes_and_the_others_by_text(self, searcher, encoder, db):
        documents = texts_of(("d4", "never read"), (None, QUERY), ("zz", "ab"), ("d7", "never read"))
        found = TansakuCompressor(reranker=Reranker(searcher=searcher)).compress_documents(documents, QUERY)
        assert encoder.encoded == [QUERY, "ab"]
        assert found[0].page_content == QUERY
        scores = dict(zip(*by_maxsim(db), strict=True))
        by_id = {document.id: document.metadata["relevance_score"] for document in found}
        assert [by_id["d4"], by_id["d7"]] == pytest.approx([scores["d4"], scores["d7"]], abs=1e-5)
        assert sorted(document.metadata["n"] for document in found) == [0, 1, 2, 3]

    def test_what_is_given_stays_as_it_is(self, searcher):
        documents = texts_of(("d4", "x"), (None, QUERY))
        TansakuCompressor(reranker=Reranker(searcher=searcher)).compress_documents(documents, QUERY)
        assert documents == texts_of(("d4", "x"), (None, QUERY))

    def test_the_id_may_be_in_the_metadata(self, searcher, encoder):
        documents = [Document("never read", metadata={"doc": "d4"}), Document("ab", id="d7")]
        compressor = TansakuCompressor(reranker=Reranker(searcher=searcher), id_key="doc")
        assert len(compressor.compress_documents(documents, QUERY)) == 2
        assert encoder.encoded == ["ab"]

    @pytest.mark.parametrize("name", ["k", "top_n"])
    async def test_k_takes_the_best(self, encoder, name):
        documents = texts_of(*((None, doc["text"]) for doc in DOCS))
        every = TansakuCompressor(reranker=Reranker(encoder)).compress_documents(documents, QUERY)
        fields: dict[str, Any] = {"reranker": Reranker(encoder), name: 3}
        best = await TansakuCompressor(**fields).acompress_documents(documents, QUERY)
        assert len(every) == 12
        assert best == every[:3]

    def test_nothing_and_doubles_are_taken_as_they_come(self, encoder):
        compressor = TansakuCompressor(reranker=Reranker(encoder))
        assert compressor.compress_documents([], QUERY) == []
        found = compressor.compress_documents(texts_of(("a", "ab"), ("a", "ab"), (None, "")), QUERY)
        assert [document.metadata["n"] for document in found] == [0, 1, 2]

    async def test_works_in_a_compression_retriever(self, searcher):
        class Fixed(BaseRetriever):
            def _get_relevant_documents(self, query, *, run_manager):
                return texts_of(("d4", "x"), ("d7", "y"), ("d1", "z"))

        compressor = TansakuCompressor(reranker=Reranker(searcher=searcher), k=2)
        chained = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=Fixed())
        expected = [hit.id for hit in searcher.search(QUERY, 2, ids=["d4", "d7", "d1"])]
        assert [document.id for document in chained.invoke(QUERY)] == expected
        assert [document.id for document in await chained.ainvoke(QUERY)] == expected

    @pytest.mark.parametrize("fields", [{"k": 0}, {"top_n": 0}, {"score": "best"}, {"model": "x"}])
    def test_wrong_fields_are_refused_at_once(self, encoder, fields):
        with pytest.raises(ValidationError, match=next(iter(fields))):
            TansakuCompressor(reranker=Reranker(encoder), **fields)

    def test_an_empty_query_is_refused(self, encoder):
        with pytest.raises(InputError, match="query is empty"):
            TansakuCompressor(reranker=Reranker(encoder)).compress_documents(texts_of((None, "ab")), " ")


METADATA = {
    "year": 1397,
    "名": "金閣寺",
    "nested": {"a": [1, 2.5, None, True], "b": {}},
    "big": 2**60,
    "text": "not the text",
}


class TestStore:
    def test_metadata_comes_back_as_it_was(self, store):
        store.add_texts(["abc", "def"], [METADATA, {}], ids=["1", "2"])
        assert store.get_by_ids(["2", "1"]) == [Document("def", id="2"), Document("abc", id="1", metadata=METADATA)]
        assert store.similarity_search("abc", k=1)[0].metadata == METADATA

    @pytest.mark.parametrize(
        "value",
        [b"bytes", {1, 2}, {"in": [{1: "a"}]}, {1: "a"}, float("nan"), object(), Path("x")],
        ids=lambda v: type(v).__name__,
    )
    def test_metadata_that_json_would_change_is_refused(self, store, value):
        with pytest.raises(InputError, match=r"document 'b': metadata key 'odd' has a \w+ that JSON"):
            store.add_texts(["abc", "def"], [{}, {"odd": value}], ids=["a", "b"])
        assert store.index is None

    def test_values_with_a_plain_form_are_kept_in_it(self, store):
        number = UUID(int=7)
        given = {
            "day": date(1900, 1, 2),
            "at": datetime(1900, 1, 2, 3, 4, tzinfo=timezone.utc),
            "number": number,
            "score": np.float32(0.5),
            "pages": (1, np.int64(2)),
            "row": np.array([[1, 2]]),
        }
        store.add_texts(["abc"], [given], ids=["1"])
        plain = {
            "day": "1900-01-02",
            "at": "1900-01-02T03:04:00+00:00",
            "number": str(number),
            "score": 0.5,
            "pages": [1, 2],
            "row": [[1, 2]],
        }
        assert store.get_by_ids(["1"])[0].metadata == plain

    def test_a_column_of_dates_is_compared_as_dates(self, tmp_path, encoder):
        store = TansakuVectorStore(tmp_path / "dates", "t", encoder=encoder, columns=["day"])
        store.add_texts(["abc", "abd"], [{"day": date(1900, 1, 2)}, {"day": date(2000, 1, 2)}], ids=["1", "2"])
        found = store.similarity_search("abc", where="day < '1950-01-01'")
        assert [document.metadata for document in found] == [{"day": "1900-01-02"}]

    def test_blank_texts_are_refused_or_left_out_and_counted(self, store, tmp_path, encoder, caplog):
        with pytest.raises(InputError):
            store.add_texts(["abc", " \n"])
        skipping = TansakuVectorStore(tmp_path / "blank", "t", encoder=encoder, skip_blank=True)
        with caplog.at_level(logging.WARNING, LOGGED):
            assert skipping.add_texts(["", "abc", " \u3000"], ids=["1", "2", "3"]) == ["2"]
        assert "2 of 3 texts are blank and were left out" in caplog.text
        assert skipping.add_texts([" "]) == []

    def test_what_needs_one_vector_for_a_document_says_what_to_use(self, store):
        store.add_texts(["abc"])
        for ask in (
            lambda: store.max_marginal_relevance_search("abc"),
            lambda: store.similarity_search_by_vector([1.0]),
            lambda: store.as_retriever(search_type="mmr").invoke("abc"),
        ):
            with pytest.raises(NotImplementedError, match=r"not one vector here.*use similarity_search"):
                ask()

    def test_a_retriever_over_the_table_gives_the_metadata_of_the_store(self, store, tmp_path, encoder):
        store.add_texts(["abc"], [{"year": 1900, "pages": [1, 2]}], ids=["1"])
        searcher = Searcher.open(tmp_path / "store", "t", encoder=encoder)
        (found,) = TansakuRetriever(searcher=searcher, k=1).invoke("abc")
        assert found.metadata == {"year": 1900, "pages": [1, 2], "relevance_score": found.metadata["relevance_score"]}

    def test_a_pickled_store_is_opened_again_where_it_lies(self, tmp_path):
        made = TansakuVectorStore.from_texts(["京都は昔の首都。"], ids=["1"], db=tmp_path / "p", table="t")
        again = pickle.loads(pickle.dumps(made))
        assert [document.id for document in again.similarity_search("昔の首都")] == ["1"]

    def test_columns_can_be_searched_by_also_after_reopening(self, store, tmp_path, encoder):
        store.add_texts(["abc", "abd"], [{"year": 1900, "x": 1}, {"year": 2000}], ids=["1", "2"])
        again = TansakuVectorStore(tmp_path / "store", "t", encoder=encoder)
        again.add_texts(["abe"], [{"year": 1950}], ids=["3"])
        found = store.as_retriever(search_kwargs={"k": 9, "where": "year < 1960"}).invoke("abc")
        assert [document.id for document in found] == ["1", "3"]
        assert found[0].metadata == {"year": 1900, "x": 1}
        with pytest.raises(InputError, match="no column 'genre'"):
            TansakuVectorStore(tmp_path / "store", "t", encoder=encoder, columns=["genre"]).add_texts(["x"])

    def test_scores_are_mean_cosines_and_relevance_lies_between_0_and_1(self, store):
        store.add_texts(["abc", "xyz"], ids=["1", "2"])
        scored = store.similarity_search_with_score("abc", k=2)
        assert scored[0][1] > 0.9 > scored[1][1]
        relevant = store.similarity_search_with_relevance_scores("abc", k=2)
        assert [score for _, score in relevant] == [min(max(score, 0.0), 1.0) for _, score in scored]
        threshold = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.9})
        assert [document.id for document in threshold.invoke("abc")] == ["1"]

    def test_deleting_without_ids_empties_the_store(self, store):
        assert store.delete()
        store.add_texts(["abc", "xyz"])
        assert store.delete()
        assert store.similarity_search("abc") == []
        store.add_texts(["abc"], ids=["1"])
        assert [document.id for document in store.similarity_search("abc")] == ["1"]

    def test_documents_may_be_deleted_by_a_condition(self, store):
        store.add_texts(["abc", "abd", "abe"], [{"year": 1900}, {"year": 2000}, {}], ids=["1", "2", "3"])
        assert store.delete(where="year < 1950")
        assert sorted(document.id for document in store.similarity_search("abc")) == ["2", "3"]
        with pytest.raises(InputError, match="century"):
            store.delete(where="century = 3")

    @pytest.mark.parametrize("arguments", [{"filter": {"year": 1900}}, {"ids": ["1"], "where": "year < 1950"}])
    def test_what_cannot_be_deleted_by_is_refused_and_nothing_deleted(self, store, arguments):
        store.add_texts(["abc", "abd"], ids=["1", "2"])
        with pytest.raises(InputError, match="ids"):
            store.delete(**arguments)
        assert len(store.get_by_ids(["1", "2"])) == 2

    def test_an_unknown_argument_is_refused(self, store, tmp_path):
        with pytest.raises(InputError, match="unknown argument 'metadata'; use texts, metadatas, ids"):
            store.add_texts(["abc"], metadata=[{"n": 1}])
        with pytest.raises(TypeError, match="'colums'"):
            TansakuVectorStore.from_texts(["abc"], db=tmp_path, table="t", colums=["n"])
        assert store.index is None

    async def test_an_unknown_argument_of_an_asynchronous_method_is_refused(self, store):
        store.add_texts(["abc", "abd"], ids=["1", "2"])
        with pytest.raises(InputError, match="'expr'"):
            await store.adelete(expr="id == '1'")
        with pytest.raises(InputError, match="'filters'"):
            await store.asimilarity_search("abc", filters={"id": "1"})
        with pytest.raises(InputError, match="'namespace'"):
            await store.aadd_documents([Document("abe")], namespace="n")
        assert len(store.get_by_ids(["1", "2"])) == len(store.similarity_search("abc")) == 2

    def test_a_retriever_over_the_store_drops_no_argument(self, store):
        store.add_texts(["abc", "abd"], [{"year": 1}, {"year": 2}], ids=["1", "2"])
        with pytest.raises(InputError, match="'where'"):
            store.as_retriever(where="year < 2")
        with pytest.raises(InputError, match="'filters'"):
            store.as_retriever(search_kwargs={"filters": {"year": 1}})
        with pytest.raises(InputError, match="filter is str"):
            store.as_retriever(search_kwargs={"filter": "year"})
        retriever = store.as_retriever(search_kwargs={"k": 1, "where": "year < 2"}, tags=["t"], metadata={"n": 1})
        assert [document.id for document in retriever.invoke("abd")] == ["1"]
        with pytest.raises(InputError, match="'filters'"):
            retriever.invoke("abc", filters={"year": 1})
        sure = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.999})
        assert [document.id for document in sure.invoke("abc")] == ["1"]

    def test_documents_may_be_filtered_by_metadata_that_have_no_column(self, tmp_path, encoder):
        days = [date(2000, 1, day) for day in (1, 2, 1)]
        documents = [
            Document(text, id=text, metadata={"day": day, "n": i})
            for i, (text, day) in enumerate(zip(("abc", "abd", "abe"), days, strict=True))
        ]
        store = TansakuVectorStore.from_documents(documents, db=tmp_path, table="t", encoder=encoder)

        def found(**options):
            return {document.id for document in store.similarity_search("abd", **options)}

        assert found(filter={"day": days[0]}) == {"abc", "abe"}
        assert found(filter={"day": days[0], "n": 2}) == {"abe"}
        assert found(filter=lambda document: document.metadata["n"] < 2, ids=["abd", "abe"]) == {"abd"}
        assert found(filter={"m": None}) == set()
        assert found(filter={}) == {"abc", "abd", "abe"}
        retriever = store.as_retriever(search_kwargs={"filter": {"n": 2}, "k": 2})
        assert [document.id for document in retriever.invoke("abd")] == ["abe"]

    def test_an_embedding_is_said_to_be_ignored(self, tmp_path, encoder, caplog):
        place: dict[str, Any] = {"db": tmp_path, "table": "t", "encoder": encoder}
        with caplog.at_level(logging.WARNING, LOGGED):
            TansakuVectorStore.from_texts(["abc"], None, **place)
            assert not caplog.messages
            TansakuVectorStore.from_texts(["abd"], cast("Embeddings", object()), **place)
        assert "the embedding is ignored" in caplog.text

    def test_langchain_s_own_indexing_keeps_the_store_in_step(self, store):
        records = InMemoryRecordManager("here")
        records.create_schema()

        def indexed(*texts):
            documents = [Document(text, metadata={"source": text[0]}) for text in texts]
            return index(documents, records, store, cleanup="full", source_id_key="source", key_encoder="sha256")

        assert indexed("abc", "xyz")["num_added"] == 2
        assert indexed("abc", "xyz")["num_skipped"] == 2
        assert indexed("abd")["num_deleted"] == 2
        assert [document.page_content for document in store.similarity_search("abc")] == ["abd"]

    def test_another_store_s_changes_are_seen(self, store, tmp_path, encoder, caplog):
        with caplog.at_level(logging.WARNING, LOGGED):
            assert store.similarity_search("abc") == []
        assert "'t' does not exist yet" in caplog.text
        other = TansakuVectorStore(tmp_path / "store", "t", encoder=encoder, columns=["year"])
        other.add_texts(["abc"], ids=["1"])
        assert len(store.similarity_search("abc")) == 1
        other.add_texts(["abd"], ids=["2"])
        assert len(store.similarity_search("abc")) == 2
        index = other.index
        assert index is not None
        index.rebuild()
        assert len(store.similarity_search("abc")) == 2
        store._table.database.drop_table("t")
        assert store.similarity_search("abc") == []

    def test_several_threads_may_add_and_search(self, store):
        def add_and_find(n):
            store.add_texts([f"{n}{n}{n}"], ids=[str(n)])
            return [document.id for document in store.similarity_search(f"{n}{n}{n}", k=1)]

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(add_and_find, range(4))) == [[str(n)] for n in range(4)]

    def test_a_table_that_another_process_makes_meanwhile_is_added_to(self, store, tmp_path, encoder, monkeypatch):
        TansakuVectorStore(tmp_path / "store", "t", encoder=encoder, columns=["year"]).add_texts(["abc"])
        answers = iter([None, store._table._opened()])
        monkeypatch.setattr(store._table, "_opened", lambda: next(answers))
        store.add_texts(["abd"])
        monkeypatch.undo()
        assert len(store.similarity_search("abc")) == 2

    def test_texts_that_are_cut_are_counted_in_the_log(self, store, caplog):
        with caplog.at_level(logging.WARNING, LOGGED):
            store.add_texts(["abc", "abcdefghijklmnopq"])
        assert "1 of 2 texts are longer" in caplog.text

    async def test_from_texts_and_documents_need_no_embedding(self, tmp_path, encoder):
        options: dict[str, Any] = {"db": tmp_path, "encoder": encoder, "fulltext": True}
        no_embedding = cast("Embeddings", None)
        first = TansakuVectorStore.from_texts(["abc"], metadatas=[{"n": 1}], ids=["1"], table="a", **options)
        second = await TansakuVectorStore.afrom_documents(first.get_by_ids(["1"]), no_embedding, table="b", **options)
        assert second.similarity_search("abc", source="fused") == [Document("abc", id="1", metadata={"n": 1})]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("abc",), "texts is one string"),
            ((["abc"], [{}, {}]), "1 texts and 2 metadatas"),
            ((["abc"], [None]), "document '0': its metadata is NoneType"),
            ((["abc", " "], [{}, {}]), r"text 1 is blank.*skip_blank=True"),
            ((["abc", 3], [{}, {}]), "field 'text' of '1' must be a string"),
        ],
    )
    def test_wrong_texts_are_named(self, store, arguments, said):
        with pytest.raises(InputError, match=said):
            store.add_texts(*arguments, ids=[str(i) for i in range(len(arguments[0]))])

    def test_wrong_ids_are_named(self, store):
        with pytest.raises(InputError, match="2 texts and 1 ids"):
            store.add_texts(["abc", "abd"], ids=["1"])
        with pytest.raises(InputError, match="id '1' occurs twice"):
            store.add_texts(["abc", "abd"], ids=["1", "1"])
        for method in (store.get_by_ids, store.delete):
            store.add_texts(["abc"], ids=["1"])
            with pytest.raises(InputError, match="ids is one string"):
                method("1")
        assert store.add_texts([]) == []
        assert store.get_by_ids([]) == []

    def test_wrong_searches_are_named(self, store):
        store.add_texts(["abc"])
        for query, options, said in (
            ("", {}, "query is empty"),
            ("abc", {"k": 0}, "k is 0"),
            ("abc", {"filters": {"year": 3}}, "unknown search option 'filters'"),
            ("abc", {"filter": ["year"]}, "filter is list"),
            ("abc", {"filter": {"year": {"$gt": 3}}}, "filter has an object for 'year'"),
        ):
            with pytest.raises(InputError, match=said):
                store.similarity_search(query, **options)

    def test_documents_that_something_else_added_have_no_metadata(self, store, tmp_path, encoder):
        store.add_texts(["abc"], ids=["a"], metadatas=[{"n": 1}])
        Index.open(tmp_path / "store", "t", encoder=encoder).add([{"id": "b", "text": "abd"}])
        assert {d.id: d.metadata for d in store.get_by_ids(["a", "b"])} == {"a": {"n": 1}, "b": {}}

    def test_wrong_names_and_foreign_tables_are_refused(self, store, db, tmp_path, encoder):
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"columns": "year"}, "columns is one string"),
            ({"columns": ["title"]}, "columns has 'title'"),
            ({"table": "a/b"}, "table name 'a/b'"),
        ]
        for options, said in wrong:
            with pytest.raises(InputError, match=said):
                TansakuVectorStore(**{"db": tmp_path, "table": "t", "encoder": encoder} | options)
        foreign = TansakuVectorStore(db, "t", encoder=encoder)
        for action in (lambda: foreign.similarity_search("a"), lambda: foreign.add_texts(["a"]), foreign.delete):
            with pytest.raises(InputError, match="not made by TansakuVectorStore"):
                action()
        store.add_texts(["abc"])
        with pytest.raises(ModelMismatchError):
            TansakuVectorStore(tmp_path / "store", "t", encoder=FakeEncoder("other")).similarity_search("abc")


def test_the_real_model_finds_japanese(tmp_path, default_encoder):
    texts = ["海の水は塩辛い。", "法隆寺は607年に建てられた、世界最古の木造建築である。", "京都は794年から都だった。"]
    store = TansakuVectorStore.from_texts(texts, db=tmp_path, table="t", encoder=default_encoder)
    found = store.similarity_search("日本で一番古い木の建物は？", k=3)
    assert found[0].page_content == texts[1]
    reranker = Reranker(default_encoder)
    by_text = TansakuCompressor(reranker=reranker, k=1).compress_documents(found[::-1], "昔の首都はどこ？")
    assert [document.page_content for document in by_text] == [texts[2]]


def test_the_recipe_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", RECIPE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, RECIPE.name, "exec"), names)  # noqa: S102
    assert names["found"][0].id == "kyoto"
    assert [document.id for document in names["reranked"]] == ["kyoto"]
    assert [document.id for document in names["older"]] == ["horyuji"]


@pytest.mark.parametrize("module", ["langchain.retriever", "langchain.store"])
def test_without_langchain_the_extra_is_named(module, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("langchain_core")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith("tansaku.plugin.hosts.langchain")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'tansaku[langchain]'")):
        importlib.import_module(f"tansaku.plugin.hosts.{module}")
