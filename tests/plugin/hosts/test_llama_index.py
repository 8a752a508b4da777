"""LlamaIndex: retriever and node postprocessor, and the events that its users trace."""

from __future__ import annotations

import copy
import importlib
import logging
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, ImageNode, IndexNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler
from pydantic import ValidationError

from tansaku import Index, InputError, MissingExtraError, Reranker, Searcher
from tansaku.plugin.hosts.llama_index import TansakuRerank, TansakuRetriever, node_records
from tansaku.plugin.hosts.llama_index import rerank as rerank_module

from ...support.fakes import FakeEncoder, corpus, exhaustive

pytestmark = pytest.mark.integration

RECIPE = Path(__file__).parents[3] / "docs" / "how-to" / "llama-index.md"
QUERY = "3a9f"
DOCS = corpus(12, year=lambda i: 1900 + i, title=lambda i: "ab" if i == 4 else "")


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """A database whose table ``t`` has `DOCS`; not to be changed."""
    folder = tmp_path_factory.mktemp("llama")
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
def rerank(searcher):
    return TansakuRerank(Reranker(searcher=searcher))


def by_maxsim(db):
    """Ids and mean scores of all documents, best first."""
    best = exhaustive(db, FakeEncoder().vectors(QUERY))
    return [doc_id for doc_id, _ in best], [score / len(QUERY) for _, score in best]


def nodes(*pairs):
    return [
        NodeWithScore(node=TextNode(id_=doc_id, text=text), score=float(n)) for n, (doc_id, text) in enumerate(pairs)
    ]


class TestRetriever:
    def test_nodes_carry_the_row_and_a_mean_cosine(self, searcher, db):
        ids, scores = by_maxsim(db)
        found = TansakuRetriever(searcher, similarity_top_k=12).retrieve(QUERY)
        assert [node.node_id for node in found] == ids
        assert [node.score for node in found] == pytest.approx(scores, abs=1e-5)
        by_id = {doc["id"]: doc for doc in DOCS}
        assert [node.text for node in found] == [by_id[doc_id]["text"] for doc_id in ids]
        metadata = {node.node_id: node.metadata for node in found}
        assert metadata["d4"] == {"year": 1904, "title": "ab"}
        assert metadata["d5"] == {"year": 1905}

    @pytest.mark.parametrize("options", [{"where": "year < 1903"}, {"ids": ["d0", "d2"]}, {"recall": 0.95}])
    async def test_options_are_those_of_a_search(self, searcher, options):
        retriever = TansakuRetriever(searcher, similarity_top_k=5, **options)
        expected = [hit.id for hit in searcher.search(QUERY, 5, **options)]
        assert [node.node_id for node in retriever.retrieve(QueryBundle(QUERY))] == expected
        assert [node.node_id for node in await retriever.aretrieve(QUERY)] == expected

    @pytest.mark.parametrize("source", ["text", "fused"])
    def test_candidates_may_come_from_full_text(self, searcher, source):
        found = TansakuRetriever(searcher, similarity_top_k=1, source=source, candidates=2).retrieve(DOCS[3]["text"])
        assert [node.text for node in found] == [DOCS[3]["text"]]

    def test_the_scale_of_the_scores_can_be_chosen(self, searcher):
        retrievers = [TansakuRetriever(searcher, similarity_top_k=1, score=score) for score in ("mean", "raw")]
        mean, raw = (retriever.retrieve(QUERY)[0].get_score(raise_error=True) for retriever in retrievers)
        assert raw == pytest.approx(mean * len(QUERY))

    def test_ids_that_the_index_has_not_are_counted_in_the_log(self, searcher, caplog):
        with caplog.at_level(logging.WARNING, "tansaku.plugin.hosts"):
            TansakuRetriever(searcher, ids=["d1", "zz", "yy"]).retrieve(QUERY)
        assert "2 of the ids" in caplog.text

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"similarity_top_k": 0}, "similarity_top_k is 0"),
            ({"recall": "most"}, "unknown recall 'most'"),
            ({"score": "best"}, "unknown score 'best'"),
            ({"bm25_weight": 0.1}, "set source to 'fused' or 'text'"),
        ],
    )
    def test_wrong_options_are_refused_at_once(self, searcher, options, said):
        with pytest.raises(InputError, match=said):
            TansakuRetriever(searcher, **options)

    def test_an_unknown_option_is_refused(self, searcher):
        options: dict[str, Any] = {"filter": "year < 1950"}
        with pytest.raises(TypeError, match="'filter'"):
            TansakuRetriever(searcher, **options)

    def test_an_embedding_beside_the_query_is_said_to_be_ignored(self, searcher, caplog):
        with caplog.at_level(logging.WARNING, "tansaku.plugin.hosts"):
            TansakuRetriever(searcher).retrieve(QueryBundle(QUERY))
            assert not caplog.messages
            TansakuRetriever(searcher).retrieve(QueryBundle(QUERY, custom_embedding_strs=["other"]))
        assert "custom_embedding_strs" in caplog.text

    def test_the_old_name_of_the_number_works_and_warns(self, searcher):
        with pytest.warns(DeprecationWarning, match="similarity_top_k"):
            retriever = TansakuRetriever(searcher, k=2)
        assert len(retriever.retrieve(QUERY)) == 2

    @pytest.mark.parametrize(
        ("query", "options"), [("", {}), (QUERY, {"where": "century = 3"}), (QUERY, {"ids": "d1"})]
    )
    def test_wrong_calls_are_refused(self, searcher, query, options):
        with pytest.raises(InputError):
            TansakuRetriever(searcher, **options).retrieve(query)


class TestRerank:
    def test_stored_ids_are_ranked_by_codes_and_the_others_by_text(self, rerank, encoder, db):
        found = rerank.postprocess_nodes(
            nodes(("d4", "never read"), ("yy", QUERY), ("zz", "ab"), ("d7", "never read")), query_str=QUERY
        )
        assert encoder.encoded == [QUERY, "ab"]
        assert found[0].node_id == "yy"
        scores = dict(zip(*by_maxsim(db), strict=True))
        by_id = {node.node_id: node.score for node in found}
        assert [by_id["d4"], by_id["d7"]] == pytest.approx([scores["d4"], scores["d7"]], abs=1e-5)
        assert [node.score for node in found] == sorted(by_id.values(), reverse=True)

    async def test_sync_and_async_are_one(self, rerank):
        given = nodes(("d4", "x"), ("d7", "y"), ("d1", "z"))
        bundle = QueryBundle(QUERY)
        assert rerank.postprocess_nodes(given, bundle) == await rerank.apostprocess_nodes(given, bundle)

    @pytest.mark.parametrize("keep", [False, True])
    def test_what_is_given_stays_as_it_is(self, searcher, keep):
        given = nodes(("d4", "x"), ("zz", QUERY))
        rerank = TansakuRerank(Reranker(searcher=searcher), keep_retrieval_score=keep)
        found = rerank.postprocess_nodes(given, query_str=QUERY)
        assert given == nodes(("d4", "x"), ("zz", QUERY))
        assert [node.metadata for node in found] == (
            [{"retrieval_score": 1.0}, {"retrieval_score": 0.0}] if keep else [{}] * 2
        )

    def test_the_text_is_what_would_be_embedded(self, encoder):
        node = TextNode(text="body", metadata={"a": 1, "b": 2}, excluded_embed_metadata_keys=["b"])
        TansakuRerank(Reranker(encoder)).postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
        assert encoder.encoded == ["a: 1\n\nbody"]

    def test_other_kinds_of_nodes_keep_their_kind(self, encoder):
        given = [NodeWithScore(node=ImageNode(image_url="x")), NodeWithScore(node=Document(text=QUERY))]
        rerank = TansakuRerank(Reranker(encoder), keep_retrieval_score=True)
        found = rerank.postprocess_nodes(given, query_str=QUERY)
        assert [type(node.node) for node in found] == [Document, ImageNode]
        assert found[0].get_content() == QUERY
        assert found[1].score == 0.0

    def test_nothing_and_doubles_are_taken_as_they_come(self, rerank):
        assert rerank.postprocess_nodes([], query_str=QUERY) == []
        assert len(rerank.postprocess_nodes(nodes(("d4", "x"), ("d4", "x"), ("zz", "")), query_str=QUERY)) == 3

    def test_top_n_and_the_scale_can_be_chosen(self, searcher):
        given = nodes(*((doc["id"], doc["text"]) for doc in DOCS))
        every, best = (TansakuRerank(Reranker(searcher=searcher), top_n=n) for n in (12, 3))
        raw = TansakuRerank(Reranker(searcher=searcher), top_n=3, score="raw")
        found = every.postprocess_nodes(given, query_str=QUERY)
        assert best.postprocess_nodes(given, query_str=QUERY) == found[:3]
        assert [node.score for node in raw.postprocess_nodes(given, query_str=QUERY)] == pytest.approx(
            [node.get_score(raise_error=True) * len(QUERY) for node in found[:3]]
        )

    def test_callbacks_see_the_reranking(self, searcher):
        handler = LlamaDebugHandler(print_trace_on_end=False)
        rerank = TansakuRerank(Reranker(searcher=searcher), top_n=1, callback_manager=CallbackManager([handler]))
        found = rerank.postprocess_nodes(nodes(("d4", "x"), ("d7", "y")), query_str=QUERY)
        ((start, end),) = handler.get_event_pairs(CBEventType.RERANKING)
        assert start.payload is not None
        assert end.payload is not None
        assert start.payload["top_k"] == 1
        assert start.payload["model_name"] == "fake"
        assert start.payload["query_str"] == QUERY
        assert len(start.payload["nodes"]) == 2
        assert end.payload["nodes"] == found

    def test_instrumentation_sees_the_reranking(self, rerank, monkeypatch):
        seen = []

        class Handler(BaseEventHandler):
            def handle(self, event, **kwargs):
                seen.append(event)

        monkeypatch.setattr(get_dispatcher(), "event_handlers", [Handler()])
        found = rerank.postprocess_nodes(nodes(("d4", "x")), query_str=QUERY)
        start, end = (event for event in seen if isinstance(event, (ReRankStartEvent, ReRankEndEvent)))
        assert isinstance(start, ReRankStartEvent)
        assert isinstance(end, ReRankEndEvent)
        assert (start.model_name, start.top_n, start.query) == ("fake", 10, QueryBundle(QUERY))
        assert end.nodes == found

    def test_it_is_described_as_llama_index_does(self):
        described = TansakuRerank().to_dict()
        assert described["reranker"].pop("fingerprint")
        assert described == {
            "top_n": 10,
            "score": "mean",
            "keep_retrieval_score": False,
            "class_name": "TansakuRerank",
            "reranker": {"model": None, "phrase_weight": None},
        }

    @pytest.mark.parametrize("how", ["dict", "json", "pickle", "copy"])
    @pytest.mark.parametrize("with_index", [True, False])
    def test_index_model_and_options_come_back(self, tmp_path, default_encoder, how, with_index):
        index = Index.create(tmp_path, "t", DOCS, encoder=default_encoder)
        searcher = Searcher.open(tmp_path, "t", encoder=index.encoder) if with_index else None
        encoder = None if with_index else default_encoder
        made = TansakuRerank(Reranker(encoder, searcher=searcher, phrase_weight=0.25), top_n=3, score="raw")
        back = {
            "dict": lambda: TansakuRerank.from_dict(made.to_dict()),
            "json": lambda: TansakuRerank.from_json(made.to_json()),
            "pickle": lambda: pickle.loads(pickle.dumps(made)),
            "copy": lambda: copy.deepcopy(made),
        }[how]()
        assert back.to_dict() == made.to_dict()
        given = nodes(("d4", "never read"), ("d7", "never read"), ("zz", "ab"), ("d1", ""))
        assert back.postprocess_nodes(given, query_str=QUERY) == made.postprocess_nodes(given, query_str=QUERY)
        assert (back._reranker.searcher is None) != with_index

    def test_what_cannot_come_back_is_an_error(self, rerank, searcher, default_encoder, tmp_path, monkeypatch):
        for describe in (rerank.to_dict, rerank.to_json, lambda: pickle.dumps(rerank)):
            with pytest.raises(InputError, match="'fake'"):
                describe()
        Index.create(tmp_path, "t", DOCS, encoder=default_encoder)
        opened = Searcher.open(tmp_path, "t", encoder=default_encoder)
        made = TansakuRerank(Reranker(searcher=opened))
        monkeypatch.setattr(rerank_module, "location_of", lambda database: ("s3://a/b", {"secret": "x"}))
        with pytest.raises(InputError, match="credentials"):
            made.to_dict()
        other = {"reranker": {**TansakuRerank(Reranker(default_encoder)).to_dict()["reranker"], "fingerprint": "x"}}
        with pytest.raises(InputError, match="not the one that was written down"):
            TansakuRerank.from_dict(other)
        with pytest.raises(TypeError, match="topn"):
            TansakuRerank.from_dict({"topn": 3})

    def test_another_reranker_may_be_given(self, searcher, default_encoder):
        described = TansakuRerank(Reranker(default_encoder), top_n=2).to_dict()
        back = TansakuRerank.from_dict(described, reranker=Reranker(searcher=searcher))
        assert (back.top_n, back._reranker.searcher) == (2, searcher)


class TestNodeRecords:
    @pytest.fixture
    def split(self):
        whole = Document(
            text="犬は嗅覚が鋭い。" * 3, metadata={"year": 1950, "title": "犬", "secret": "x"}, id_="whole"
        )
        whole.excluded_embed_metadata_keys = ["secret"]
        whole.excluded_llm_metadata_keys = ["secret", "year"]
        return SentenceSplitter(chunk_size=32, chunk_overlap=0).get_nodes_from_documents([whole])

    def test_nodes_come_back_as_they_were(self, split, tmp_path):
        Index.create(tmp_path, "t", node_records(split, columns=["year"]), encoder=FakeEncoder())
        retriever = TansakuRetriever(Searcher.open(tmp_path, "t", encoder=FakeEncoder()), 9, where="year < 2000")
        found = {scored.node_id: scored.node for scored in retriever.retrieve(QUERY)}
        assert found == {node.node_id: node for node in split}
        for node in found.values():
            assert node.ref_doc_id == "whole"
            prompt = node.get_content(MetadataMode.LLM)
            assert (prompt.count("title: 犬"), "secret" in prompt, "year" in prompt) == (1, False, False)

    def test_each_kind_of_node_comes_back_as_its_kind(self, tmp_path):
        given = [
            Document(text="abc", id_="a", metadata={"n": 1}),
            IndexNode(text="abd", id_="b", index_id="other"),
            ImageNode(text="abe", id_="c", image_url="x"),
            TextNode(text="abf", id_="d", metadata={"nested": {"list": [1, None]}}),
        ]
        Index.create(tmp_path, "t", node_records(given), encoder=FakeEncoder())
        found = TansakuRetriever(Searcher.open(tmp_path, "t", encoder=FakeEncoder())).retrieve("abc")
        by_id = {scored.node_id: scored.node for scored in found}
        assert [by_id[node.node_id] for node in given] == given
        assert [type(by_id[node.node_id]) for node in given] == [type(node) for node in given]

    def test_documents_that_are_no_nodes_come_back_with_their_columns(self, split, tmp_path):
        index = Index.create(tmp_path, "t", node_records(split), encoder=FakeEncoder())
        index.add([{"id": "plain", "text": QUERY, "year": 1904}])
        retriever = TansakuRetriever(Searcher.open(tmp_path, "t", encoder=FakeEncoder()), 9)
        found = {scored.node_id: scored.node for scored in retriever.retrieve(QUERY)}
        assert found["plain"].metadata == {"year": 1904}
        assert [found[node.node_id] for node in split] == split

    def test_what_is_searched_is_what_would_be_embedded(self, split):
        assert [record["text"] for record in node_records(split)] == [n.get_content(MetadataMode.EMBED) for n in split]

    def test_what_cannot_be_kept_is_refused(self):
        with pytest.raises(InputError, match="node 'a' holds a value that JSON cannot keep"):
            node_records([TextNode(id_="a", text="b", metadata={"x": object()})])
        for columns in (["text"], ["llama_index_node"], "year"):
            with pytest.raises(InputError, match="columns"):
                node_records([], columns=columns)

    @pytest.mark.parametrize("fields", [{"top_n": 0}, {"top_n": "many"}, {"score": "best"}])
    def test_wrong_fields_are_refused_at_once(self, encoder, fields):
        with pytest.raises(ValidationError, match=next(iter(fields))):
            TansakuRerank(Reranker(encoder), **fields)

    def test_a_query_is_needed(self, rerank):
        with pytest.raises(InputError, match="no query to rank by"):
            rerank.postprocess_nodes(nodes(("d4", "x")))
        with pytest.raises(InputError, match="query is empty"):
            rerank.postprocess_nodes(nodes(("d4", "x")), query_str=" ")


def test_the_recipe_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", RECIPE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, RECIPE.name, "exec"), names)  # noqa: S102
    assert [node.node_id for node in names["reranked"]] == ["kyoto"]
    assert names["found"][0].node_id == "kyoto"
    assert [node.node_id for node in names["older"]] == ["horyuji"]
    assert [node.node_id for node in names["answer"].source_nodes] == ["kyoto"]
    assert {node.node_id for node in names["before_1000"]} == {"kyoto", "horyuji"}
    assert [node.node_id for node in names["fast"]] == ["horyuji"]


def test_without_llama_index_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("llama_index")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith("tansaku.plugin.hosts.llama_index")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'tansaku[llama-index]'")):
        importlib.import_module("tansaku.plugin.hosts.llama_index")
