"""Rows in Qdrant: in the engine of its server, and in the local mode of its client."""

from __future__ import annotations

import contextlib
from typing import cast
from uuid import uuid4

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from tansaku import Coder, CodesError, HostError, InputError
from tansaku.plugin.hosts.rows._codes_text import codes_to_text
from tansaku.plugin.hosts.rows.conformance import DOCUMENTS, RowStoreTests, shared_coder
from tansaku.plugin.hosts.rows.qdrant import QdrantRows
from tansaku.plugin.rows.row_store import _Counts

from ....support import engines
from ....support.codecs import other_codec
from ....support.engines import free_port

pytestmark = pytest.mark.engine

CODES, VECTOR = "tansaku_codes", "tansaku_vector"


def local(folder) -> QdrantClient:
    """In memory: on a disk each point is a transaction."""
    return QdrantClient(":memory:")


def edge(folder) -> QdrantClient:
    """The engine of the server, which knows the same calls."""
    try:
        from ....support.edge_client import EdgeClient
    except engines.NotInstalledError as error:
        pytest.skip(str(error))
    return cast("QdrantClient", EdgeClient(folder))


CLIENTS = {"local": local, "edge": edge}


class QdrantTests(RowStoreTests[QdrantRows]):
    """What both have in common."""

    kind = QdrantRows
    open_client = staticmethod(local)

    @pytest.fixture(autouse=True)
    def clients(self):
        with contextlib.ExitStack() as self.opened:
            yield

    def make_store(self, coder, folder, **options):
        client = self.opened.enter_context(contextlib.closing(type(self).open_client(folder / "qdrant")))
        return self.kind.create(coder, client, "docs", **options)

    def year_is(self, year):
        return models.Filter(must=[models.FieldCondition(key="year", match=models.MatchValue(value=year))])

    def reopen(self, store):
        return self.kind(store.coder, store.client, "docs", fields=["year", "note"])

    def write_uncoded(self, store, records):
        points = [
            models.PointStruct(id=str(store._point_id(record["id"])), vector={}, payload=dict(record))
            for record in records
        ]
        store.client.upsert("docs", points)

    def write_codes(self, store, row_id, codes):
        store.client.set_payload("docs", {CODES: codes_to_text(codes)}, [store._point_id(row_id)])


class TestLocal(QdrantTests):
    pass


class TestEdge(QdrantTests):
    open_client = staticmethod(edge)


@pytest.fixture(params=CLIENTS)
def client(request, tmp_path):
    with contextlib.closing(CLIENTS[request.param](tmp_path / "qdrant")) as opened:
        yield opened


@pytest.fixture
def coder():
    return shared_coder()


def points_of_a_user() -> list[models.PointStruct]:
    """Whole numbers, UUIDs and the user's own ids in the payload; a vector of their own."""
    ids = [0, 7, str(uuid4()), str(uuid4()), 2**64 - 1]
    return [
        models.PointStruct(
            id=point_id,
            vector={"own": [1.0, float(i)]},
            payload={"id": record["id"], "metadata": {"text": record["text"]}, "year": record["year"]},
        )
        for i, (point_id, record) in enumerate(zip(ids, DOCUMENTS, strict=True))
    ]


class TestACollectionOfAUser:
    @pytest.fixture
    def store(self, client, coder):
        client.create_collection("docs", {"own": models.VectorParams(size=2, distance=models.Distance.DOT)})
        client.upsert("docs", points_of_a_user())
        return QdrantRows.adopt(
            coder, client, "docs", text_columns=["metadata.text"], fields=["id", "metadata.text"], indexes={}
        )

    def test_points_that_were_there_are_encoded(self, store):
        assert store.count_without_codes() == len(DOCUMENTS)
        assert store.fill(batch=2).written == len(DOCUMENTS)
        hit = store.search("昔の首都はどこ？", k=1)[0]
        assert (hit.id, hit.fields["id"], hit.text) == (0, "kyoto", DOCUMENTS[0]["text"])
        assert {hit.fields["id"] for hit in store.search("犬")} == {record["id"] for record in DOCUMENTS}
        assert {hit.id for hit in store.search("犬") if isinstance(hit.id, int)} == {0, 7, 2**64 - 1}

    def test_their_vectors_and_fields_stay(self, store, client):
        store.fill()
        found = client.retrieve("docs", [7], with_payload=True, with_vectors=True)[0]
        assert found.vector["own"] == [1.0, 1.0]
        assert len(found.vector[VECTOR]) == store.coder.row_dim
        assert (found.payload["id"], found.payload["year"]) == ("nara", 752)

    def test_rows_are_read_by_the_ids_of_points(self, store):
        store.fill()
        for hit in store.search("都", k=10):
            assert store.explain("都", hit.id).id == str(hit.id)
        assert store.delete([0, 7, 8]) == 2

    def test_the_unnamed_vector_stays(self, client, coder):
        client.create_collection("docs", models.VectorParams(size=2, distance=models.Distance.DOT))
        client.upsert("docs", [models.PointStruct(id=1, vector=[1.0, 2.0], payload={"text": "京都"})])
        store = QdrantRows.adopt(coder, client, "docs")
        assert store.fill().written == 1
        found = client.retrieve("docs", [1], with_payload=True, with_vectors=True)[0].vector
        assert (found[""], len(found[VECTOR])) == ([1.0, 2.0], coder.row_dim)


class TestSearchParameters:
    """How wide Qdrant's index is searched, and how many rows it compares without it."""

    @pytest.fixture
    def client(self, tmp_path):
        with contextlib.closing(edge(tmp_path / "qdrant")) as opened:
            yield opened

    @pytest.fixture
    def asked(self, client, monkeypatch):
        """What the engine was asked with."""
        seen, engine = [], type(client).query_points
        monkeypatch.setattr(
            type(client), "query_points", lambda *a, **given: seen.append(given["search_params"]) or engine(*a, **given)
        )
        return seen

    def test_the_width_is_four_times_the_rows_or_that_of_the_application(self, client, coder, asked):
        QdrantRows.create(coder, client, "docs").add([{"id": 1, "text": "京都"}])
        for options in ({}, {"hnsw_ef": 1000}, {"hnsw_ef": 100}):
            QdrantRows(coder, client, "docs", candidates=1, **options).search("京都", k=1)
        QdrantRows(coder, client, "docs", hnsw_ef=100).search("京都", candidates=1, k=1, exact=True)
        assert [(one.hnsw_ef, one.exact) for one in asked] == [(128, False), (1000, False), (100, False), (100, True)]
        with pytest.raises(InputError, match="hnsw_ef"):
            QdrantRows(coder, client, "docs", hnsw_ef=0)

    def test_settings_of_the_index(self, client, coder):
        QdrantRows.create(coder, client, "plain")
        QdrantRows.create(coder, client, "other", hnsw_config=models.HnswConfigDiff(m=32, full_scan_threshold=10))
        plain, other = (client.vectors[name][VECTOR].hnsw_config for name in ("plain", "other"))
        assert plain.full_scan_threshold * 1024 == 20_000 * coder.row_dim * 4
        assert (other.m, other.full_scan_threshold) == (32, 10)


class TestWriting:
    @pytest.fixture
    def store(self, client, coder):
        return QdrantRows.create(coder, client, "docs", fields=["year"])

    def test_a_faster_writer_is_not_overwritten(self, store, client, monkeypatch):
        """Its row is there between the look and the write."""
        store.add([{"id": "kyoto", "text": "京都は794年から都だった。"}])
        monkeypatch.setattr(QdrantRows, "_known", lambda self, ids: set())
        with pytest.raises(InputError, match="kyoto"):
            store.add([{"id": "kyoto", "text": "別の文"}])
        assert store.search("都", k=1)[0].text == "京都は794年から都だった。"

    def test_a_row_deleted_while_it_is_encoded_stays_deleted(self, store, client):
        client.upsert("docs", [models.PointStruct(id=5, vector={}, payload={"text": "京都"})])
        coded = store._coded([(5, "京都", {})], _Counts())
        assert store.delete([5]) == 1
        store._fill_codes(coded)
        assert store.count() == 0

    def test_a_row_written_while_it_is_encoded_keeps_its_codes(self, store, client):
        client.upsert("docs", [models.PointStruct(id=5, vector={}, payload={"text": "京都"})])
        coded = store._coded([(5, "京都", {})], _Counts())
        store.upsert([{"id": 5, "text": "奈良の大仏"}])
        before = store._read([5])[0]
        store._fill_codes(coded)
        assert store._read([5])[0].codes == before.codes

    @pytest.mark.parametrize("name", ["a.b", "a[0]", 'a"b'])
    def test_names_that_are_paths(self, store, name):
        with pytest.raises(InputError, match="path"):
            store.add([{"id": "x", "text": "京都", name: 1}])
        assert store.count() == 0

    @pytest.mark.parametrize("row_id", [-1, 2**64])
    def test_numbers_that_are_no_ids(self, store, row_id):
        with pytest.raises(InputError, match=str(row_id)):
            store.add([{"id": row_id, "text": "京都"}])

    def test_codes_that_are_no_base64(self, store, client):
        store.add([{"id": "kyoto", "text": "京都は都だった。"}])
        for damaged in ("%%%", 5, ["a"]):
            client.set_payload("docs", {CODES: damaged}, [store._point_id("kyoto")])
            with pytest.raises(CodesError, match=r"kyoto.*base64"):
                store.search("都")

    def test_a_vector_without_codes_and_codes_without_a_vector(self, store, client, coder):
        """Both are rows without codes, and are encoded."""
        vector = coder.encode_documents(["京都"])[0].row_vector.tolist()
        client.upsert("docs", [models.PointStruct(id=1, vector={VECTOR: vector}, payload={"text": "京都"})])
        client.upsert("docs", [models.PointStruct(id=2, vector={}, payload={"text": "奈良", CODES: "AAAA"})])
        hits = store.search("京都")
        assert hits.uncoded == len(hits) == 2
        assert np.isnan([hit.score for hit in hits]).all()
        assert store.fill().written == 2
        assert [hit.id for hit in store.search("京都")] == [1, 2]


class TestErrors:
    def test_a_collection_that_is_not_there(self, client, coder):
        for opened in (QdrantRows, QdrantRows.adopt):
            with pytest.raises(HostError, match=r"'docs'.*QdrantRows\.create"):
                opened(coder, client, "docs")

    def test_a_collection_that_is_there(self, client, coder):
        QdrantRows.create(coder, client, "docs").add([{"id": 1, "text": "京都"}])
        with pytest.raises(HostError, match="exists"):
            QdrantRows.create(coder, client, "docs")
        assert QdrantRows(coder, client, "docs").count() == 1

    def test_codes_of_another_codec(self, client, coder):
        """Opening refuses them; damaged ones it leaves to a search."""
        store = QdrantRows.create(coder, client, "docs")
        store.add([{"id": 1, "text": "京都"}])
        with pytest.raises(CodesError, match=rf"1: .*{coder.codec_id}"):
            QdrantRows(Coder(coder.encoder, codec=other_codec(coder.codec)), client, "docs")
        client.set_payload("docs", {CODES: "%%%"}, [1])
        assert QdrantRows(coder, client, "docs").upsert([{"id": 1, "text": "京都"}]).written == 1

    def test_an_index_of_no_kind(self, client, coder):
        with pytest.raises(InputError, match=r"'year' is 'int'; give one of .*integer"):
            QdrantRows.create(coder, client, "docs", indexes={"year": "int"})

    def test_a_vector_that_is_not_there(self, client, coder):
        client.create_collection("docs", {"own": models.VectorParams(size=2, distance=models.Distance.DOT)})
        with pytest.raises(HostError, match=rf"{VECTOR}.*own.*QdrantRows\.adopt"):
            QdrantRows(coder, client, "docs")

    @pytest.mark.parametrize(
        ("size", "distance", "named"), [(3, models.Distance.DOT, "3 dim"), (None, models.Distance.COSINE, "Cosine")]
    )
    def test_another_vector_of_that_name(self, client, coder, size, distance, named):
        params = models.VectorParams(size=size or coder.row_dim, distance=distance)
        client.create_collection("docs", {VECTOR: params})
        for opened in (QdrantRows, QdrantRows.adopt):
            with pytest.raises(InputError, match=named):
                opened(coder, client, "docs")

    def test_a_dict_that_is_no_filter(self, client, coder):
        store = QdrantRows.create(coder, client, "docs")
        for call in (lambda where: store.search("京都", where=where), store.count, lambda w: store.delete(where=w)):
            with pytest.raises(InputError, match="no filter"):
                call({"must": "year < 5"})

    def test_a_dict_that_is_one(self, client, coder):
        store = QdrantRows.create(coder, client, "docs")
        store.add([{"id": "kyoto", "text": "京都", "year": 794}, {"id": "dog", "text": "犬", "year": 2020}])
        hits = store.search("京都", where={"must": [{"key": "year", "range": {"lt": 1000}}]})
        assert [hit.id for hit in hits] == ["kyoto"]

    def test_an_asynchronous_client(self, coder):
        with pytest.raises(InputError, match="AsyncQdrantClient"):
            QdrantRows(coder, AsyncQdrantClient(":memory:"), "docs")  # pyright: ignore[reportArgumentType]

    @pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
    @pytest.mark.parametrize("grpc", [False, True])
    def test_a_server_that_is_away(self, coder, grpc):
        port = free_port()
        options = {"port": port, "grpc_port": port, "prefer_grpc": grpc, "timeout": 2, "check_compatibility": False}
        client = QdrantClient(host="127.0.0.1", api_key="secret", https=False, **options)
        for opened in (QdrantRows, QdrantRows.create, QdrantRows.adopt):
            with pytest.raises(HostError, match="'docs'") as raised:
                opened(coder, client, "docs")
            assert "secret" not in str(raised.value)

    def test_a_client_that_is_closed(self, coder, tmp_path):
        client = QdrantClient(path=str(tmp_path / "qdrant"))
        store = QdrantRows.create(coder, client, "docs")
        client.close()
        for call in (lambda: store.search("京都"), store.count, lambda: store.upsert([{"id": 1, "text": "京都"}])):
            with pytest.raises(HostError, match="closed"):
                call()
