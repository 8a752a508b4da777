"""Texts that cannot be encoded within the deadline are refused before they are."""

from __future__ import annotations

import contextlib
import io
import json

import anyio
import httpx
import pytest

from tansaku import Index, Searcher
from tansaku.plugin.service.app import create_app
from tansaku.plugin.service.errors import ServiceError
from tansaku.plugin.service.observability import json_lines
from tansaku.plugin.service.pace import Pace
from tansaku.plugin.service.settings import Settings

from ...support.fakes import MAX_TOKENS, FakeEncoder

pytestmark = pytest.mark.integration

TEXTS = [f"{i:06}" for i in range(100)]


def of_rate(tokens_per_second, seconds=10.0):
    pace = Pace(seconds)
    pace.tokens_per_second = tokens_per_second
    return pace


def never():
    pytest.fail("nothing had to be counted")


class TestPace:
    def test_a_sample_is_measured(self):
        pace = Pace(30)
        pace.measure(FakeEncoder(), threads=1)
        assert pace.tokens_per_second
        assert pace.tokens_in_time == int(30 * pace.tokens_per_second)

    def test_a_faster_request_raises_the_rate_and_a_slower_or_small_one_does_not(self):
        pace = of_rate(100.0)
        for n_tokens, seconds, expected in ((1000, 20, 100), (499, 1, 100), (1000, 5, 200), (1000, 0, 1e9)):
            pace.saw(n_tokens, seconds)
            assert pace.tokens_per_second == expected

    def test_texts_that_take_too_long_are_refused_with_the_number_that_do_not(self):
        with pytest.raises(
            ServiceError, match=r"600 tokens; this machine encodes 30 a second, and 300 within .* 50 such"
        ):
            of_rate(30).check(FakeEncoder(), TEXTS, lambda: None)

    def test_texts_in_time_are_not(self):
        of_rate(60).check(FakeEncoder(), TEXTS, lambda: None)
        of_rate(80).check(FakeEncoder(), TEXTS, never)
        of_rate(1).check(FakeEncoder(), ["a", "a", " "] * 1_000, never)
        Pace(1).check(FakeEncoder(), TEXTS, never)

    def test_long_texts_count_as_far_as_the_model_reads_them(self):
        of_rate(10 * MAX_TOKENS).check(FakeEncoder(), [f"{i}" * 1_000 for i in range(9)], lambda: None)

    def test_counting_ends_when_nobody_waits(self):
        def gone():
            raise InterruptedError

        with pytest.raises(InterruptedError):
            of_rate(1).check(FakeEncoder(), TEXTS, gone)


@contextlib.asynccontextmanager
async def running(settings=None, **what):
    """A client of a service that is loaded, its application and its log."""
    log = io.StringIO()
    app = create_app(settings, log=json_lines(log), **what)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t")
    async with app.router.lifespan_context(app), client:
        with anyio.fail_after(30):
            while '"event": "ready"' not in log.getvalue():
                await anyio.sleep(0.01)
        yield client, app, log


@pytest.fixture
async def slow(tmp_path):
    """A service that seems to encode 10 tokens a second."""
    encoder = FakeEncoder()
    Index.create(tmp_path, "t", [{"id": text, "text": text} for text in TEXTS], encoder=encoder)
    async with running(searchers={"t": Searcher.open(tmp_path, "t", encoder=encoder)}) as (client, app, _):
        app.state.service.pace.tokens_per_second = 10.0
        encoder.encoded.clear()
        yield client, encoder


class TestService:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v2/rerank", {"query": "a", "documents": TEXTS}),
            ("/rerank", {"query": "a", "texts": TEXTS}),
            ("/weaviate/rerank", {"query": "a", "documents": TEXTS}),
            ("/v1/reranking", {"query": "a", "input": TEXTS}),
            ("/score", {"text_1": "a", "text_2": TEXTS}),
        ],
    )
    async def test_texts_that_take_too_long_are_refused_in_every_dialect(self, slow, path, body):
        client, encoder = slow
        answer = await client.post(path, json=body)
        assert (answer.status_code, "300 within the deadline of 30 s" in answer.text) == (413, True)
        assert encoder.encoded == []

    async def test_documents_by_id_take_no_time(self, slow):
        client, _ = slow
        by_id = {"query": "a", "documents": [{"id": text} for text in TEXTS]}
        assert (await client.post("/v2/rerank", json=by_id)).status_code == 200
        info = (await client.get("/info")).json()
        assert (info["tokens_per_second"], info["tokens_within_deadline"]) == (10, 300)

    @pytest.mark.parametrize(("max_documents", "warns"), [(10**9, True), (1, False)])
    async def test_the_start_says_how_much_can_be_encoded_in_time(self, max_documents, warns):
        async with running(Settings(max_documents=max_documents), encoder=FakeEncoder()) as (_, _, log):
            lines = {line["event"]: line for line in map(json.loads, log.getvalue().splitlines())}
        assert lines["ready"]["tokens_per_second"] > 0
        assert ("limits" in lines) == warns
