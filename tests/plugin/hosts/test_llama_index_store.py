"""LlamaIndex: the vector store, as LlamaIndex's own indexes, pipelines and retrievers use it."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import HierarchicalNodeParser, SentenceSplitter, get_leaf_nodes
from llama_index.core.retrievers import AutoMergingRetriever
from llama_index.core.schema import Document, ImageNode, IndexNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, SimpleVectorStore, VectorStoreQuery
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, VectorStoreQueryMode

from tansaku import InputError, Searcher
from tansaku.plugin.hosts.llama_index import TansakuRetriever, TansakuVectorStore

from ...support.fakes import FakeEncoder

pytestmark = pytest.mark.integration

EMBEDDING = MockEmbedding(embed_dim=1)
LOGGED = "tansaku.plugin.hosts"


def node(node_id: str, text: str, ref_doc: str | None = None, **metadata: Any) -> TextNode:
    made = TextNode(id_=node_id, text=text, metadata=metadata)
    made.excluded_embed_metadata_keys = list(metadata)
    if ref_doc:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=ref_doc)
    return made


NODES = [
    node("a", "abcdef", "one", year=1900, tags=["x", "y"], genre="temple"),
    node("b", "abcxyz", "one", year=1950, tags=["y"], genre="Shrine"),
    node("c", "uvwxyz", "two", year=2000, genre=""),
    node("d", "123456", "three"),
]


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture
def empty(tmp_path, encoder):
    return TansakuVectorStore(tmp_path / "db", "t", encoder=encoder, columns=["year"], fulltext=True)


@pytest.fixture
def store(empty):
    assert empty.add(NODES) == ["a", "b", "c", "d"]
    return empty


def ids(nodes) -> list[str]:
    return [found.node_id for found in nodes]


def is_(key: str, value: Any, operator: str = "==") -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=FilterOperator(operator))


def both(*filters: Any, condition: str = "and") -> MetadataFilters:
    return MetadataFilters(filters=list(filters), condition=FilterCondition(condition))


def test_an_index_over_the_store_finds_nodes_whole_and_embeds_no_query(store):
    class NoQueries(MockEmbedding):
        def _get_query_embedding(self, query: str) -> list[float]:
            raise AssertionError(query)

    index = VectorStoreIndex.from_vector_store(store, embed_model=NoQueries(embed_dim=1))
    found = index.as_retriever(similarity_top_k=2).retrieve("abcdef")
    assert ids(found) == ["a", "b"]
    assert found[0].node.model_dump() == NODES[0].model_dump()
    assert (found[0].node.ref_doc_id, found[0].score) == ("one", pytest.approx(1.0, abs=0.05))
    assert len(index.as_retriever(similarity_top_k=4).retrieve("abcdef")) == 4


def test_documents_are_inserted_updated_and_deleted_through_an_index(empty):
    index = VectorStoreIndex.from_documents(
        [Document(id_="one", text="abcdef"), Document(id_="two", text="uvwxyz")],
        storage_context=StorageContext.from_defaults(vector_store=empty),
        embed_model=EMBEDDING,
    )
    index.insert(Document(id_="three", text="123456"))
    retriever = index.as_retriever(similarity_top_k=1)
    assert [found.node.ref_doc_id for found in retriever.retrieve("123456")] == ["three"]
    index.delete_ref_doc("three")
    index.update_ref_doc(Document(id_="two", text="345678"))
    assert [found.node.ref_doc_id for found in retriever.retrieve("345678")] == ["two"]
    assert sorted(found.ref_doc_id or "" for found in empty.get_nodes()) == ["one", "two"]


def test_a_pipeline_with_a_docstore_writes_what_has_changed(empty):
    docstore = SimpleDocumentStore()
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), EMBEDDING],
        docstore=docstore,
        vector_store=empty,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    assert len(pipeline.run(documents=[Document(id_="one", text="abcdef"), Document(id_="two", text="uvwxyz")])) == 2
    assert pipeline.run(documents=[Document(id_="one", text="abcdef"), Document(id_="two", text="uvwxyz")]) == []
    pipeline.run(documents=[Document(id_="one", text="345678")])
    assert [(found.ref_doc_id, found.get_content()) for found in empty.get_nodes()] == [("one", "345678")]


def test_small_nodes_are_merged_into_their_parents(empty):
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[64, 16], chunk_overlap=0)
    parents = parser.get_nodes_from_documents([Document(id_="one", text=". ".join(["abcdef ghijk lmnop"] * 8))])
    leaves = get_leaf_nodes(parents)
    assert len(leaves) > 2
    storage = StorageContext.from_defaults(vector_store=empty)
    storage.docstore.add_documents(parents)
    index = VectorStoreIndex(leaves, storage_context=storage, embed_model=EMBEDDING)
    base = index.as_retriever(similarity_top_k=len(leaves))
    merged = AutoMergingRetriever(base, storage).retrieve("abcdef")  # pyright: ignore[reportArgumentType]
    assert 0 < len(merged) < len(leaves)
    assert {found.node_id for found in merged} <= {parent.node_id for parent in parents} - {
        leaf.node_id for leaf in leaves
    }


@pytest.mark.parametrize(
    "filters",
    [
        both(is_("year", 1950)),
        both(is_("year", 1900, ">"), is_("year", 2000, "<")),
        both(is_("year", 1950, "!=")),
        both(is_("genre", ["temple", "x"], "in")),
        both(is_("genre", ["temple"], "nin")),
        both(is_("tags", "y", "contains")),
        both(is_("tags", ["x", "q"], "any")),
        both(is_("tags", ["x", "y"], "all")),
        both(is_("genre", "shrine", "text_match_insensitive")),
        both(is_("genre", None, "is_empty")),
        both(is_("year", 1900), is_("genre", "Shrine"), condition="or"),
        both(is_("year", 1900), is_("genre", "Shrine"), condition="not"),
    ],
    ids=str,
)
def test_filters_mean_what_they_mean_in_llama_indexes_own_store(store, filters):
    theirs = SimpleVectorStore()
    theirs.add([one.model_copy(update={"embedding": [1.0]}) for one in NODES])
    expected = theirs.query(VectorStoreQuery(query_embedding=[1.0], similarity_top_k=9, filters=filters)).ids
    found = VectorStoreIndex.from_vector_store(store, EMBEDDING).as_retriever(similarity_top_k=9, filters=filters)
    assert sorted(ids(found.retrieve("abcdef"))) == sorted(expected or ())
    assert sorted(ids(store.get_nodes(filters=filters))) == sorted(expected or ())


def test_filters_may_hold_filters_and_what_cannot_be_compared_is_named(store):
    nested = both(is_("year", 1900), both(is_("year", 1940, ">"), is_("tags", "y", "contains")), condition="or")
    assert sorted(ids(store.get_nodes(filters=nested))) == ["a", "b"]
    assert ids(store.get_nodes(["b", "a", "gone"], both(is_("year", 1940, ">")))) == ["b"]
    with pytest.raises(InputError, match=r"the filter year > 'x' cannot be applied to 1900"):
        store.get_nodes(filters=both(is_("year", "x", ">")))


def test_nodes_are_got_and_deleted_by_id_filter_and_document(store):
    assert ids(store.get_nodes(["c", "gone", "a"])) == ["c", "a"]
    store.delete_nodes(["d", "gone"])
    store.delete_nodes(filters=both(is_("year", 2000)))
    store.delete_nodes(["a", "b"], both(is_("year", 1900)))
    assert ids(store.get_nodes()) == ["b"]
    store.delete("two")
    store.delete("one")
    assert store.get_nodes() == []
    store.add(NODES)
    with pytest.raises(InputError, match="give node_ids or filters"):
        store.delete_nodes()
    store.clear()
    assert store.get_nodes() == []


def test_a_query_may_name_nodes_and_documents(store):
    def query(**options: Any) -> list[str]:
        asked = VectorStoreQuery(query_str="abcdef", similarity_top_k=9, **options)
        return sorted(store.query(asked).ids)

    assert query(doc_ids=["one", "three"]) == ["a", "b", "d"]
    assert query(node_ids=["a", "c"]) == ["a", "c"]
    assert query(node_ids=["a", "c"], doc_ids=["two"]) == ["c"]
    assert query(doc_ids=["gone"]) == []


def test_modes_and_options_of_the_search(store):
    index = VectorStoreIndex.from_vector_store(store, EMBEDDING)
    for mode in ("hybrid", "text_search"):
        assert ids(index.as_retriever(vector_store_query_mode=mode, similarity_top_k=1).retrieve("uvwxyz")) == ["c"]
    older = index.as_retriever(similarity_top_k=9, vector_store_kwargs={"where": "year < 1960"})
    assert ids(older.retrieve("abcdef")) == ["a", "b"]
    with pytest.raises(InputError, match=r"vector_store_query_mode 'mmr' needs one vector for a text"):
        index.as_retriever(vector_store_query_mode=VectorStoreQueryMode.MMR).retrieve("abc")
    with pytest.raises(InputError, match="unknown search option 'year'"):
        index.as_retriever(vector_store_kwargs={"year": 1}).retrieve("abc")
    with pytest.raises(InputError, match="has no text"):
        store.query(VectorStoreQuery(query_embedding=[1.0]))


async def test_everything_has_an_asynchronous_twin(empty):
    await empty.async_add(NODES)
    await empty.adelete("two")
    await empty.adelete_nodes(["d"])
    assert sorted(ids(await empty.aget_nodes())) == ["a", "b"]
    index = VectorStoreIndex.from_vector_store(empty, EMBEDDING)
    assert ids(await index.as_retriever(similarity_top_k=1).aretrieve("abcdef")) == ["a"]
    await empty.aclear()
    assert await empty.aget_nodes() == []


def test_a_pickled_store_is_opened_again_where_it_lies(tmp_path, default_encoder):
    made = TansakuVectorStore(tmp_path, "t", columns=["year"])
    made.add([node("kyoto", "京都は昔の首都。", year=794)])
    again = pickle.loads(pickle.dumps(made))
    assert ids(again.get_nodes()) == ["kyoto"]
    again.add([node("sea", "海の水は塩辛い。", year=2000)])
    assert sorted(ids(made.get_nodes())) == ["kyoto", "sea"]


def test_a_store_without_nodes_finds_nothing_and_says_so(empty, caplog):
    with caplog.at_level(logging.WARNING, LOGGED):
        assert VectorStoreIndex.from_vector_store(empty, EMBEDDING).as_retriever().retrieve("abc") == []
    assert "'t' does not exist yet" in caplog.text
    assert empty.get_nodes() == []
    assert empty.index is None
    empty.delete("one")
    empty.delete_nodes(["a"])


def test_nodes_of_each_kind_come_back_as_their_kind(empty):
    kinds = [TextNode(id_="t", text="abc"), IndexNode(id_="i", text="abd", index_id="x"), Document(id_="d", text="abe")]
    kinds.append(ImageNode(id_="m", text="abf", image_url="https://example.org/a.png"))
    empty.add(kinds)
    for given, found in zip(kinds, empty.get_nodes([one.node_id for one in kinds]), strict=True):
        assert type(found) is type(given)
        assert found.model_dump() == given.model_dump()


def test_the_retriever_searches_the_stores_table_too(store, encoder):
    searcher = Searcher.open(*store._table.searcher().location, encoder=encoder)
    found = TansakuRetriever(searcher, similarity_top_k=1, where="year = 1900").retrieve("abcdef")
    assert found[0].node.model_dump() == NODES[0].model_dump()


def test_tables_of_others_and_unknown_arguments_are_refused(store, tmp_path, encoder):
    with pytest.raises(InputError, match="has no column 'genre'"):
        TansakuVectorStore(tmp_path / "db", "t", encoder=encoder, columns=["genre"]).get_nodes()
    with pytest.raises(InputError, match="unknown argument 'tag'"):
        store.add([node("e", "abc")], tag=1)
    with pytest.raises(InputError, match="is not written down"):
        store.to_dict()
