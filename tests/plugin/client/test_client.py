"""`Client` and `AsyncClient` against the real application: the results of `Searcher` and `Index`."""

from __future__ import annotations

import inspect
import time
from datetime import timedelta
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from tansaku import (
    AsyncClient,
    Client,
    ClientError,
    Condition,
    Index,
    InputError,
    Rejects,
    Searcher,
    Settings,
    TableExistsError,
    TableNotFoundError,
    UncheckedSQL,
    create_app,
)
from tansaku.plugin.client import writing

from ...support.fakes import FakeEncoder, corpus, small_chunks
from ..service.test_service import running

pytestmark = pytest.mark.integration

DOCS = corpus(12, year=lambda i: 1990 + i)
NEW = [{"id": "n1", "text": "aaaa", "year": 2020}, {"id": "n2", "text": "bbbb", "year": 2021}]


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture
def db(tmp_path, monkeypatch, encoder):
    small_chunks(monkeypatch)
    Index.create(tmp_path / "db", "t", DOCS, encoder=encoder)
    return tmp_path / "db"


@pytest.fixture
def settings(db):
    tokens: dict[str, Any] = {"token": "read", "write_token": "write"}
    return Settings(database=db, write=True, refresh_seconds=0, **tokens)


@pytest.fixture
def client(settings, encoder):
    with TestClient(create_app(settings, encoder=encoder)) as http:
        while http.get("/ready").status_code != 200:
            time.sleep(0.05)
        yield Client("http://testserver", "write", index="t", http=http)


def test_searches_are_those_of_a_searcher(client, db, encoder):
    searcher = Searcher.open(db, "t", encoder=encoder)
    all_options: list[dict[str, Any]] = [{}, {"where": "year < 1995"}, {"k": 3, "fields": ["year"]}]
    all_options.append({"ids": ["none", DOCS[2]["id"]]})
    for options in all_options:
        found, expected = client.search("3a9f", **options), searcher.search("3a9f", **options)
        assert [(hit.id, hit.title, hit.text, hit.fields) for hit in found] == [
            (hit.id, hit.title, hit.text, hit.fields) for hit in expected
        ]
        for mode in ("raw", "mean", "logit"):
            assert found.scores(mode) == pytest.approx(expected.scores(mode), abs=1e-5)
        assert (found.missing, found.version, found.scored) == (expected.missing, expected.version, expected.scored)
        assert (found.recall, found.truncated) == (expected.recall, expected.truncated)
    many = client.search_many(["3a9f", "12"], k=2)
    assert [[hit.id for hit in hits] for hits in many] == [
        [hit.id for hit in searcher.search(query, k=2)] for query in ("3a9f", "12")
    ]


def test_explanations_and_documents_are_those_of_a_searcher(client, db, encoder):
    searcher = Searcher.open(db, "t", encoder=encoder)
    ids = [DOCS[1]["id"], "none", DOCS[0]["id"]]
    assert client.read(ids) == searcher.read(ids)
    found, expected = client.explain("3a9f", ids[0]), searcher.explain("3a9f", ids[0])
    assert [vars(match) for match in found.matches] == [vars(match) for match in expected.matches]
    assert np.allclose(found.similarities, expected.similarities, atol=1e-3)
    assert found.document_spans == expected.document_spans


def test_an_index_is_written_to_as_here(client, db, encoder, tmp_path):
    assert len(client) == 12
    report = client.add(NEW)
    assert (report.rows, report.updated, report.documents) == (2, 0, 2)
    assert client.upsert([{**NEW[0], "text": "cccc"}]).updated == 1
    assert client.read(["n1"])[0].text == "cccc"
    assert client.delete(["n1", "none"]).missing == ["none"]
    assert client.delete(where="year = 2021", dry_run=True).rows == 1
    assert client.delete(where="year = 2021").rows == 1
    assert client.count("year < 1995") == 5
    client.optimize(timedelta(0))
    assert client.rebuild(nbits=4).rows == 12
    info, expected = client.info(), Index.open(db, "t", encoder=encoder).info()
    assert (info.table, info.nbits, info.columns, info.drift) == ("t", 4, expected.columns, expected.drift)


def test_indexes_are_made_and_dropped(client):
    assert client.create("u", NEW, nbits=4).rows == 2
    assert client.names() == ["t", "u"]
    with pytest.raises(TableExistsError):
        client.create("u", NEW)
    client.drop("u")
    assert client.names() == ["t"]


def test_what_is_left_out_is_said(client, tmp_path):
    bad = [{"id": "ok", "text": "aaaa"}, {"id": "e", "text": ""}]
    with pytest.raises(InputError, match=r"left out 1 .* document 2: .*text"):
        client.upsert(bad)
    with Rejects(tmp_path / "rejects") as rejects:
        assert client.upsert(bad, rejects=rejects).rejected == 1
    assert len(rejects) == 1
    assert client.read(["ok"]) != [None]


def test_many_documents_are_an_upload(client, monkeypatch):
    monkeypatch.setattr(writing, "_SMALL_BYTES", 10)
    stages = []
    assert client.upsert((dict(doc) for doc in NEW), progress=lambda stage, *_: stages.append(stage)).rows == 2
    assert stages[0] == "send"
    assert len(client) == 14


def test_a_job_whose_answer_was_lost_is_found_by_its_upload(client, monkeypatch):
    monkeypatch.setattr(writing, "_SMALL_BYTES", 10)
    send, lost = client._http.request, []

    def lose_one(**request):
        answer = send(**request)
        if request["url"].endswith("/indexes/t/documents") and not lost:
            lost.append(answer)
            raise httpx.ReadError("reset")
        return answer

    monkeypatch.setattr(client._http, "request", lose_one)
    assert client.add(NEW).rows == 2
    assert len(lost) == 1
    assert len(client) == 14


def test_errors_are_those_of_an_index(client):
    with pytest.raises(InputError, match="empty"):
        client.search(" ")
    with pytest.raises(InputError, match="yeer"):
        client.search("x", where="yeer < 1")
    with pytest.raises(InputError, match="no document with the id 'none'"):
        client.explain("x", "none")
    with pytest.raises(InputError, match="UncheckedSQL"):
        client.search("x", where=UncheckedSQL("1 = 1"))
    with pytest.raises(InputError, match="either ids or a condition"):
        client.delete()
    other = Client("http://testserver", "write", index="u", http=client._http)
    with pytest.raises(TableNotFoundError):
        other.search("x")
    for token, status in (("read", 403), ("wrong", 401)):
        with pytest.raises(ClientError) as raised:
            Client("http://testserver", token, index="t", http=client._http).add(NEW)
        assert raised.value.status == status
    with pytest.raises(InputError, match="not the address"):
        Client("localhost:8080")


def test_the_only_index_needs_no_name(client):
    unnamed = Client("http://testserver", "write", http=client._http)
    assert len(unnamed) == 12
    client.create("u", NEW)
    with pytest.raises(InputError, match="t, u; name one"):
        len(Client("http://testserver", "write", http=client._http))


async def test_async_verbs_give_the_same(settings, encoder, db):
    searcher = Searcher.open(db, "t", encoder=encoder)
    async with running(settings, encoder=encoder) as served:
        client = AsyncClient("http://t", "write", index="t", http=served.client)
        expected = [hit.id for hit in searcher.search("3a9f", k=3)]
        assert [hit.id for hit in await client.search("3a9f", k=3)] == expected
        assert [[hit.id for hit in hits] for hits in await client.search_many(["3a9f"] * 2, k=3)] == [expected] * 2
        assert (await client.explain("3a9f", DOCS[0]["id"])).matches
        assert (await client.add(NEW)).rows == 2
        assert (await client.delete(["n1"])).rows == 1
        assert await client.read(["n1"]) == [None]
        assert await client.count() == 13
        assert (await client.info()).rows == 13
        assert await client.names() == ["t"]


def test_the_options_are_those_of_a_searcher_and_both_clients_have_the_same_verbs():
    def options(function):
        return {name: each.default for name, each in inspect.signature(function).parameters.items()}

    for name in ("search", "search_many", "explain", "read"):
        assert options(getattr(Client, name)) == options(getattr(Searcher, name))
    verbs = [name for name in vars(Client) if name[0] != "_" and name != "close"]
    for name in verbs:
        assert options(getattr(AsyncClient, name)) == options(getattr(Client, name))


def test_a_service_that_is_not_there_is_an_error():
    with (
        Client("http://127.0.0.1:9", tries=1) as client,
        pytest.raises(ClientError, match=r"no connection .* http://127\.0\.0\.1:9 "),
    ):
        client.search("x")


def test_a_condition_brings_its_parameters(client):
    assert client.count(Condition("year < $year", year=1995)) == 5


def test_a_client_of_its_own_is_closed():
    client = Client("http://127.0.0.1:9")
    client.close()
    assert client._http.is_closed
    given = httpx.Client()
    Client("http://127.0.0.1:9", http=given).close()
    assert not given.is_closed
    given.close()
