"""Who may ask the MCP server over HTTP, and the options of the command."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse
from typer import Typer
from typer.testing import CliRunner

from tansaku import InputError
from tansaku.plugin.cli.mcp import mcp
from tansaku.plugin.mcp.access import Access

PORT = 8765


async def status(host="127.0.0.1", *, headers, port=PORT, **options):
    app = Access(PlainTextResponse("answered"), host=host, port=port, **options)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        return (await client.post("/mcp", headers=headers)).status_code


class TestPath:
    @staticmethod
    async def answer(path):
        async def app(scope, receive, send):
            await PlainTextResponse(scope["path"])(scope, receive, send)

        transport = httpx.ASGITransport(Access(app, host="127.0.0.1", port=PORT))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{PORT}") as client:
            return await client.post(path)

    @pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
    async def test_may_have_a_slash_too_many(self, path):
        assert (await self.answer(path)).text == "/mcp"

    @pytest.mark.parametrize("path", ["/", "/sse", "/mcp/x"])
    async def test_another_one_is_answered_with_the_right_one(self, path):
        answer = await self.answer(path)
        assert (answer.status_code, "the server is at /mcp" in answer.text) == (404, True)


class TestHost:
    @pytest.mark.parametrize(
        "name", ["127.0.0.1:8765", "LOCALHOST:8765", "[::1]:8765", "tansaku:8765", "tansaku", "proxy:9000"]
    )
    async def test_is_this_machine_or_allowed(self, name):
        assert await status(headers={"host": name}, hosts=["tansaku", "proxy:9000"]) == 200

    @pytest.mark.parametrize(
        "name", ["evil.example", "127.0.0.1:8766", "127.0.0.1", "tansaku:1", "proxy", "a.tansaku", ""]
    )
    @pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
    async def test_is_no_other(self, name, address):
        assert await status(address, headers={"host": name}, hosts=["tansaku", "proxy:9000"]) == 421

    async def test_may_lack_the_port_that_clients_leave_out(self):
        assert await status(headers={"host": "localhost"}, port=80) == 200

    async def test_is_free_where_others_reach_the_server_and_no_names_are_given(self):
        assert await status("0.0.0.0", headers={"host": "tansaku:1"}) == 200  # noqa: S104


class TestOrigin:
    @pytest.mark.parametrize(("page", "expected"), [("https://a.example", 200), ("http://localhost:8765", 200)])
    async def test_is_this_machine_or_allowed(self, page, expected):
        headers = {"host": "localhost:8765", "origin": page}
        assert await status(headers=headers, origins=["https://A.example/"]) == expected

    @pytest.mark.parametrize("page", ["https://evil.example", "http://a.example", "https://a.example:1", "null"])
    @pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
    async def test_is_no_other(self, page, address):
        headers = {"host": "localhost:8765", "origin": page}
        assert await status(address, headers=headers, origins=["https://a.example"]) == 403


class TestToken:
    @pytest.mark.parametrize(
        ("sent", "expected"),
        [("Bearer t", 200), ("bearer  t ", 200), ("Bearer x", 401), ("t", 200), ("x", 401), ("Basic t", 401)],
    )
    async def test_opens(self, sent, expected):
        headers = {"host": "localhost:8765", "authorization": sent}
        assert await status(headers=headers, token=" t ") == expected  # noqa: S106

    async def test_does_not_open_to_other_pages(self):
        headers = {"host": "localhost:8765", "authorization": "Bearer t", "origin": "https://evil.example"}
        assert await status(headers=headers, token="t") == 403  # noqa: S106


@pytest.mark.parametrize(
    "options",
    [
        {"hosts": ["http://a"]},
        {"hosts": [""]},
        {"hosts": ["*"]},
        {"origins": ["a.example"]},
        {"origins": ["https://a/b"]},
    ],
)
def test_names_that_are_none_are_refused(options):
    with pytest.raises(InputError, match="--allowed-"):
        Access(PlainTextResponse(""), host="127.0.0.1", port=PORT, **options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--host is for HTTP"),  # noqa: S104
        (["--allowed-host", "a"], "--allowed-host is for HTTP"),
        (["--allowed-origin", "https://a"], "add --http PORT"),
        (["--http", "8765", "--token", " "], "the token is empty"),
    ],
)
def test_arguments_that_cannot_be(arguments, said, monkeypatch):
    monkeypatch.setattr("tansaku.plugin.mcp.server.make_server", lambda *_, **__: None)
    app = Typer()
    app.command()(mcp)
    result = CliRunner().invoke(app, ["--db", "x", "--table", "t", *arguments])
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
