"""The application mounted in another one: it loads at the first request, and its paths are its own."""

from __future__ import annotations

import asyncio
import io
import json
import threading

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from tansaku import Index, Settings, create_app
from tansaku.plugin.service.observability import json_lines

from ...support.fakes import FakeEncoder, corpus

pytestmark = pytest.mark.integration

TOKEN = {"Authorization": "Bearer secret"}
QUERY = {"query": "3a9f", "k": 1}


class SlowToLoad(FakeEncoder):
    """Encodes only when it may."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def encode_documents(self, texts):
        assert self.go.wait(10)
        return super().encode_documents(texts)


@pytest.fixture
def db(tmp_path):
    Index.create(tmp_path / "db", "t", corpus(6), encoder=FakeEncoder())
    return str(tmp_path / "db")


def mounted(kind, app):
    if kind == "starlette":
        return Starlette(routes=[Mount("/a/search-api", app=app)])
    outer = FastAPI()
    outer.mount("/a/search-api", app)
    return outer


@pytest.fixture(params=["starlette", "fastapi"])
def kind(request):
    return request.param


def client_of(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t/a/search-api")


async def test_the_first_request_loads_the_model_and_is_answered(kind, db):
    log = io.StringIO()
    settings = Settings(indexes={"t": (db, "t")}, token="secret")  # noqa: S106
    app = create_app(settings, encoder=FakeEncoder(), log=json_lines(log))
    async with client_of(mounted(kind, app)) as client:
        assert not app.state.service.ready
        found = await client.post("/search", json=QUERY, headers=TOKEN)
        assert (found.status_code, len(found.json()["hits"])) == (200, 1)
        metrics = (await client.get("/metrics", headers=TOKEN)).text
    assert 'tansaku_requests_total{dialect="tansaku",route="/search",status="200"} 1.0' in metrics
    events = [json.loads(line) for line in log.getvalue().split("\n")[:-1]]
    assert [event.get("route") for event in events if event["event"] == "request"] == ["/search"]
    assert [event["event"] for event in events].count("ready") == 1


async def test_probes_need_no_token_start_the_loading_and_do_not_wait(kind, db):
    encoder = SlowToLoad()
    app = create_app(Settings(indexes={"t": (db, "t")}, token="secret"), encoder=encoder)  # noqa: S106
    async with client_of(mounted(kind, app)) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.get("/ready")).json() == {"status": "loading"}
        assert (await client.get("/.well-known/live")).status_code == 204
        for path in ("/metrics", "/openapi.json"):
            assert (await client.get(path)).status_code == 401
        encoder.go.set()
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)


async def test_the_openapi_document_names_the_place(kind):
    app = create_app(encoder=FakeEncoder())
    async with client_of(mounted(kind, app)) as client:
        described = (await client.get("/openapi.json")).json()
    assert described["servers"] == [{"url": "/a/search-api"}]
    assert "/search" in described["paths"]


async def test_what_cannot_be_loaded_is_said(kind, tmp_path):
    failures = []
    settings = Settings(indexes={"t": (str(tmp_path), "none")})
    app = create_app(settings, encoder=FakeEncoder(), log=json_lines(io.StringIO()), on_failure=failures.append)
    async with client_of(mounted(kind, app)) as client:
        refused = await client.post("/search", json=QUERY)
        assert (refused.status_code, "could not be loaded" in refused.json()["message"]) == (503, True)
        assert (await client.get("/ready")).json() == {"status": "failed"}
    assert "none" in str(failures[0])


async def test_a_request_that_waits_too_long_for_the_loading_is_told_to_come_again(kind):
    encoder = SlowToLoad()
    app = create_app(Settings(deadline_seconds=0.05, concurrency=1, queue=1), encoder=encoder)
    async with client_of(mounted(kind, app)) as client:
        asked = [client.post("/v2/rerank", json={"query": "a", "documents": ["b"]}) for _ in range(3)]
        statuses = sorted([answer.status_code for answer in await asyncio.gather(*asked)])
        assert statuses == [429, 503, 503]
        encoder.go.set()
        while not app.state.service.ready:
            await asyncio.sleep(0.01)
        assert (await client.get("/ready")).status_code == 200


def test_each_request_may_come_in_another_event_loop(kind, db):
    app = create_app(Settings(indexes={"t": (db, "t")}), encoder=FakeEncoder(), log=json_lines(io.StringIO()))
    client = TestClient(mounted(kind, app))
    for _ in range(3):
        assert client.post("/a/search-api/search", json=QUERY).status_code == 200


async def test_the_outer_application_keeps_its_state(kind):
    app = create_app(encoder=FakeEncoder())
    outer = mounted(kind, app)
    seen = []

    async def noting(scope, receive, send):
        scope["state"] = {"request_id": "outer"}
        await outer(scope, receive, send)
        seen.append(scope["state"])

    async with client_of(noting) as client:
        assert (await client.get("/health")).headers["x-request-id"] != "outer"
    assert seen == [{"request_id": "outer"}]
