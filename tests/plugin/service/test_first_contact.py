"""What programs meet first: names of operations, pages of other sites, and variables for every option."""

from __future__ import annotations

import keyword

import pytest
from typer.testing import CliRunner

from tansaku import InputError, Settings, create_app
from tansaku.plugin.cli import serve as serve_module
from tansaku.plugin.cli.main import app

from ...support.fakes import FakeEncoder
from .test_service import running

pytestmark = pytest.mark.integration

PAGE = "https://shop.example"


def test_operations_have_short_names_of_their_own():
    paths = create_app().openapi()["paths"]
    names = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in names)
    assert paths["/search"]["post"]["operationId"] == "search"
    assert paths["/ready"]["get"]["operationId"] == "ready"
    assert paths["/v2/rerank"]["post"]["operationId"] == "v2_rerank"
    assert paths["/indexes/{index}/documents"]["post"]["operationId"] == "write_documents"


async def test_other_sites_may_ask_only_if_they_are_named():
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for origins, allowed in (((), None), ((PAGE,), PAGE), (("https://other.example",), None), (("*",), "*")):
        settings = Settings(cors_origins=origins, token="secret", refresh_seconds=0)  # noqa: S106
        async with running(settings, encoder=FakeEncoder()) as s:
            before = await s.client.options("/search", headers=asks)
            assert before.headers.get("access-control-allow-origin") == allowed
            answer = await s.client.get("/info", headers={"Origin": PAGE, "Authorization": "Bearer secret"})
            assert answer.headers.get("access-control-allow-origin") == allowed
            refused = await s.client.get("/info", headers={"Origin": PAGE})
            assert refused.status_code == 401
            assert refused.headers.get("access-control-allow-origin") == allowed  # so that the page can say why


@pytest.mark.parametrize("origin", ["shop.example", "https://shop.example/", "ftp://x", "null", ""])
def test_an_origin_that_no_browser_sends(origin):
    with pytest.raises(InputError, match="such as https://example"):
        Settings(cors_origins=(origin,))


def test_every_option_of_a_server_is_a_variable_too(monkeypatch):
    seen = []
    monkeypatch.setattr(serve_module, "run", lambda settings, **given: seen.append((settings, given)))
    variables = {
        "TANSAKU_SERVE_PORT": "8123",
        "TANSAKU_SERVE_QUEUE": "7",
        "TANSAKU_SERVE_SCORE": "raw",
        "TANSAKU_SERVE_INDEX": "a=./db/x b=./db/y",
        "TANSAKU_SERVE_CORS_ORIGIN": PAGE,
        "TANSAKU_TOKEN": "secret",
        "TANSAKU_WRITE_TOKEN": "writer",
        "TANSAKU_SERVE_WRITE": "1",
    }
    result = CliRunner().invoke(app, ["serve", "--queue", "9"], env=variables)
    assert result.exit_code == 0, result.output
    ((settings, given),) = seen
    assert given["port"] == 8123
    assert settings.queue == 9  # an option counts more
    assert (settings.score, settings.token, settings.write) == ("raw", "secret", True)
    assert list(settings.indexes) == ["a", "b"]
    assert settings.cors_origins == (PAGE,)
