"""The service as real clients see it: over a socket, with the packages of Cohere and LiteLLM, and fuzzed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import httpx
import pytest
import schemathesis.specs.openapi.schemas  # now, as Python below 3.11.9 can fail to parse a file while threads run
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from tansaku import Index, Reranker, Searcher
from tansaku.indexer.errors import TableNotFoundError
from tansaku.plugin.cli.serve import run
from tansaku.plugin.service import observability
from tansaku.plugin.service.app import create_app
from tansaku.plugin.service.observability import json_lines
from tansaku.plugin.service.server import DrainingServer, config_of
from tansaku.plugin.service.settings import Settings

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would fetch a list of prices
cohere = pytest.importorskip("cohere")
litellm = pytest.importorskip("litellm")

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:Item .* is using the `ReadOnly` qualifier:UserWarning"),  # litellm's models
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # connections that its and Cohere's clients keep
]

QUERY = "金閣寺を建てたのは誰ですか"
TEXTS = [
    "海の水は塩辛い。",
    "金閣寺は足利義満が建てた。",
    "富士山は日本で一番高い山である。",
    "銀閣寺は足利義政が建てた。",
]
TOKEN = "test-token"  # noqa: S105


@pytest.fixture(scope="module", autouse=True)
def _connections_end_here():
    """What those clients kept is collected within this file, where the warnings about it are allowed."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def searcher(tmp_path_factory, default_encoder):
    folder = tmp_path_factory.mktemp("served")
    documents = [{"id": f"d{i}", "text": text, "year": 1900 + i} for i, text in enumerate(TEXTS)]
    Index.create(folder, "t", documents, encoder=default_encoder)
    return Searcher.open(folder, "t", encoder=default_encoder)


@pytest.fixture(scope="module")
def url(searcher):
    """A service on a free port of this machine, in a thread."""
    with open(os.devnull, "w") as nowhere:
        app = create_app(Settings(token=TOKEN), searchers={"t": searcher}, log=json_lines(nowhere))
        server = DrainingServer(config_of(app, host="127.0.0.1", port=0, seconds=5), app.state.service)
        thread = threading.Thread(target=server.run)
        thread.start()
        ends = time.monotonic() + 20
        while not (server.started and app.state.service.ready):
            assert time.monotonic() < ends
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def expected(default_encoder):
    return [(ranked.index, ranked.score) for ranked in Reranker(default_encoder).rerank(QUERY, TEXTS)]


def pairs(results):
    values = [result if isinstance(result, dict) else vars(result) for result in results]
    return [(result["index"], pytest.approx(result["relevance_score"], abs=1e-6)) for result in values]


class TestCohere:
    def test_version_2(self, url, expected):
        client = cohere.ClientV2(TOKEN, base_url=url)
        answer = client.rerank(model="tansaku", query=QUERY, documents=TEXTS, top_n=3)
        assert pairs(answer.results) == expected[:3]
        assert answer.meta.api_version.version == "2"

    def test_version_1_with_documents(self, url, expected):
        client = cohere.Client(TOKEN, base_url=url)
        documents = [{"text": text} for text in TEXTS]
        answer = client.rerank(model="tansaku", query=QUERY, documents=documents, return_documents=True)
        assert [(result.index, result.document.text) for result in answer.results] == [
            (i, TEXTS[i]) for i, _ in expected
        ]

    async def test_asynchronous(self, url, expected):
        client = cohere.AsyncClientV2(TOKEN, base_url=url)
        assert pairs((await client.rerank(model="tansaku", query=QUERY, documents=TEXTS)).results) == expected

    def test_errors_are_its_own(self, url):
        with pytest.raises(cohere.UnauthorizedError, match="token"):
            cohere.ClientV2("wrong", base_url=url).rerank(model="m", query=QUERY, documents=TEXTS)
        with pytest.raises(cohere.UnprocessableEntityError, match="empty"):
            cohere.ClientV2(TOKEN, base_url=url).rerank(model="m", query=QUERY, documents=[])


class TestLiteLLM:
    @pytest.mark.parametrize("provider", ["cohere", "hosted_vllm", "jina_ai"])
    def test_providers(self, url, expected, provider):
        answer = litellm.rerank(
            model=f"{provider}/tansaku", query=QUERY, documents=TEXTS, top_n=3, api_base=url, api_key=TOKEN
        )
        assert pairs(answer.results) == expected[:3]
        assert [result["document"]["text"] for result in answer.results] == [TEXTS[i] for i, _ in expected[:3]]

    def test_infinity(self, url, expected):
        # It wants documents as plain strings where all the others want objects, and sends what they send.
        answer = litellm.rerank(
            model="infinity/tansaku", query=QUERY, documents=TEXTS, api_base=f"{url}/infinity", api_key=TOKEN
        )
        assert pairs(answer.results) == expected
        assert [result["document"]["text"] for result in answer.results] == [TEXTS[i] for i, _ in expected]

    @pytest.mark.parametrize("top_n", [None, 2])
    def test_voyage(self, url, expected, top_n):
        answer = litellm.rerank(
            model="voyage/tansaku", query=QUERY, documents=TEXTS, top_n=top_n, api_base=url, api_key=TOKEN
        )
        assert pairs(answer.results) == expected[:top_n]

    @pytest.mark.parametrize("model", ["tansaku", "nvidia/tansaku", "ranking/tansaku"])
    def test_nvidia(self, url, expected, model):
        answer = litellm.rerank(
            model=f"nvidia_nim/{model}", query=QUERY, documents=TEXTS, top_n=2, api_base=url, api_key=TOKEN
        )
        assert [result["index"] for result in answer.results] == [i for i, _ in expected[:2]]

    def test_documents_with_fields(self, url):
        documents = [{"title": "寺", "body": text} for text in TEXTS]
        answer = litellm.rerank(
            model="cohere/tansaku",
            query=QUERY,
            documents=documents,
            rank_fields=["title", "body"],
            return_documents=True,
            api_base=url,
            api_key=TOKEN,
        )
        assert answer.results[0]["document"]["text"] == f"寺\n{TEXTS[1]}"

    def test_wrong_token(self, url):
        with pytest.raises(litellm.AuthenticationError):
            litellm.rerank(
                model="hosted_vllm/m", query=QUERY, documents=TEXTS, api_base=url, api_key="wrong", max_retries=0
            )


class TestHttpx:
    def test_every_path_over_a_socket(self, url):
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            hits = client.post("/search", json={"query": QUERY, "where": "year > 1900"}).json()["hits"]
            assert (hits[0]["id"], hits[0]["fields"]) == ("d1", {"year": 1901})
            request = {"query": QUERY, "documents": [{"id": f"d{i}"} for i in range(4)]}
            assert client.post("/rerank", json=request).json()["results"][0]["index"] == 1
            assert client.post("/rerank", json={"query": QUERY, "texts": TEXTS}).json()[0]["index"] == 1
            matrix = client.post("/v1/multi-vector", json={"input": TEXTS[:1]}).json()["data"][0]["embeddings"]
            assert len(matrix[0]) == 128
            assert "tansaku_requests_total" in client.get("/metrics").text

    def test_a_body_that_is_too_long_is_refused_while_it_comes(self, url):
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            long = {"query": QUERY, "documents": ["あ" * 1_000_000] * 3}
            assert client.post("/v1/rerank", json=long).status_code == 413
            assert client.post("/v1/rerank", json={"query": QUERY, "documents": TEXTS}).status_code == 200

    async def test_more_at_once_than_there_are_places(self, url, expected):
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
            asked = (client.post("/v1/rerank", json={"query": QUERY, "documents": TEXTS}) for _ in range(90))
            answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} <= {200, 429}
        for answer in answers:
            if answer.status_code == 200:
                assert pairs(answer.json()["results"]) == expected


class TestStopping:
    def test_what_is_under_way_is_answered_and_what_comes_later_refused(self, tmp_path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        script = (
            "from typer import Typer\n"
            "from tansaku.plugin.cli.serve import serve\n"
            "app = Typer(); app.command()(serve); app()"
        )
        command = [sys.executable, "-c", script, "--port", str(port), "--drain-seconds", "1", "--concurrency", "1"]
        long = {"query": QUERY, "documents": [f"{TEXTS[i % 4]}{i}" * 3 for i in range(200)]}
        log = tmp_path / "log"
        with log.open("wb") as out, subprocess.Popen(command, stderr=out) as process:
            try:
                with (
                    httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
                    ThreadPoolExecutor(1) as pool,
                ):
                    wait_until_ready(client)
                    under_way = pool.submit(client.post, "/v1/rerank", json=long)
                    while "tansaku_workers_busy 1.0" not in client.get("/metrics").text:
                        time.sleep(0.01)
                    process.send_signal(signal.SIGTERM)
                    while client.get("/ready").json() != {"status": "draining"}:
                        time.sleep(0.01)
                    assert client.post("/v1/rerank", json=long).status_code == 503
                    assert len(under_way.result().json()["results"]) == 200
                assert process.wait(20) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
            finally:
                process.kill()
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        assert {"ready", "request", "Shutting down"} <= {line["event"] for line in lines}

    def test_an_index_that_is_not_there_ends_the_command(self, tmp_path, monkeypatch):
        monkeypatch.setattr(observability, "log_json_lines", lambda: None)
        with pytest.raises(TableNotFoundError, match="none"):
            run(Settings(indexes={"t": (str(tmp_path), "none")}), host="127.0.0.1", port=0)

    @pytest.mark.parametrize(("token", "warns"), [(None, True), ("t", False)])
    def test_an_open_address_without_a_token_is_warned_of(self, tmp_path, monkeypatch, capfd, token, warns):
        monkeypatch.setattr(observability, "log_json_lines", lambda: None)
        with pytest.raises(TableNotFoundError):
            run(Settings(indexes={"t": (str(tmp_path), "none")}, token=token), host="0.0.0.0", port=0)  # noqa: S104
        assert ("set TANSAKU_TOKEN" in capfd.readouterr().err) == warns


def wait_until_ready(client):
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/ready").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the service did not come up")


CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)


# A busy machine is no failure.
ANY_HEALTH = cast("list[HealthCheck]", list(HealthCheck))


@pytest.mark.slow
@schemathesis.serializer("application/x-ndjson")
def lines_of_json(_context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def test_what_openapi_allows_and_what_not_is_answered_as_documented(searcher):
    """No server errors; statuses, types and shapes as OpenAPI says."""
    with open(os.devnull, "w") as nowhere:
        app = create_app(Settings(refresh_seconds=0), searchers={"t": searcher}, log=json_lines(nowhere))
        app.state.service.load()
        paths = []
        for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            paths.append(operation.path)

            @settings(
                max_examples=15,
                deadline=None,
                derandomize=True,
                suppress_health_check=ANY_HEALTH,
            )
            @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode("negative")))
            def fuzz(case):
                case.call_and_validate(checks=CHECKS)

            fuzz()
        assert {"/rerank", "/v2/rerank", "/search", "/embed_all", "/v1/multi-vector", "/weaviate/rerank"} <= set(paths)
