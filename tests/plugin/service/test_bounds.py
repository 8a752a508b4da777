"""What one request, connection or piece of work may cost the service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer import Typer
from typer.testing import CliRunner

from tansaku import InputError
from tansaku.plugin.cli.serve import serve
from tansaku.plugin.service import admission
from tansaku.plugin.service.app import create_app
from tansaku.plugin.service.observability import json_lines
from tansaku.plugin.service.server import DrainingServer, config_of
from tansaku.plugin.service.settings import Settings
from tansaku.plugin.serving import connections
from tansaku.plugin.serving.access import checked_token
from tansaku.plugin.serving.workers import Workers

from ...support.fakes import FakeEncoder

pytestmark = pytest.mark.anyio
SIGNS = st.text('\\",[]{}:a寺', max_size=6)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def app():
    with open(os.devnull, "w") as nowhere:
        app = create_app(Settings(refresh_seconds=0), encoder=FakeEncoder(), log=json_lines(nowhere))
        app.state.service.load()
        yield app


def client_of(app) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t")


def separators_of(value: Any) -> int:
    """The brackets that open, colons and commas of a value in JSON."""
    if isinstance(value, dict):
        return 1 + len(value) + max(0, len(value) - 1) + sum(map(separators_of, value.values()))
    return 1 + max(0, len(value) - 1) + sum(map(separators_of, value)) if isinstance(value, list) else 0


class TestBodies:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/rerank", {"query": "a", "documents": [{}] * 300_000}),
            ("/v1/rerank", {"query": "a", "documents": [1] * 300_000}),
            ("/rerank", {"query": "a", "texts": [[]] * 300_000}),
            ("/search", {"query": "a", "ids": [None] * 300_000}),
            ("/weaviate/rerank", {"query": "a", "property": "p", "documents": [True] * 300_000}),
            ("/embed_all", {"inputs": [""] * 300_000}),
            ("/search", {"query": "a"} | {f"x{number}": 1 for number in range(110_000)}),
        ],
    )
    async def test_with_very_many_values_is_refused_before_it_is_parsed(self, app, path, body, monkeypatch):
        content = json.dumps(body, separators=(",", ":")).encode()
        monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("the body was parsed"))
        async with client_of(app) as client:
            answer = await client.post(path, content=content)
        assert (answer.status_code, "too many values" in answer.text) == (413, True)

    async def test_signs_within_texts_do_not_count(self, app):
        text = '[{",:"}], ' * 800
        body = {"query": "a", "documents": [text] * 100}
        async with client_of(app) as client:
            answer = await client.post("/v1/rerank", json=body)
        assert answer.status_code == 200
        assert len(answer.json()["results"]) == 100

    @settings(deadline=None, max_examples=200)
    @given(st.recursive(st.none() | SIGNS, lambda x: st.lists(x) | st.dictionaries(SIGNS, x)), st.booleans())
    def test_separators_outside_of_strings_are_counted(self, value, ascii_only):
        body = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode()
        count = separators_of(value)
        assert not admission._has_more(body, count)
        assert not count or admission._has_more(body, count - 1)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
    async def test_another_encoding_is_refused(self, app, encoding):
        """In UTF-16 a character may hold the byte of a quotation mark, and hide what follows from the count."""
        async with client_of(app) as client:
            answer = await client.post("/search", content='{"query": "∀"}'.encode(encoding))
        assert (answer.status_code, "send it in UTF-8" in answer.text) == (400, True)

    @pytest.mark.parametrize(
        "content", [b'{"query": "' + b'\\"' * 3_000_000, b'"' + b"\\" * 3_000_001, b"[" * 4_000_000]
    )
    async def test_what_is_not_json_is_refused_in_one_pass(self, app, content):
        async with client_of(app) as client:
            answer = await client.post("/search", content=content)
        assert answer.status_code in (400, 413)

    @pytest.mark.parametrize(
        ("path", "name"),
        [("/v1/rerank", "documents"), ("/rerank", "texts"), ("/search", "ids"), ("/v1/multi-vector", "input")],
    )
    async def test_of_a_long_list_the_first_error_is_the_answer(self, app, path, name):
        async with client_of(app) as client:
            answer = await client.post(path, json={"query": "a", name: ["a", *[1.5] * 9_000]})
        assert answer.status_code == 422
        assert f"{name}.1:" in answer.text
        assert f"{name}.2" not in answer.text
        assert "more)" not in answer.text


@contextlib.asynccontextmanager
async def served(app):
    """A real server; gives its port."""
    config = config_of(app, host="127.0.0.1", port=0, seconds=5)
    running = DrainingServer(config, app.state.service)
    task = asyncio.create_task(running._serve())
    while not running.started:
        await asyncio.sleep(0.01)
        assert not task.done()
    yield running.servers[0].sockets[0].getsockname()[1]
    running.should_exit = True
    await task


async def exchanged(port: int, sent: bytes) -> bytes:
    """All that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


class TestConnections:
    @pytest.mark.parametrize("begun", [b"", b"GET /hea", b"POST /search HTTP/1.1\r\nHost: t\r\nX: "])
    async def test_one_without_a_whole_request_is_closed(self, app, monkeypatch, begun):
        monkeypatch.setattr(connections, "_HEADER_SECONDS", 0.1)
        async with served(app) as port:
            assert await exchanged(port, begun) == b""

    async def test_half_a_second_request_is_closed_too(self, app, monkeypatch):
        monkeypatch.setattr(connections, "_HEADER_SECONDS", 0.1)
        async with served(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n")
            assert (await reader.readuntil(b'"ok"}')).startswith(b"HTTP/1.1 200")
            writer.write(b"GET /hea")
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()

    async def test_more_than_there_is_room_for_are_closed_and_the_others_answered(self, app, monkeypatch):
        monkeypatch.setattr(connections, "max_connections", lambda: 3)
        async with served(app) as port:
            kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            assert await exchanged(port, b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n") == b""
            for _, writer in kept[1:]:
                writer.close()
                await writer.wait_closed()
            await asyncio.sleep(0.05)
            reader, writer = kept[0]
            writer.write(b"GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()

    async def test_two_lengths_are_refused_and_the_connection_closed(self, app):
        sent = (
            b"POST /search HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n"
        )
        async with served(app) as port:
            answer = await exchanged(port, sent)
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.count(b"HTTP/1.1") == 1

    def test_leave_files_for_the_rest(self):
        assert 16 <= connections.max_connections() <= 4096


class TestStuckWork:
    async def test_another_thread_takes_the_slot_until_none_is_left(self):
        workers, ends = Workers(1, patience_seconds=0.01), threading.Event()
        for n_stuck in range(1, 5):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(workers.run(ends.wait), 0.05)
            while workers.stuck < n_stuck:
                await asyncio.sleep(0.01)
            assert workers.exhausted == (n_stuck == 4)
            if n_stuck < 4:
                assert await workers.run(lambda: "answered") == "answered"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(workers.run(lambda: "answered"), 0.05)
        ends.set()
        while workers.stuck:
            await asyncio.sleep(0.01)
        assert await asyncio.gather(*(workers.run(lambda: "answered") for _ in range(3))) == ["answered"] * 3
        assert (workers.working, workers.waiting, workers.exhausted) == (0, 0, False)
        workers.close()

    async def test_ready_says_so(self, app):
        service = app.state.service
        async with client_of(app) as client:
            assert (await client.get("/ready")).json() == {"status": "ready"}
            service.workers.stuck = 1_000
            answer = await client.get("/ready")
        assert (answer.status_code, answer.json()) == (503, {"status": "stuck"})


class TestToken:
    def test_that_is_empty_in_the_environment_is_refused(self):
        app = Typer()
        app.command()(serve)
        result = CliRunner().invoke(app, [], env={"TANSAKU_TOKEN": ""})
        assert "set but empty" in str(result.exception)

    @pytest.mark.parametrize("token", ["a\nb", "\x00a", "a\x7f", "a\r\nb\n"])
    def test_that_no_client_can_send_is_refused(self, token):
        with pytest.raises(InputError, match="no client can send"):
            checked_token(token)
        with pytest.raises(InputError, match="setting token is not valid"):
            Settings(token=token)

    @pytest.mark.parametrize("token", ["a", "秘密 x\r\n", "\ta b\t"])
    def test_that_can_be_sent_is_taken(self, token):
        assert checked_token(token) == Settings(token=token).token == token

    async def test_may_end_in_a_line_end(self):
        with open(os.devnull, "w") as nowhere:
            settings = Settings(refresh_seconds=0, token="secret\n")  # noqa: S106
            app = create_app(settings, encoder=FakeEncoder(), log=json_lines(nowhere))
            async with client_of(app) as client:
                assert (await client.get("/metrics")).status_code == 401
                answer = await client.get("/metrics", headers={"Authorization": "Bearer secret"})
        assert answer.status_code == 200


def test_the_server_takes_the_protocol_with_limits(app):
    config = config_of(app, host="127.0.0.1", port=0, seconds=5)
    config.load()
    assert config.http_protocol_class is connections.BoundedProtocol
