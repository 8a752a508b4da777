"""Rows in Chroma: in a folder, and over HTTP from its server."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tansaku import CodedRow, Coder, CodesError, HostError, InputError
from tansaku.plugin.hosts.rows._codes_text import codes_to_text
from tansaku.plugin.hosts.rows.conformance import RowStoreTests, shared_coder

from ....support.codecs import other_codec
from ....support.engines import free_port, running

chromadb = pytest.importorskip("chromadb")

from tansaku.plugin.hosts.rows.chroma import ChromaRows  # noqa: E402  needs chromadb

pytestmark = pytest.mark.engine
CODES = "tansaku_codes"
_NAMES = (f"docs-{i}" for i in itertools.count())


def quiet():
    """New ones each time: clients write into them."""
    return chromadb.config.Settings(anonymized_telemetry=False)


def opened(folder: Path):
    return chromadb.PersistentClient(str(folder), settings=quiet())


@contextlib.contextmanager
def connected(port: int, **options):
    with contextlib.closing(chromadb.HttpClient(host="127.0.0.1", port=port, settings=quiet(), **options)) as client:
        try:
            yield client
        finally:
            for api in (client._server, client._admin_client._server):
                api._session.close()  # which the client's own close leaves open


@pytest.fixture
def client(tmp_path):
    with contextlib.closing(opened(tmp_path / "chroma")) as client:
        yield client


def served(folder: Path, port: int):
    """A server: what the command "chroma run" does."""
    program = [sys.executable, "-c", "from chromadb.cli.cli import app; app()"]
    command = [*program, "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]

    def ready():
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/heartbeat", timeout=5).close()

    return running(command, ready, env={**os.environ, "ANONYMIZED_TELEMETRY": "False"})


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Of a server."""
    port = free_port()
    with served(tmp_path_factory.mktemp("chroma"), port):
        yield port


@pytest.fixture
def coder():
    return shared_coder()


class ChromaTests(RowStoreTests[ChromaRows]):
    nulls = False

    @pytest.fixture(autouse=True)
    def clients(self):
        with contextlib.ExitStack() as self.opened:
            yield

    def make_store(self, coder, folder, **options):
        return ChromaRows.create(coder, self.client(folder), next(_NAMES), **options)

    def client(self, folder):
        raise NotImplementedError

    def year_is(self, year):
        return {"year": year}

    def reopen(self, store):
        return ChromaRows(store.coder, store.client, store.collection, fields=["year", "note"])

    def write_uncoded(self, store, records):
        names = [name for name in records[0] if name not in ("id", "text")]
        store._rows.add(
            ids=[record["id"] for record in records],
            documents=[record["text"] for record in records],
            metadatas=[{name: record[name] for name in names} for record in records],
            embeddings=np.zeros((len(records), store.coder.row_dim), np.float32),
        )

    def write_codes(self, store, row_id, codes):
        store._rows.update(ids=[str(row_id)], metadatas=[{CODES: codes_to_text(codes)}])


class TestFolder(ChromaTests):
    def client(self, folder):
        return self.opened.enter_context(contextlib.closing(opened(folder / "chroma")))


class TestServer(ChromaTests):
    @pytest.fixture(autouse=True)
    def server(self, port):
        self.port = port

    def client(self, folder):
        return self.opened.enter_context(connected(self.port))


class TestWriting:
    @pytest.fixture
    def store(self, client, coder):
        return ChromaRows.create(coder, client, "docs", fields=["year"])

    def test_a_faster_writer_is_not_overwritten(self, store, monkeypatch):
        """Its row is there between the look and the write."""
        store.add([{"id": "kyoto", "text": "京都は都だった。"}])
        monkeypatch.setattr(ChromaRows, "_known", lambda self, ids: set())
        with pytest.raises(InputError, match="kyoto"):
            store.add([{"id": "kyoto", "text": "別の文"}])
        assert store.search("都", k=1)[0].text == "京都は都だった。"

    def test_none_removes_a_value(self, store):
        store.add([{"id": "kyoto", "text": "京都", "year": 794}, {"id": "dog", "text": "犬", "year": None}])
        assert store.count({"year": 794}) == 1
        store.upsert([{"id": "kyoto", "text": "京都", "year": None}])
        assert store.count({"year": 794}) == 0

    def test_text_in_metadata(self, client, coder):
        """Of several text columns one is the document."""
        store = ChromaRows.create(coder, client, "two", text_columns=["title", "body"], document_column="body")
        store.add([{"id": "kyoto", "title": "京都", "body": "794年から都だった。"}, {"id": "dog", "title": "犬"}])
        assert {hit.text for hit in store.search("都")} == {"京都 794年から都だった。", "犬"}
        assert client.get_collection("two").get(["kyoto"])["documents"] == ["794年から都だった。"]

    def test_rows_that_another_client_changed(self, store, coder):
        """Without codes and the sign of them they are encoded again."""
        zeros = [0.0] * coder.row_dim
        store.add([{"id": "dog", "text": "犬"}])
        store._rows.update(
            ids=["dog"], embeddings=[zeros], documents=["鯨"], metadatas=[{CODES: None, f"{CODES}_set": None}]
        )
        assert store.count_without_codes() == store.search("鯨").uncoded == 1
        assert store.fill().written == 1
        assert store.search("鯨", k=1)[0].text == "鯨"

    def test_whole_numbers_are_no_ids(self, store):
        for call in (
            lambda: store.add([{"id": 7, "text": "犬"}]),
            lambda: store.delete([7]),
            lambda: store.explain("犬", 7),
        ):
            with pytest.raises(InputError, match="strings, and 7"):
                call()

    def test_many_rows_are_written_in_parts(self, store, coder, monkeypatch):
        monkeypatch.setattr(store, "_most", 3)
        coded = coder.encode_documents(["京都"])[0]
        store.write_coded([CodedRow(f"{i}", coded.row_vector, coded.codes, {"text": "京都"}) for i in range(8)])
        assert store.count() == 8
        assert [len(rows) for rows in store.coded_rows(5)] == [5, 3]
        assert store.delete([f"{i}" for i in range(8)]) == 8


class TestErrors:
    def test_a_collection_that_is_not_there(self, client, coder):
        with pytest.raises(HostError, match=r"'docs'.*ChromaRows\.create"):
            ChromaRows(coder, client, "docs")

    def test_a_collection_that_is_there(self, client, coder):
        ChromaRows.create(coder, client, "docs")
        with pytest.raises(HostError, match="exists"):
            ChromaRows.create(coder, client, "docs")

    @pytest.mark.parametrize(("space", "named"), [("l2", "'l2'"), ("ip", "3 dimensions")])
    def test_a_collection_of_other_embeddings(self, client, coder, space, named):
        made = client.create_collection("docs", embedding_function=None, configuration={"hnsw": {"space": space}})
        made.add(ids=["a"], embeddings=[[1.0, 2.0, 3.0]])
        with pytest.raises(InputError, match=rf"{named}.*ChromaRows\.create"):
            ChromaRows(coder, client, "docs")

    def test_a_narrow_index(self, client, coder):
        """All is found, and how to widen it is said."""
        client.create_collection("docs", embedding_function=None, configuration={"hnsw": {"space": "ip"}})
        with pytest.warns(UserWarning, match=r"ef_search is 100.*modify.*1000"):
            store = ChromaRows(coder, client, "docs")
        store.add([{"id": "dog", "text": "犬"}])
        assert store.search("犬", k=1)[0].id == "dog"

    def test_settings_of_the_index(self, client, coder):
        """They reach Chroma, and those of the application come first."""
        ChromaRows.create(coder, client, "plain")
        ChromaRows.create(coder, client, "wide", candidates=600)
        ChromaRows.create(coder, client, "other", hnsw={"ef_search": 1200, "max_neighbors": 8, "space": "l2"})
        settings = [client.get_collection(name).configuration_json["hnsw"] for name in ("plain", "wide", "other")]
        assert [one["ef_search"] for one in settings] == [2000, 2400, 1200]
        assert [one["max_neighbors"] for one in settings] == [32, 32, 8]
        assert {(one["ef_construction"], one["space"]) for one in settings} == {(200, "ip")}

    @pytest.mark.parametrize("where", [{"year": {"$bad": 3}}, {"year": 1, "note": "a"}, {"year": {"$gt": "a"}}])
    def test_a_filter_that_does_not_parse(self, client, coder, where):
        store = ChromaRows.create(coder, client, "docs")
        store.add([{"id": "kyoto", "text": "京都"}])
        for call in (store.count, lambda where: store.search("京都", where=where), lambda it: store.delete(where=it)):
            with pytest.raises(HostError, match="'docs'"):
                call(where)
        assert store.count() == 1

    @pytest.mark.parametrize("where", [{}, "year = 1", []])
    def test_what_is_no_filter(self, client, coder, where):
        """Above all, an empty one deletes nothing."""
        store = ChromaRows.create(coder, client, "docs")
        store.add([{"id": "kyoto", "text": "京都"}])
        for call in (lambda: store.search("京都", where=where), lambda: store.delete(where=where)):
            with pytest.raises(InputError, match="dict"):
                call()
        assert store.count() == 1

    def test_values_that_are_no_metadata(self, client, coder):
        store = ChromaRows.create(coder, client, "docs")
        with pytest.raises(HostError, match="dict"):
            store.add([{"id": "kyoto", "text": "京都", "place": {"lat": 35}}])
        assert store.count() == 0

    def test_codes_of_another_codec(self, client, coder):
        ChromaRows.create(coder, client, "docs").add([{"id": "kyoto", "text": "京都"}])
        with pytest.raises(CodesError, match=rf"kyoto.*{coder.codec_id}"):
            ChromaRows(Coder(coder.encoder, codec=other_codec(coder.codec)), client, "docs")

    def test_a_client_that_is_closed(self, coder, tmp_path):
        client = opened(tmp_path / "closed")
        store = ChromaRows.create(coder, client, "docs")
        client.close()
        for call in (lambda: store.search("京都"), store.count, lambda: store.upsert([{"id": "x", "text": "京都"}])):
            with pytest.raises(HostError, match="'docs'"):
                call()

    def test_a_server_that_goes_away(self, coder, tmp_path):
        port = free_port()
        headers = {"Authorization": "Bearer secret"}
        with contextlib.ExitStack() as opened:
            with served(tmp_path, port):
                client = opened.enter_context(connected(port, headers=headers))
                store = ChromaRows.create(coder, client, "docs")
                store.add([{"id": "dog", "text": "犬"}])
            for call in (lambda: store.search("犬"), store.count, lambda: store.upsert([{"id": "x", "text": "京都"}])):
                with pytest.raises(HostError, match="'docs'") as raised:
                    call()
                assert "secret" not in str(raised.value)

    def test_a_forked_process(self, coder, client, monkeypatch):
        """Chroma hangs there."""
        store = ChromaRows.create(coder, client, "docs")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(HostError, match="forked"):
            store.search("犬")
