"""The HTTP service: every dialect's shapes, the limits, and what happens under too much load and at the end."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import json
import re
import sys
import threading
import time
from datetime import timedelta

import httpx
import lancedb
import pytest
from typer import Typer
from typer.testing import CliRunner

from tansaku import Index, InputError, MissingExtraError, Reranker, ScoreMode, Searcher
from tansaku.plugin.cli.serve import _indexes, serve
from tansaku.plugin.service.app import create_app
from tansaku.plugin.service.observability import json_lines
from tansaku.plugin.service.service import Service
from tansaku.plugin.service.settings import Settings

from ...support.fakes import MAX_TOKENS, FakeEncoder, NewerEncoder, corpus, exhaustive, make_findable, small_chunks

pytestmark = pytest.mark.integration

DOCS = corpus(12, year=lambda i: 1990 + i)
TEXTS = [doc["text"] for doc in DOCS]
QUERY = "3a9f"
TOKEN = "秘密x"  # noqa: S105
PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")


class SlowEncoder(FakeEncoder):
    """Encodes documents only once it is allowed to."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()
        self.go.set()
        self.at_work = 0
        self.most = 0

    def encode_tokens(self, tokenized, note=None):
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            assert self.go.wait(10)
            return super().encode_tokens(tokenized, note)
        finally:
            self.at_work -= 1


@pytest.fixture
def encoder():
    return SlowEncoder()


@pytest.fixture
def db(tmp_path, monkeypatch, encoder):
    small_chunks(monkeypatch)
    Index.create(tmp_path / "db", "t", DOCS, encoder=encoder)
    encoder.encoded.clear()
    return tmp_path / "db"


@pytest.fixture
def searcher(db, encoder):
    return Searcher.open(db, "t", encoder=encoder)


class Running:
    """A service in this process: its application, a client, and what it has logged."""

    def __init__(self, app, client, log):
        self.app, self.client, self._log = app, client, log
        self.service = app.state.service

    def log(self):
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    async def post(self, path, body=None, **how):
        return await self.client.post(path, json=body, **how)

    async def metric(self, line):
        found = re.search(rf"^{re.escape(line)} (\S+)$", (await self.client.get("/metrics")).text, re.MULTILINE)
        return float(found[1]) if found else None


@contextlib.asynccontextmanager
async def running(settings=None, *, load=True, **what):
    log = io.StringIO()
    app = create_app(settings or Settings(refresh_seconds=0), log=json_lines(log), **what)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        if load:
            await until(lambda: app.state.service.ready)
        yield Running(app, client, log)


async def until(condition, seconds=60.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


def expected(encoder, texts, score: ScoreMode = "mean"):
    return [(ranked.index, ranked.score) for ranked in Reranker(encoder).rerank(QUERY, texts, score=score)]


def pairs(results, score="relevance_score"):
    return [(result["index"], pytest.approx(result[score], abs=1e-9)) for result in results]


class TestCohere:
    @pytest.mark.parametrize("path", PATHS)
    async def test_order_scores_and_shape(self, encoder, path):
        async with running(encoder=encoder) as s:
            answer = await s.post(path, {"model": "any", "query": QUERY, "documents": TEXTS})
        body = answer.json()
        assert answer.status_code == 200
        assert pairs(body["results"]) == expected(encoder, TEXTS)
        in_brief = {"data"} if path in ("/rerank", "/v1/rerank") else set()
        assert set(body) == {"id", "model", "results", "usage", "meta"} | in_brief
        assert body["id"] == answer.headers["x-request-id"]
        assert set(body["results"][0]) == {"index", "relevance_score"}

    async def test_top_n_and_documents_returned(self, encoder):
        request = {"query": QUERY, "documents": [*TEXTS[:3], {"text": TEXTS[3]}], "top_n": 2, "return_documents": True}
        async with running(encoder=encoder) as s:
            results = (await s.post("/v1/rerank", request)).json()["results"]
        assert pairs(results) == expected(encoder, TEXTS[:4])[:2]
        assert [r["document"] for r in results] == [{"text": TEXTS[r["index"]]} for r in results]

    async def test_score_modes(self, encoder):
        request = {"query": QUERY, "documents": TEXTS}
        async with running(Settings(score="logit"), encoder=encoder) as s:
            by_setting = (await s.post("/rerank", request)).json()["results"]
            raw = (await s.post("/rerank", {**request, "raw_scores": True})).json()["results"]
            mean = (await s.post("/rerank", {**request, "score": "mean"})).json()["results"]
        assert pairs(by_setting) == expected(encoder, TEXTS, "logit")
        assert pairs(raw) == expected(encoder, TEXTS, "raw")
        assert pairs(mean) == expected(encoder, TEXTS)

    async def test_more_documents_than_are_scored_together(self, encoder):
        texts = [f"{i:x}" for i in range(300)]
        async with running(encoder=encoder) as s:
            results = (await s.post("/rerank", {"query": QUERY, "documents": texts, "top_n": 300})).json()["results"]
        assert pairs(results) == expected(encoder, texts)

    async def test_rank_fields_make_up_the_text(self, encoder):
        documents = [{"title": "3a", "body": "9f", "n": 4}, {"title": "zz"}]
        request = {"query": QUERY, "documents": documents, "rank_fields": ["title", "body", "n"]}
        async with running(encoder=encoder) as s:
            results = (await s.post("/v1/rerank", request)).json()["results"]
            assert pairs(results) == expected(encoder, ["3a\n9f\n4", "zz"])
            request["rank_fields"] = ["body"]
            assert "documents.1" in (await s.post("/v1/rerank", request)).json()["message"]

    async def test_documents_by_id_are_scored_over_codes(self, searcher, encoder, db):
        async with running(searchers={"t": searcher}) as s:
            encoder.encoded.clear()
            request = {"query": QUERY, "documents": [{"id": doc["id"]} for doc in DOCS], "raw_scores": True}
            results = (await s.post("/v2/rerank", request)).json()["results"]
            assert await s.metric('tansaku_documents_total{how="stored"}') == 12
        order = exhaustive(db, encoder.vectors(QUERY))
        assert [DOCS[r["index"]]["id"] for r in results] == [doc_id for doc_id, _ in order]
        assert [r["relevance_score"] for r in results] == pytest.approx([score for _, score in order], abs=1e-4)
        assert encoder.encoded == []

    async def test_an_id_beside_a_text_counts_only_where_an_index_is_named(self, searcher, encoder):
        documents = [{"id": "d0", "text": QUERY}, {"id": "zz", "text": QUERY}, {"id": "d1"}, {"id": "none"}]
        async with running(searchers={"t": searcher}) as s:
            by_text = (await s.post("/rerank", {"query": QUERY, "documents": documents})).json()
            by_id = (await s.post("/rerank", {"query": QUERY, "documents": documents, "index": "t"})).json()
        assert [r["index"] for r in by_text["results"]] == [0, 1, 2]
        assert by_id["results"][0]["index"] == 1
        for body in (by_text, by_id):
            assert body["missing"] == ["none"]
            assert body["meta"]["warnings"] == ["left out 1 document that the index does not have"]

    async def test_long_texts_are_cut_and_the_answer_says_so(self, encoder):
        async with running(Settings(max_text_chars=4), encoder=encoder) as s:
            body = (await s.post("/rerank", {"query": QUERY, "documents": ["3a9fzz", "3a"]})).json()
        assert pairs(body["results"]) == expected(encoder, ["3a9f", "3a"])
        assert body["meta"]["warnings"] == ["cut 1 document at 4 characters"]

    async def test_duplicates_keep_their_order(self, encoder):
        async with running(encoder=encoder) as s:
            body = (await s.post("/rerank", {"query": QUERY, "documents": ["ab", "3a9f", "ab", "3a9f"]})).json()
        assert [r["index"] for r in body["results"]] == [1, 3, 0, 2]


class TestOtherDialects:
    async def test_tei_rerank(self, encoder):
        request = {"query": QUERY, "texts": TEXTS, "raw_scores": True, "return_text": True, "truncate": True}
        async with running(encoder=encoder) as s:
            body = (await s.post("/rerank", request)).json()
            plain = (await s.post("/rerank", {"query": QUERY, "texts": TEXTS[:2]})).json()
        assert pairs(body, "score") == expected(encoder, TEXTS, "raw")
        assert [rank["text"] for rank in body] == [TEXTS[rank["index"]] for rank in body]
        assert set(plain[0]) == {"index", "score"}

    async def test_tei_without_truncation_refuses_long_texts(self, encoder):
        async with running(Settings(max_text_chars=4), encoder=encoder) as s:
            refused = await s.post("/rerank", {"query": QUERY, "texts": ["3a9fz"], "truncate": False})
            assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
            assert (await s.post("/rerank", {"query": QUERY, "texts": ["3a9fz"]})).status_code == 200

    async def test_tei_embed_all(self, encoder):
        async with running(encoder=encoder) as s:
            body = (await s.post("/embed_all", {"inputs": ["ab", "3a9f"]})).json()
            one = (await s.post("/embed_all", {"inputs": "ab", "prompt_name": "query"})).json()
        assert body == [encoder.vectors(text).tolist() for text in ("ab", "3a9f")]
        assert one == body[:1]

    @pytest.mark.parametrize("input_type", ["document", "query"])
    async def test_jina_multi_vector(self, encoder, input_type):
        request = {"model": "m", "input_type": input_type, "embedding_type": "float", "input": ["ab", {"text": "3a9f"}]}
        async with running(encoder=encoder) as s:
            body = (await s.post("/v1/multi-vector", request)).json()
            refused = await s.post("/v1/multi-vector", {**request, "dimensions": 8})
        assert [item["embeddings"] for item in body["data"]] == [
            encoder.vectors(text).tolist() for text in ("ab", "3a9f")
        ]
        assert [item["index"] for item in body["data"]] == [0, 1]
        assert body["usage"]["total_tokens"] == 6
        assert (refused.status_code, list(refused.json())) == (422, ["detail"])

    async def test_weaviate_as_recorded(self, encoder):
        # Its module sends "property" always, names no content type, and expects the scores in the order sent.
        recorded = json.dumps({"query": QUERY, "documents": TEXTS, "property": ""})
        mean = dict(expected(encoder, TEXTS))
        async with running(encoder=encoder) as s:
            for path in ("/rerank", "/weaviate/rerank"):
                answer = await s.client.post(path, content=recorded)
                assert answer.request.headers.get("content-type") is None
                body = answer.json()
                assert (answer.status_code, body["query"]) == (200, QUERY)
                assert [score["document"] for score in body["scores"]] == TEXTS
                assert [score["score"] for score in body["scores"]] == pytest.approx([mean[i] for i in range(12)])

    async def test_weaviate_waits_for_the_probes(self, encoder):
        async with running(encoder=encoder) as s:
            for prefix in ("", "/weaviate"):
                for probe in ("live", "ready"):
                    assert (await s.client.get(f"{prefix}/.well-known/{probe}")).status_code == 204
                assert (await s.client.get(f"{prefix}/meta")).json()["model"] == "fake"


class TestRecordedShapes:
    """What stacks that cannot run here send, and what they read from the answer."""

    async def test_elasticsearch_custom_inference_service(self, encoder):
        template = '{"model":"tansaku","query":${query},"documents":${input},"return_documents":true}'
        sent = template.replace("${query}", json.dumps(QUERY)).replace("${input}", json.dumps(TEXTS))
        async with running(encoder=encoder) as s:
            body = (
                await s.client.post("/v1/rerank", content=sent, headers={"content-type": "application/json"})
            ).json()
        scores = [result["relevance_score"] for result in body["results"]]  # $.results[*].relevance_score
        indexes = [result["index"] for result in body["results"]]  # $.results[*].index
        texts = [result["document"]["text"] for result in body["results"]]  # $.results[*].document.text
        assert list(zip(indexes, scores, strict=True)) == [(i, pytest.approx(v)) for i, v in expected(encoder, TEXTS)]
        assert texts == [TEXTS[i] for i in indexes]

    async def test_opensearch_connector(self, encoder):
        request = {"documents": [*TEXTS, ""], "query": QUERY, "model": "tansaku", "top_n": 13}
        async with running(encoder=encoder) as s:
            answer = await s.post("/v1/rerank", request)
        # Its post-processing casts to Integer and Double, and needs every document.
        written = re.findall(r'"index":(\S+?),"relevance_score":(\S+?)}', answer.text)
        assert sorted(int(index) for index, _ in written) == list(range(13))
        assert all("." in score or "e" in score for _, score in written)
        assert ("12", "0.0") in written

    @pytest.mark.parametrize("top_n", [None, 3])
    async def test_dify(self, encoder, top_n):
        request = {"model": "m", "query": QUERY, "documents": TEXTS[:3], "top_n": top_n, "return_documents": True}
        async with running(encoder=encoder) as s:
            answer = await s.post("/v1/rerank", request, headers={"Authorization": "Bearer "})
        for result in answer.json()["results"]:
            assert 0 <= result["index"] < 3
            assert isinstance(result["relevance_score"], float)
            assert result["document"]["text"] == TEXTS[result["index"]]


async def test_phrases_count_where_the_service_was_started_so(searcher, encoder):
    async with running(Settings(phrase_weight=0.3), searchers={"t": searcher}) as s:
        found = (await s.post("/search", {"query": QUERY, "k": 3, "score": "raw"})).json()["hits"]
        plain = {"query": QUERY, "k": 3, "score": "raw", "phrase_weight": 0}
        without = (await s.post("/search", plain)).json()["hits"]
        request = {"query": QUERY, "documents": TEXTS, "top_n": 3}
        ranked = (await s.post("/v2/rerank", request)).json()["results"]
    assert [hit["score"] for hit in found] == pytest.approx(
        [hit.score for hit in searcher.search(QUERY, 3, phrase_weight=0.3)]
    )
    assert [hit["score"] for hit in without] == pytest.approx([hit.score for hit in searcher.search(QUERY, 3)])
    expected = Reranker(encoder, phrase_weight=0.3).rerank(QUERY, TEXTS, k=3)
    assert [(result["index"], result["relevance_score"]) for result in ranked] == [
        (r.index, pytest.approx(r.score)) for r in expected
    ]


class TestSearch:
    async def test_hits_are_those_of_the_searcher(self, searcher):
        async with running(searchers={"t": searcher}) as s:
            body = (await s.post("/search", {"query": QUERY, "k": 3, "where": "year > 1993"})).json()
            raw = (await s.post("/search", {"query": QUERY, "k": 3, "score": "raw"})).json()
            with_phrases = (await s.post("/search", {"query": QUERY, "k": 3, "phrase_weight": 0.2})).json()
        hits = searcher.search(QUERY, 3, where="year > 1993")
        assert [(hit["id"], hit["score"], hit["fields"]) for hit in body["hits"]] == [
            (hit.id, pytest.approx(score), hit.fields) for hit, score in zip(hits, hits.scores(), strict=True)
        ]
        assert [hit["score"] for hit in raw["hits"]] == pytest.approx([hit.score for hit in searcher.search(QUERY, 3)])
        expected = searcher.search(QUERY, 3, phrase_weight=0.2).scores()
        assert [hit["score"] for hit in with_phrases["hits"]] == pytest.approx(expected)
        assert body["index"] == "t"
        assert set(body["stages_ms"]) == set(hits.stages)

    async def test_hits_bring_what_is_asked_for(self, searcher):
        async with running(searchers={"t": searcher}) as s:
            some, none = [
                (await s.post("/search", {"query": QUERY, "k": 1, "fields": fields})).json()["hits"]
                for fields in (["text"], [])
            ]
        (hit,) = searcher.search(QUERY, 1)
        assert (some[0]["text"], some[0]["fields"]) == (hit.text, {})
        assert (none[0]["id"], none[0]["title"], none[0]["text"], none[0]["fields"]) == (hit.id, "", "", {})

    async def test_ids_that_are_not_there_are_missing(self, searcher):
        async with running(searchers={"t": searcher}) as s:
            body = (await s.post("/search", {"query": QUERY, "ids": ["d1", "zz", "d1"], "recall": "exact"})).json()
        assert ([hit["id"] for hit in body["hits"]], body["missing"]) == (["d1"], ["zz"])

    async def test_recall_may_be_a_number_and_the_expected_one_is_told(self, searcher):
        async with running(searchers={"t": searcher}) as s:
            body = (await s.post("/search", {"query": QUERY, "recall": 0.95})).json()
        assert body["recall"] == searcher.search(QUERY, recall=0.95).recall == 1.0

    async def test_several_indexes_are_told_apart_by_name(self, db, searcher, encoder):
        Index.create(db, "u", corpus(3, prefix="u"), encoder=encoder)
        searchers = {"t": searcher, "u": Searcher.open(db, "u", encoder=encoder)}
        async with running(searchers=searchers) as s:
            assert (await s.post("/search", {"query": QUERY, "index": "u"})).json()["hits"][0]["id"][0] == "u"
            assert (await s.post("/search", {"query": QUERY})).json()["index"] == "t"
            request = {"query": QUERY, "documents": [{"id": "u1"}], "index": "u"}
            assert (await s.post("/rerank", request)).json()["results"][0]["index"] == 0
            refused = await s.post("/search", {"query": QUERY, "index": "v"})
        assert (refused.status_code, refused.json()["message"]) == (404, "unknown index; use t or u")

    async def test_real_japanese(self, tmp_path, default_encoder):
        texts = ["海の水は塩辛い。", "金閣寺は足利義満が建てた。", "富士山は日本で一番高い山である。"]
        documents = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
        Index.create(tmp_path, "t", documents, encoder=default_encoder)
        searcher = Searcher.open(tmp_path, "t", encoder=default_encoder)
        async with running(searchers={"t": searcher}) as s:
            found = (await s.post("/search", {"query": "金閣寺を建てたのは誰", "k": 2})).json()["hits"]
            ranked = (await s.post("/rerank", {"query": "金閣寺を建てたのは誰", "documents": texts})).json()["results"]
        assert (found[0]["id"], found[0]["text"], ranked[0]["index"]) == ("1", texts[1], 1)
        assert 0 < ranked[2]["relevance_score"] < ranked[0]["relevance_score"] < 1

    @pytest.mark.parametrize("refresh_seconds", [0, 30])
    async def test_files_are_checked_once_in_the_background(self, db, searcher, refresh_seconds):
        async with running(Settings(refresh_seconds=refresh_seconds), searchers={"t": searcher}) as s:
            await until(lambda: any(line["event"] == "checked" for line in s.log()))
        (file,) = (db / "t.lance" / "data").iterdir()
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        async with running(Settings(refresh_seconds=refresh_seconds), searchers={"t": searcher}) as s:
            await until(lambda: any(line["event"] == "damaged" for line in s.log()))
            (line,) = [line for line in s.log() if line["event"] == "damaged"]
        assert (line["index"], line["error"]) == ("t", "StorageError")
        assert file.name in line["message"]

    async def test_changes_are_seen_after_a_while(self, db, searcher, encoder):
        async with running(Settings(refresh_seconds=0.05), searchers={"t": searcher}) as s:
            Index.open(db, "t", encoder=encoder).add([{"id": "new", "text": QUERY, "year": 2026}])
            await until(lambda: any(line["event"] == "refreshed" for line in s.log()))
            assert (await s.post("/search", {"query": QUERY, "k": 1})).json()["hits"][0]["id"] == "new"
            assert await s.metric('tansaku_index_documents{index="t"}') == 13

    async def test_an_index_that_is_gone_is_served_on_and_logged(self, searcher, monkeypatch):
        def gone():
            raise OSError("gone")

        monkeypatch.setattr(searcher, "refresh", gone)
        async with running(Settings(refresh_seconds=0.02), searchers={"t": searcher}) as s:
            await until(lambda: any(line["event"] == "not refreshed" for line in s.log()))
            assert (await s.post("/search", {"query": QUERY})).status_code == 200

    async def test_a_new_model_of_the_table_is_followed(self, db, encoder, monkeypatch):
        newer = NewerEncoder()
        make_findable(monkeypatch, encoder, newer)
        async with running(Settings(refresh_seconds=0.05, indexes={"t": (str(db), "t")})) as s:
            before = (await s.post("/search", {"query": QUERY})).json()["hits"]
            await asyncio.to_thread(Index.open(db, "t").rebuild, encoder=NewerEncoder())
            await until(lambda: any(line["event"] == "refreshed" for line in s.log()))
            after = (await s.post("/search", {"query": QUERY})).json()["hits"]
            ranked = (await s.post("/rerank", {"query": QUERY, "documents": TEXTS})).json()["results"]
            by_id = (
                await s.post("/rerank", {"query": QUERY, "documents": [{"id": hit["id"]} for hit in after]})
            ).json()
            assert (await s.client.get("/ready")).json() == {"status": "ready"}
        hits = Searcher.open(db, "t", encoder=newer).search(QUERY)
        assert [hit["id"] for hit in after] == [hit.id for hit in hits]
        scores = [pytest.approx(score, abs=1e-6) for score in hits.scores()]
        assert [hit["score"] for hit in after] == scores != [hit["score"] for hit in before]
        assert [result["relevance_score"] for result in by_id["results"]] == scores
        assert pairs(ranked) == expected(newer, TEXTS)
        assert {line["model"] for line in s.log() if line["event"] == "refreshed"} == {"newer"}

    async def test_a_new_model_that_is_not_known_is_said_and_waited_for(self, db, encoder, monkeypatch):
        make_findable(monkeypatch, encoder)
        async with running(Settings(refresh_seconds=0.05, indexes={"t": (str(db), "t")})) as s:
            before = (await s.post("/search", {"query": QUERY})).json()["hits"]
            await asyncio.to_thread(Index.open(db, "t").rebuild, encoder=NewerEncoder())
            await until(lambda: s.service.outdated)
            ready = await s.client.get("/ready")
            assert (ready.status_code, ready.json()["status"]) == (200, "ready")
            assert "a new model that is not known here" in ready.json()["notice"]
            (line, *_) = [line for line in s.log() if line["event"] == "not refreshed"]
            assert (line["error"], "'newer'" in line["message"]) == ("ModelMismatchError", True)
            assert (await s.post("/search", {"query": QUERY})).json()["hits"] == before
            await asyncio.to_thread(Index.open(db, "t", encoder=NewerEncoder()).optimize, timedelta(0))
            gone = await s.post("/search", {"query": QUERY})
            assert (gone.status_code, "not known here" in gone.json()["message"]) == (503, True)
            make_findable(monkeypatch, encoder, NewerEncoder())
            await until(lambda: not s.service.outdated)
            assert (await s.client.get("/ready")).json() == {"status": "ready"}
            assert (await s.post("/search", {"query": QUERY})).status_code == 200


class TestBadInput:
    @pytest.mark.parametrize(
        ("body", "status", "said"),
        [
            ({"query": QUERY}, 422, "documents: Field required"),
            ({"documents": TEXTS}, 422, "query: Field required"),
            ({"query": QUERY, "documents": []}, 422, "list of documents is empty"),
            ({"query": " ", "documents": TEXTS}, 422, "the query is empty"),
            ({"query": 3, "documents": TEXTS}, 422, "query: Input should be a valid string"),
            ({"query": QUERY, "documents": "ab"}, 422, "documents: Input should be a valid list"),
            ({"query": QUERY, "documents": [3]}, 422, "documents.0: Input should be"),
            ({"query": QUERY, "documents": [{}]}, 422, "documents.0 has neither a text nor an id"),
            ({"query": QUERY, "documents": TEXTS, "top_n": 0}, 422, "top_n: Input should be greater"),
            ({"query": QUERY, "documents": TEXTS, "score": "best"}, 422, "score: Input should be 'mean'"),
            ({"query": QUERY, "documents": [{"id": "d1"}]}, 404, "no index is served here"),
            ({"query": QUERY * 2000, "documents": TEXTS}, 422, "the query has 8,000 characters"),
            ({"query": QUERY, "documents": ["a"] * 10_000}, 413, "there are 10,000 documents; at most 1,000"),
            ({"query": "\ud800", "documents": TEXTS}, 422, "query: Input should be a valid string"),
            ({"query": QUERY, "documents": [{"a": "\ud800"}], "rank_fields": ["a"]}, 422, "half a surrogate"),
            ([], 422, "the body: Input should be"),
        ],
    )
    async def test_is_named(self, encoder, body, status, said):
        sent = json.dumps(body).encode()
        async with running(encoder=encoder) as s:
            for path in ("/v1/rerank", "/rerank"):
                answer = await s.client.post(path, content=sent, headers={"content-type": "application/json"})
                assert (answer.status_code, said in answer.json()["message"]) == (status, True), answer.text

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"query": 1e999}', b"null", b"NaN"])
    async def test_a_body_that_is_no_json_object(self, encoder, content):
        async with running(encoder=encoder) as s:
            for path in ("/rerank", "/search", "/embed_all", "/v1/multi-vector", "/weaviate/rerank"):
                answer = await s.client.post(path, content=content, headers={"content-type": "application/json"})
                assert answer.status_code in (400, 422), answer.text

    @pytest.mark.parametrize(
        ("path", "body", "keys"),
        [
            ("/v2/rerank", {"query": "", "documents": ["a"]}, {"id", "message", "detail"}),
            ("/rerank", {"query": "", "documents": ["a"]}, {"id", "message", "detail"}),
            ("/rerank", {"query": "", "texts": ["a"]}, {"error", "error_type"}),
            ("/rerank", {"query": QUERY, "texts": [3]}, {"error", "error_type"}),
            ("/rerank", {"query": "", "documents": ["a"], "property": ""}, {"error"}),
            ("/weaviate/rerank", {"query": QUERY}, {"error"}),
            ("/embed_all", {"inputs": []}, {"error", "error_type"}),
            ("/embed_all", {"inputs": ["a", " "]}, {"error", "error_type"}),
            ("/embed_all", {"inputs": ["a"] * 33}, {"error", "error_type"}),
            ("/v1/multi-vector", {"input": []}, {"detail"}),
            ("/v1/multi-vector", {"input": ["a"], "input_type": "x"}, {"detail"}),
            ("/search", {"query": ""}, {"id", "message", "detail"}),
        ],
    )
    async def test_errors_have_the_shape_of_their_dialect(self, encoder, path, body, keys):
        async with running(encoder=encoder) as s:
            answer = await s.post(path, body)
        assert answer.status_code in (413, 422)
        assert set(answer.json()) == keys

    @pytest.mark.parametrize(
        ("more", "status", "said"),
        [
            ({"k": 0}, 422, "k: Input should be greater"),
            ({"k": 1001}, 422, "at most 1,000 hits"),
            ({"where": "nothing = 1"}, 422, "there is no column 'nothing'"),
            ({"where": "1+" * 2000 + "1=1"}, 422, "the condition has 4,003 characters"),
            ({"where": ""}, 422, "the condition is empty"),
            ({"ids": ["a"] * 10_001}, 413, "10,001 ids"),
            ({"ids": "d1"}, 422, "ids: Input should be a valid list"),
            ({"recall": "best"}, 422, "recall: Input should be"),
            ({"recall": 0.5}, 422, "recall: Input should be"),
            ({"recall": True}, 422, "recall: Input should be"),
            ({"recall": 0.95, "nprobe": 3}, 422, "recall 0.95 is a promise that nprobe would overrule"),
            ({"source": "text"}, 422, "full text"),
            ({"bm25_weight": 0.1}, 422, "set source to 'fused'"),
            ({"bm25_weight": -1}, 422, "bm25_weight: Input should be greater"),
            ({"phrase_weight": -1}, 422, "phrase_weight: Input should be greater"),
            ({"phrase_weight": 1e307}, 422, "phrase_weight: Input should be less than or equal to 1000"),
            ({"bm25_weight": 1e307, "source": "fused"}, 422, "bm25_weight: Input should be less than or equal to 1000"),
            ({"fields": ["yaer"]}, 422, "hits have no field 'yaer'; use id, score, title, text"),
            ({"fields": "title"}, 422, "fields: Input should be a valid list"),
            ({"fields": ["a"] * 1001}, 422, "fields: List should have at most 1000 items"),
            ({"nprobe": 0}, 422, "nprobe: Input should be greater"),
            ({"candidate": 9}, 422, "unknown field 'candidate'; did you mean 'candidates'?"),
            ({"top_k": 3, "k": 3}, 422, "unknown field 'top_k'"),
            ({"index": "none"}, 404, "unknown index; use t"),
        ],
    )
    async def test_of_a_search_is_named(self, searcher, more, status, said):
        async with running(searchers={"t": searcher}) as s:
            answer = await s.post("/search", {"query": QUERY, **more})
        assert (answer.status_code, said in answer.json()["message"]) == (status, True), answer.text

    @pytest.mark.parametrize(
        ("path", "body", "said"),
        [
            ("/v2/rerank", {"query": QUERY, "documents": TEXTS, "top_k": 3}, "'top_k'; did you mean 'top_n'?"),
            ("/rerank", {"query": QUERY, "documents": TEXTS, "return_document": True}, "mean 'return_documents'?"),
            ("/rerank", {"query": QUERY, "texts": TEXTS, "raw_score": True}, "mean 'raw_scores'?"),
            ("/v1/multi-vector", {"input": TEXTS, "input_typ": "query"}, "mean 'input_type'?"),
            ("/v1/rerank", {"query": QUERY, "documents": TEXTS} | {f"x{i}": 1 for i in range(21)}, "too many unknown"),
            ("/v1/multi-vector", {"input": [{"text": "犬", "image": "data:…"}]}, "input.0"),
        ],
    )
    async def test_a_field_that_is_nearly_a_known_one_is_refused(self, encoder, path, body, said):
        async with running(encoder=encoder) as s:
            answer = await s.post(path, body)
        assert answer.status_code == 422
        assert said in answer.text

    async def test_what_was_cut_is_said_in_every_dialect(self, searcher):
        long, limit = "犬" * (MAX_TOKENS + 1), searcher.encoder.bundle.query.max_length
        query_cut = f"the query is longer than the {limit} tokens"
        text_cut = (
            f"1 of 2 texts are longer than the {MAX_TOKENS} tokens that the model reads; their ends were ignored (1)"
        )
        texts = ["犬", long]
        said = {}
        async with running(searchers={"t": searcher}) as s:
            for path, body in (
                ("/search", {"query": long}),
                ("/v2/rerank", {"query": long, "documents": texts}),
                ("/rerank", {"query": long, "texts": texts}),
                ("/weaviate/rerank", {"query": long, "documents": texts}),
                ("/v1/multi-vector", {"input": texts}),
                ("/embed_all", {"inputs": texts}),
            ):
                answer = await s.post(path, body)
                said[path] = json.loads(answer.headers["x-tansaku-warnings"])
                if path == "/search":
                    assert (answer.json()["truncated"], answer.json()["warnings"]) == (True, said[path])
                if path == "/v2/rerank":
                    assert answer.json()["meta"]["warnings"] == said[path]
            for path in ("/search", "/v2/rerank", "/rerank", "/weaviate/rerank"):
                assert said[path][0].startswith(query_cut), path
            for path in ("/v2/rerank", "/rerank", "/weaviate/rerank", "/v1/multi-vector", "/embed_all"):
                assert said[path][-1].startswith(text_cut), path
            queries = await s.post("/v1/multi-vector", {"input": texts, "input_type": "query", "user": "u"})
            assert json.loads(queries.headers["x-tansaku-warnings"]) == [
                "unknown field 'user' was ignored",
                f"1 of 2 queries are longer than the {limit} tokens that the model reads",
            ]
            plain = await s.post("/search", {"query": "犬"})
            assert (plain.json()["truncated"], plain.json()["warnings"]) == (False, [])
            assert "x-tansaku-warnings" not in plain.headers
            in_url = await s.post("/embed_all?truncate=false", {"inputs": "犬"})
            assert json.loads(in_url.headers["x-tansaku-warnings"]) == ["parameter 'truncate' in the URL was ignored"]

    @pytest.mark.parametrize(
        ("path", "body", "what"),
        [
            ("/rerank", {"query": "犬", "texts": ["犬", "犬" * (MAX_TOKENS + 1)]}, "text 1"),
            ("/rerank", {"query": "犬" * (MAX_TOKENS + 1), "texts": ["犬"]}, "query 0"),
            ("/embed_all", {"inputs": "犬" * (MAX_TOKENS + 1)}, "text 0"),
            ("/embed_all", {"inputs": "犬" * (MAX_TOKENS + 1), "prompt_name": "query"}, "query 0"),
        ],
    )
    async def test_a_text_with_too_many_tokens_is_refused_where_it_must_not_be_cut(self, encoder, path, body, what):
        async with running(encoder=encoder) as s:
            answer = await s.post(path, {**body, "truncate": False})
            assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation")
            assert answer.json()["error"].startswith(f"{what} has more than")
            assert (await s.post(path, {**body, "truncate": True})).status_code == 200

    async def test_options_of_a_search_in_the_url_are_refused(self, searcher):
        async with running(searchers={"t": searcher}) as s:
            answer = await s.post("/search?where=year<1&k=1", {"query": QUERY})
        assert (answer.status_code, "'where' in the URL" in answer.json()["message"]) == (422, True)

    async def test_other_fields_of_foreign_clients_are_ignored_and_named(self, encoder):
        request = {"query": QUERY, "documents": TEXTS, "max_tokens_per_doc": 4096, "priority": None}
        async with running(encoder=encoder) as s:
            body = (await s.post("/v2/rerank", request)).json()
            tei = await s.post("/rerank", {"query": QUERY, "texts": TEXTS, "user": "u"})
        assert pairs(body["results"]) == expected(encoder, TEXTS)
        assert body["meta"]["warnings"] == ["unknown field 'max_tokens_per_doc' was ignored"]
        assert tei.status_code == 200

    async def test_unknown_paths_and_methods(self, encoder):
        async with running(encoder=encoder) as s:
            assert (await s.post("/nowhere/secret", {})).status_code == 404
            assert (await s.client.get("/v1/rerank")).status_code == 405
            assert "secret" not in json.dumps(s.log())

    @pytest.mark.parametrize(
        "settings",
        [
            {"queue": -1},
            {"max_documents": 0},
            {"threads": "many"},
            {"deadline_seconds": 0},
            {"score": "x"},
            {"phrase_weight": -1},
            {"phrase_weight": float("nan")},
            {"token": " "},
            {"storage_options": {"region": 7}},
            {"indexes": {"t": "db"}},
        ],
    )
    def test_settings_that_are_not_valid(self, settings):
        with pytest.raises(InputError, match=f"setting {next(iter(settings))} is "):
            Settings(**settings)

    def test_a_secret_that_is_not_valid_is_not_repeated(self):
        with pytest.raises(InputError, match="storage_options") as raised:
            Settings(storage_options={"secret": 7091})  # pyright: ignore[reportArgumentType]
        assert "7091" not in str(raised.value)


class TestLimits:
    async def test_a_body_that_is_too_long_is_not_read(self, encoder):
        async with running(Settings(max_body_bytes=1000), encoder=encoder) as s:
            answer = await s.post("/rerank", {"query": QUERY, "documents": ["a" * 2000]})

            async def unannounced():
                for _ in range(100):
                    yield b" " * 100

            chunked = await s.client.post("/v2/rerank", content=unannounced())
            assert await s.metric('tansaku_refused_total{reason="body"}') == 2
        assert (answer.status_code, set(answer.json())) == (413, {"id", "message", "detail", "error", "error_type"})
        assert (chunked.status_code, set(chunked.json())) == (413, {"id", "message", "detail"})

    async def test_the_token_opens_what_is_no_probe(self, encoder):
        request = {"query": QUERY, "documents": TEXTS}
        async with running(Settings(token=TOKEN), encoder=encoder) as s:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
                refused = await s.post("/v2/rerank", request, headers=headers)
                assert (refused.status_code, set(refused.json())) == (401, {"id", "message", "detail"})
                assert refused.headers["www-authenticate"] == "Bearer"
            for path in ("/metrics", "/openapi.json"):
                assert (await s.client.get(path)).status_code == 401
            for path in ("/health", "/ready", "/meta", "/.well-known/ready", "/weaviate/.well-known/live"):
                assert (await s.client.get(path)).status_code in (200, 204)
            right = {"Authorization": f"Bearer {TOKEN}".encode()}
            assert (await s.post("/v2/rerank", request, headers=right)).status_code == 200
            assert "秘密" not in s._log.getvalue()
        assert "秘密" not in repr(Settings(token=TOKEN))

    async def test_too_many_requests_are_refused_and_the_others_answered(self, encoder):
        settings = Settings(concurrency=2, queue=3)
        async with running(settings, encoder=encoder) as s:
            encoder.go.clear()
            encoder.most = 0
            asked = [asyncio.create_task(s.post("/v1/rerank", {"query": QUERY, "documents": TEXTS})) for _ in range(20)]
            await until(lambda: sum(task.done() for task in asked) == 15)
            assert await s.metric("tansaku_workers_busy") == 2
            assert await s.metric("tansaku_requests_waiting") == 3
            assert (await s.client.get("/ready")).status_code == 200
            encoder.go.set()
            answers = await asyncio.gather(*asked)
            refused = [answer for answer in answers if answer.status_code == 429]
            assert len(refused) == 15
            assert {answer.headers["retry-after"] for answer in refused} == {"1"}
            for answer in answers:
                if answer not in refused:
                    assert pairs(answer.json()["results"]) == expected(encoder, TEXTS)
            assert encoder.most == 2
            assert await s.metric("tansaku_requests_in_flight") == 0

    async def test_the_deadline_ends_waiting_and_work(self, encoder):
        async with running(Settings(concurrency=1, deadline_seconds=0.2), encoder=encoder) as s:
            encoder.go.clear()
            request = {"query": QUERY, "documents": [f"{i:x}" for i in range(300)]}
            answers = await asyncio.gather(*(s.post("/rerank", request) for _ in range(2)))
            assert sorted(answer.status_code for answer in answers) == [503, 504]
            assert s.service.workers.working == 1  # a thread cannot be stopped
            encoder.go.set()
            await until(lambda: s.service.workers.working == 0)
            assert len(encoder.encoded) < 300  # it stopped after the piece it was at
            assert (await s.post("/rerank", {"query": QUERY, "documents": TEXTS})).status_code == 200

    async def test_a_body_that_comes_too_slowly(self, encoder):
        async def slow():
            yield b"{"
            await asyncio.sleep(5)

        async with running(Settings(deadline_seconds=0.1), encoder=encoder) as s:
            assert (await s.client.post("/rerank", content=slow())).status_code == 408
            assert await s.metric("tansaku_requests_in_flight") == 0

    async def test_a_client_that_goes_away_gives_its_place_back(self, encoder):
        async with running(Settings(concurrency=1, queue=1), encoder=encoder) as s:
            encoder.go.clear()
            body = json.dumps({"query": QUERY, "documents": TEXTS}).encode()
            gone = [asyncio.Event(), asyncio.Event()]
            tasks = [asyncio.create_task(raw_request(s.app, body, event)) for event in gone]
            await until(lambda: s.service.workers.waiting == 1)
            assert (await s.post("/rerank", {"query": QUERY, "documents": TEXTS})).status_code == 429
            for event in gone:
                event.set()
            assert await asyncio.gather(*tasks) == [[], []]
            assert s.service.workers.waiting == 0
            encoder.go.set()
            assert (await s.post("/rerank", {"query": QUERY, "documents": TEXTS})).status_code == 200
            assert await s.metric('tansaku_requests_total{dialect="cohere",route="/rerank",status="499"}') == 2


async def raw_request(app, body, gone):
    """Send a request and go away at ``gone``; the messages that came back."""
    sent, unread = [], [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if unread:
            return unread.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/rerank",
        "headers": [],
        "query_string": b"",
        "http_version": "1.1",
    }
    await app({**scope, "scheme": "http", "root_path": "", "server": ("t", 80), "client": None}, receive, send)
    return sent


@pytest.mark.parametrize(("pieces", "read"), [(3, 3), (10_000, 5)])
async def test_a_short_body_is_read_even_if_the_request_is_refused(encoder, pieces, read):
    """Who is still sending when the connection is closed sees no answer."""
    taken, sent = [], []

    async def receive():
        taken.append(len(taken))
        return {"type": "http.request", "body": bytes(1 << 16), "more_body": len(taken) < pieces}

    async def send(message):
        sent.append(message)

    async with running(Settings(token=TOKEN), encoder=encoder) as s:
        scope = {"type": "http", "method": "POST", "path": "/rerank", "headers": [], "query_string": b""}
        await s.app(
            {**scope, "http_version": "1.1", "scheme": "http", "server": ("t", 80), "client": None}, receive, send
        )
    assert len(taken) == read
    assert sent[0]["status"] == 401


class TestOperations:
    async def test_is_not_ready_before_it_is_loaded_nor_while_it_drains(self, encoder):
        encoder.go.clear()
        async with running(encoder=encoder, load=False) as s:
            assert (await s.client.get("/health")).json() == {"status": "ok"}
            assert (await s.client.get("/ready")).json() == {"status": "loading"}
            assert (await s.client.get("/.well-known/ready")).status_code == 503
            refused = await s.post("/v1/rerank", {"query": QUERY, "documents": TEXTS})
            assert (refused.status_code, "loaded" in refused.json()["message"]) == (503, True)
            assert (await s.client.get("/meta")).status_code == 503
            encoder.go.set()
            await until(lambda: s.service.ready)
            assert (await s.client.get("/ready")).status_code == 200
            s.service.draining = True
            assert (await s.client.get("/ready")).json() == {"status": "draining"}
            refused = await s.post("/v1/rerank", {"query": QUERY, "documents": TEXTS})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert (await s.client.get("/health")).status_code == 200

    async def test_what_cannot_be_loaded_is_reported(self, tmp_path, encoder):
        failures = []
        settings = Settings(indexes={"t": (str(tmp_path), "none")})
        async with running(settings, encoder=encoder, on_failure=failures.append, load=False) as s:
            await until(lambda: failures)
            assert (await s.client.get("/ready")).status_code == 503
        assert "none" in str(failures[0])

    def test_storage_options_reach_the_database(self, db, encoder, monkeypatch):
        connect, given = lancedb.connect, []

        def noted(uri, *, storage_options=None):
            given.append(storage_options)
            return connect(uri, storage_options=storage_options)

        monkeypatch.setattr(lancedb, "connect", noted)
        Service(Settings(indexes={"t": (db, "t")}, storage_options={"region": "eu"}), encoder=encoder).load()
        assert given
        assert all(options == {"region": "eu"} for options in given)

    async def test_requests_are_logged_without_their_text(self, encoder):
        async with running(encoder=encoder) as s:
            request = {"query": "秘密の質問", "documents": ["秘密の文書"] * 12}
            await s.post("/rerank", request, headers={"X-Request-ID": "abc-1"})
            line = s.log()[-1]
            assert (line["request_id"], line["route"], line["dialect"]) == ("abc-1", "/rerank", "cohere")
            assert (line["status"], line["documents"], line["level"]) == (200, 12, "info")
            assert line["ms"] > 0
            assert "秘密" not in s._log.getvalue()
            forged = await s.post("/rerank", {}, headers={"X-Request-ID": 'a"b c'})
            assert re.fullmatch("[0-9a-f]{32}", forged.headers["x-request-id"])

    async def test_what_goes_wrong_inside_is_500_without_details(self, encoder, monkeypatch):
        async with running(encoder=encoder) as s:

            def broken(texts):
                raise RuntimeError(f"cannot encode {texts}")

            monkeypatch.setattr(encoder, "tokenize_documents", broken)
            for path, field in (("/v2/rerank", "documents"), ("/rerank", "texts")):
                answer = await s.post(path, {"query": QUERY, field: ["秘密の文書"]})
                assert answer.status_code == 500
                assert "cannot encode" not in answer.text
            assert set(answer.json()) == {"error", "error_type"}
            failed = next(line for line in s.log() if line["event"] == "failed")
            assert (failed["error"], "in broken" in failed["where"]) == ("RuntimeError", True)
            assert "秘密" not in s._log.getvalue()
            assert "message" not in failed

    async def test_metrics_count_requests_by_route_dialect_and_status(self, encoder):
        async with running(encoder=encoder) as s:
            await s.post("/rerank", {"query": QUERY, "texts": TEXTS})
            await s.post("/rerank", {"query": QUERY, "texts": []})
            await s.post("/a/b/c", {})
            for line, count in (
                ('tansaku_requests_total{dialect="tei",route="/rerank",status="200"}', 1),
                ('tansaku_requests_total{dialect="tei",route="/rerank",status="422"}', 1),
                ('tansaku_requests_total{dialect="tansaku",route="other",status="404"}', 1),
                ('tansaku_request_seconds_count{route="/rerank"}', 2),
                ('tansaku_documents_total{how="encoded"}', 12),
            ):
                assert await s.metric(line) == count, line

    async def test_openapi_has_every_dialect(self, encoder):
        async with running(encoder=encoder) as s:
            schema = (await s.client.get("/openapi.json")).json()
        assert {"/rerank", "/v1/rerank", "/v2/rerank", "/search", "/embed_all", "/v1/multi-vector"} <= set(
            schema["paths"]
        )
        body = schema["paths"]["/rerank"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert len(body["oneOf"]) == 5
        assert "HTTPValidationError" not in schema["components"]["schemas"]


class TestCommand:
    def test_indexes_have_names(self):
        assert _indexes("./db", ["a", "b"], ["c=s3://x/y/t"]) == {
            "a": ("./db", "a"),
            "b": ("./db", "b"),
            "c": ("s3://x/y", "t"),
        }
        assert _indexes(None, None, None) == {}

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--table", "x"], "--table needs --db"),
            (["--db", "x", "--write"], "--write-token"),
            (["--write", "--allow-write-without-token", "--host", "0.0.0.0"], "address of this machine"),  # noqa: S104
            (["--index", "x"], "NAME=DB/TABLE"),
            (["--db", "x", "--table", "t", "--table", "t"], "two indexes"),
            (["--max-body", "0"], "max-body"),
            (["--concurrency", "0"], "concurrency"),
        ],
    )
    def test_arguments_that_cannot_be(self, arguments, said):
        app = Typer()
        app.command()(serve)
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, InputError)
        assert said in str(result.exception)

    def test_a_missing_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "fastapi", None)
        monkeypatch.delitem(sys.modules, "tansaku.plugin.service.app")
        with pytest.raises(MissingExtraError, match=r"tansaku\[serve\]"):
            importlib.import_module("tansaku.plugin.service.app")
