"""What each client sends and what it reads, from its source; and what clients send on first contact."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import httpx
import pytest

from tansaku import Index, Searcher
from tansaku.plugin.service.app import create_app
from tansaku.plugin.service.observability import json_lines
from tansaku.plugin.service.settings import Settings
from tansaku.plugin.serving.access import is_loopback

from ...support.fakes import FakeEncoder

pytestmark = pytest.mark.integration

QUERY = "3a9f"
TEXTS = ["ab", "3a9f", "3a"]
FIELDS = [{"title": "x", "body": text} for text in TEXTS]
COHERE = {"model": "m", "query": QUERY, "documents": TEXTS}
BILLED = ("meta.billed_units.search_units", "meta.tokens.input_tokens", "meta.tokens.output_tokens")

# Client and version -> path, body, what it reads from the answer, and what it reads from an error. "*" is each item.
CLIENTS: dict[str, tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "cohere 7.3.1, version 2": (
        "/v2/rerank",
        {**COHERE, "top_n": 2, "max_tokens_per_doc": None},
        ("id", "results.*.index", "results.*.relevance_score", "meta.api_version.version", *BILLED),
        ("message",),
    ),
    "cohere 7.3.1, version 1": (
        "/v1/rerank",
        {**COHERE, "documents": FIELDS, "rank_fields": ["title", "body"], "return_documents": True},
        ("id", "results.*.index", "results.*.relevance_score", "results.*.document.text", *BILLED),
        ("message",),
    ),
    "@ai-sdk/cohere 3.0.63": (
        "/v2/rerank",
        {**COHERE, "top_n": 2},
        ("id", "results.*.index", "results.*.relevance_score", "meta"),
        ("message",),
    ),
    "litellm 1.110.2, cohere/": (
        "/v1/rerank",
        {**COHERE, "documents": FIELDS, "rank_fields": ["title", "body"], "return_documents": True},
        ("id", "results.*.index", "results.*.relevance_score", "results.*.document.text", *BILLED),
        (),
    ),
    "litellm 1.110.2, hosted_vllm/": (
        "/rerank",
        {**COHERE, "return_documents": True},
        ("id", "results.*.index", "results.*.document.text", "usage.total_tokens", *BILLED),
        (),
    ),
    "litellm 1.110.2, jina_ai/": (
        "/v1/rerank",
        {**COHERE, "return_documents": True},
        ("id", "results.*.index", "results.*.relevance_score", "results.*.document.text", "usage.total_tokens"),
        (),
    ),
    "litellm 1.110.2, infinity/": (
        "/infinity/rerank",
        {**COHERE, "return_documents": True},
        ("id", "results.*.index", "results.*.document", "usage.prompt_tokens", "usage.total_tokens"),
        (),
    ),
    "litellm 1.110.2, voyage/": (
        "/v1/rerank",
        {**COHERE, "top_k": 2, "return_documents": True},
        ("data.*.index", "data.*.relevance_score", "data.*.document", "usage.total_tokens"),
        (),
    ),
    "litellm 1.110.2, voyage/, all documents": (
        "/v1/rerank",
        {**COHERE, "return_documents": True},
        ("data.*.index", "data.*.relevance_score", "data.*.document", "usage.total_tokens"),
        (),
    ),
    "litellm 1.110.2, nvidia_nim/ranking/": (
        "/v1/ranking",
        {"model": "m", "query": {"text": QUERY}, "passages": [{"text": text} for text in TEXTS]},
        ("rankings.*.index", "rankings.*.logit", "usage.total_tokens"),
        (),
    ),
    "litellm 1.110.2, nvidia_nim/": (
        "/v1/retrieval/nvidia/m/reranking",
        {"model": "m", "query": {"text": QUERY}, "passages": [{"text": text} for text in TEXTS], "top_k": 2},
        ("rankings.*.index", "rankings.*.logit"),
        (),
    ),
    "litellm 1.110.2, huggingface/": (
        "/rerank",
        {
            "query": QUERY,
            "texts": TEXTS,
            "raw_scores": False,
            "truncation_direction": "Right",
            "return_text": True,
        },
        ("*.index", "*.score", "*.text"),
        (),
    ),
    "litellm 1.110.2, fireworks_ai/": (
        "/v1/rerank",
        {**COHERE, "return_documents": True},
        ("data.*.index", "data.*.relevance_score", "data.*.document", "usage.total_tokens"),
        (),
    ),
    "together 1.6.0 and 3.1.1": (
        "/v1/rerank",
        {**COHERE, "top_n": 2, "return_documents": False},
        (
            "results.*.index",
            "results.*.relevance_score",
            "usage.prompt_tokens",
            "usage.completion_tokens",
            "usage.total_tokens",
        ),
        (),
    ),
    "@ai-sdk/voyage 1.0.14, an address without /v1": (
        "/rerank",
        COHERE,
        ("data.*.index", "data.*.relevance_score", "usage.total_tokens"),
        ("detail",),
    ),
    "voyageai 0.3.7 and 0.5.0": (
        "/v1/rerank",
        {**COHERE, "top_k": None, "truncation": True},
        ("data.*.index", "data.*.relevance_score", "usage.total_tokens"),
        ("detail",),
    ),
    "mixedbread 0.54.0": (
        "/v1/reranking",
        {"query": QUERY, "input": FIELDS, "rank_fields": ["title", "body"], "top_k": 2, "return_input": True},
        ("data.*.index", "data.*.score", "data.*.input.title", "model", "top_k", "return_input", "usage.total_tokens"),
        ("detail",),
    ),
    "infinity-client 0.0.78": (
        "/rerank",
        {**COHERE, "model": "default/not-specified", "return_documents": True, "raw_scores": False},
        ("results.*.index", "results.*.document", "model", "usage.prompt_tokens", "usage.total_tokens", "object"),
        ("detail.*.loc", "detail.*.msg", "detail.*.type"),
    ),
    "langchain-community 0.4.2, Jina": (
        "/v1/rerank",
        {**COHERE, "top_n": 2},
        ("results.*.index", "results.*.relevance_score"),
        ("detail",),
    ),
    "llama-index-postprocessor-jinaai-rerank 0.6.0": (
        "/v1/rerank",
        {**COHERE, "top_n": 2},
        ("results.*.index", "results.*.relevance_score"),
        ("detail",),
    ),
    "jina-haystack 2.0.1": (
        "/v1/rerank",
        {**COHERE, "top_n": None},
        ("results.*.index", "results.*.relevance_score", "model", "usage.total_tokens"),
        ("detail",),
    ),
    "vllm-haystack 3.0.1": (
        "/v1/rerank",
        {**COHERE, "truncate_prompt_tokens": 200},
        ("results.*.index", "results.*.relevance_score"),
        ("detail",),
    ),
    "huggingface-api-haystack 3.1.0": (
        "/rerank",
        {"query": QUERY, "texts": TEXTS, "raw_scores": True},
        ("*.index", "*.score"),
        ("error", "error_type"),
    ),
    "llama-index-postprocessor-siliconflow-rerank 0.5.0": (
        "/v1/rerank",
        {**COHERE, "top_n": 2, "return_documents": True, "max_chunks_per_doc": 1024, "overlap_tokens": 80},
        ("results.*.index", "results.*.relevance_score"),
        (),
    ),
    "llama-index-postprocessor-nvidia-rerank 0.7.0": (
        "/v1/ranking",
        {"model": "m", "query": {"text": QUERY}, "passages": [{"text": text} for text in TEXTS], "truncate": "END"},
        ("rankings.*.index", "rankings.*.logit"),
        (),
    ),
    "llama-index-postprocessor-tei-rerank 0.6.0": (
        "/rerank",
        {"query": QUERY, "texts": TEXTS},
        ("*.index", "*.score"),
        (),
    ),
    "rerankers 0.10.0, voyage": (
        "/v1/rerank",
        {**COHERE, "top_k": 3, "return_documents": True},
        ("data.*.index", "data.*.relevance_score"),
        (),
    ),
    "rerankers 0.10.0, mixedbread.ai": (
        "/v1/reranking",
        {"model": "m", "query": QUERY, "input": TEXTS, "top_k": 3, "return_input": True},
        ("data.*.index", "data.*.score"),
        (),
    ),
    "dify_plugin 0.7.4": (
        "/v1/rerank",
        {**COHERE, "top_n": 3, "return_documents": True},
        ("results.*.index", "results.*.relevance_score", "results.*.document.text"),
        (),
    ),
    "Lemonade and llama.cpp": (
        "/v1/reranking",
        {**COHERE, "top_n": 3},
        ("results.*.index", "results.*.relevance_score", "usage.total_tokens"),
        (),
    ),
    "kotaemon, TEI": (
        "/rerank",
        {"query": QUERY, "texts": TEXTS, "is_truncated": True},
        ("*.index", "*.score"),
        (),
    ),
    "Cherry Studio, TEI": (
        "/v1/rerank",
        {"query": QUERY, "texts": TEXTS, "return_text": True},
        ("*.index", "*.score", "*.text"),
        (),
    ),
    "Open WebUI": (
        "/v1/rerank",
        {**COHERE, "top_n": 3},
        ("results.*.index", "results.*.relevance_score"),
        (),
    ),
    "RAGFlow, Xinference": (
        "/v1/rerank",
        {**COHERE, "return_documents": "true", "return_len": "true"},
        ("results.*.index", "results.*.relevance_score", "meta.tokens.input_tokens", "meta.tokens.output_tokens"),
        (),
    ),
    "LangChain4j, Cohere": (
        "/v1/rerank",
        COHERE,
        ("results.*.index", "results.*.relevance_score", "meta.billed_units.search_units"),
        (),
    ),
    "vllm, its examples of /score": (
        "/score",
        {"model": "m", "text_1": QUERY, "text_2": TEXTS},
        ("id", "object", "created", "model", "data.*.index", "data.*.object", "data.*.score", "usage.total_tokens"),
        ("error.message",),
    ),
}


@pytest.fixture
def app(tmp_path):
    encoder = FakeEncoder()
    Index.create(tmp_path, "t", [{"id": i, "text": text} for i, text in enumerate(TEXTS)], encoder=encoder)
    searcher = Searcher.open(tmp_path, "t", encoder=encoder)
    settings = Settings(refresh_seconds=0, max_body_bytes=10_000)
    app = create_app(settings, searchers={"t": searcher}, log=json_lines(io.StringIO()))
    app.state.service.load()
    return app


@pytest.fixture
async def client(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        yield client


def values(content: Any, path: str) -> list[Any]:
    """What lies at a path, such as ``results.*.index``; a KeyError if there is nothing."""
    found = [content]
    for part in path.split("."):
        found = [item for value in found for item in (value if part == "*" else [value[part]])]
    return found


@pytest.mark.parametrize("name", CLIENTS)
async def test_each_client_finds_what_it_reads(client, name):
    path, body, read, _ = CLIENTS[name]
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    for place in read:
        found = values(content, place)
        assert found, place
        assert None not in found, place
        if place.endswith("index"):
            assert found == sorted(found) if path == "/score" else found[0] == 1
        if place.endswith(("score", "logit")):
            assert {type(score) for score in found} == {float}
        if place.endswith(("document", "text")):
            assert {type(text) for text in found} == {str}


@pytest.mark.parametrize("name", [name for name, (*_, read) in CLIENTS.items() if read])
async def test_each_client_finds_what_it_reads_from_an_error(client, name):
    path, body, _, read = CLIENTS[name]
    query = "text_1" if "text_1" in body else "query"
    answer = await client.post(path, json={**body, query: ""})
    assert answer.status_code == 422
    for place in read:
        assert all(values(answer.json(), place))


class TestDocuments:
    async def test_are_repeated_as_they_were_sent_and_with_their_text(self, client):
        documents = ["ab", {"text": "3a9f", "n": 1}, {"title": "3a", "id": 7}, {"id": 0}]
        body = {"query": QUERY, "documents": documents, "return_documents": True, "rank_fields": ["title", "text"]}
        answer = (await client.post("/v1/rerank", json=body)).json()
        assert {result["index"]: result["document"] for result in answer["results"]} == {
            0: {"text": "ab"},
            1: {"text": "3a9f", "n": 1},
            2: {"text": "3a", "title": "3a", "id": 7},
            3: {"text": "", "id": 0},
        }

    async def test_may_have_integer_ids_as_in_an_index(self, client):
        body = {"query": QUERY, "documents": [{"id": 1}, {"id": "2"}, {"id": 9}]}
        answer = (await client.post("/rerank", json=body)).json()
        assert ([result["index"] for result in answer["results"]], answer["missing"]) == ([0, 1], ["9"])
        found = (await client.post("/search", json={"query": QUERY, "ids": [1, "2", 9]})).json()
        assert ([hit["id"] for hit in found["hits"]], found["missing"]) == (["1", "2"], ["9"])

    @pytest.mark.parametrize("wrong", [1.5, True, [1], {}])
    async def test_have_no_other_ids(self, client, wrong):
        assert (await client.post("/search", json={"query": QUERY, "ids": [wrong]})).status_code == 422
        body = {"query": QUERY, "documents": [{"id": wrong}]}
        assert (await client.post("/rerank", json=body)).status_code == 422

    @pytest.mark.parametrize(
        ("path", "body", "place"),
        [
            ("/v1/rerank", {**COHERE, "top_n": 2}, "results"),
            ("/v1/rerank", {**COHERE, "top_k": 2}, "data"),
            ("/infinity/rerank", {**COHERE, "top_n": 2}, "results"),
            ("/v1/reranking", {"query": QUERY, "input": TEXTS, "top_k": 2}, "data"),
            (
                "/v1/ranking",
                {"query": {"text": QUERY}, "passages": [{"text": t} for t in TEXTS], "top_k": 2},
                "rankings",
            ),
        ],
    )
    async def test_are_as_many_as_were_asked_for(self, client, path, body, place):
        assert [item["index"] for item in (await client.post(path, json=body)).json()[place]] == [1, 2]

    async def test_tokens_are_counted(self, client):
        answer = (await client.post("/v2/rerank", json=COHERE)).json()
        n_tokens = len(QUERY) + sum(map(len, TEXTS))
        assert answer["usage"] == {"total_tokens": n_tokens, "prompt_tokens": n_tokens, "completion_tokens": 0}
        assert answer["meta"]["tokens"] == {"input_tokens": n_tokens, "output_tokens": 0}


class TestPairs:
    async def test_each_query_with_its_document(self, client):
        body = {"queries": TEXTS, "documents": TEXTS[::-1]}
        scores = values((await client.post("/v1/score", json=body)).json(), "data.*.score")
        assert scores[1] == pytest.approx(1, abs=1e-3)
        assert max(scores[0], scores[2]) < scores[1]

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({"text_1": ["a", "b"], "text_2": TEXTS}, "2 queries and 3 documents"),
            ({"text_1": "a", "text_2": []}, "list of documents is empty"),
            ({"text_1": "a"}, "text_2: Field required"),
        ],
    )
    async def test_that_do_not_fit_are_refused(self, client, body, said):
        answer = await client.post("/score", json=body)
        assert (answer.status_code, said in answer.json()["error"]["message"]) == (422, True)

    @pytest.mark.parametrize("truncate", ["NONE", "START"])
    async def test_texts_are_cut_at_their_end_alone(self, client, truncate):
        body = {"query": {"text": "a"}, "passages": [{"text": "a"}], "truncate": truncate}
        answer = await client.post("/v1/ranking", json=body)
        assert (answer.status_code, "send END" in answer.json()["detail"]) == (422, True)


class TestMessages:
    @pytest.mark.parametrize(
        ("path", "body", "said"),
        [
            (
                "/v1/rerank",
                {"query": QUERY, "documents": [3]},
                "documents.0: Input should be a valid string or an object",
            ),
            (
                "/v1/rerank",
                {"query": QUERY, "documents": [{"text": 3}]},
                "documents.0.text: Input should be a valid string",
            ),
            ("/v1/multi-vector", {"input": 3}, "input: Input should be a valid list or a valid string"),
            ("/rerank", 3, "the body: Input should be an object"),
            ("/v1/ranking", {"query": QUERY, "passages": []}, "query: Input should be an object"),
        ],
    )
    async def test_name_no_internals_and_say_each_fault_once(self, client, path, body, said):
        assert (await client.post(path, json=body)).json()["detail"] == said

    async def test_no_path_shows_internals(self, client, app):
        for path, operations in app.openapi()["paths"].items():
            for body in ([], {}, {"query": [], "documents": [[]], "input": [[]], "passages": [[]], "texts": [[]]}):
                if "post" in operations:
                    text = (await client.post(path, json=body)).text
                    for internal in (
                        "function-",
                        "checked_text",
                        "instance of",
                        "tagged",
                        "union",
                        "extract fields",
                        "class",
                    ):
                        assert internal not in text, path


class TestFirstContact:
    @pytest.mark.parametrize(
        "path",
        [
            "/v1/rerank/",
            "//v1//rerank",
            "/v1/v1/rerank",
            "/v2/v1/rerank",
            "/v1/v2/rerank",
            "/v1/v1/v1/rerank/",
            "/rerank/",
        ],
    )
    async def test_slashes_and_versions_too_many(self, app, path):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            answer = await client.post(f"http://t{path}", json=COHERE)
        assert answer.json()["results"][0]["index"] == 1

    @pytest.mark.parametrize("path", ["/v3/rerank", "/rerank/v1", "/v1/search/x", "/v1/health", "/page"])
    async def test_other_paths_are_unknown(self, client, path):
        answer = await client.post(path, json=COHERE)
        assert answer.status_code == 404
        for name in ("message", "detail"):  # clients of Cohere read one, those of Jina the other
            assert answer.json()[name].startswith(f"unknown path '{path}'; use one of those that GET /openapi.json")

    async def test_another_method_is_named_with_those_that_are_answered(self, client):
        answer = await client.put("/v2/rerank", json=COHERE)
        assert (answer.status_code, answer.json()["message"]) == (405, "'/v2/rerank' does not answer PUT; use POST")

    @pytest.mark.parametrize(
        "sent", ["application/x-www-form-urlencoded", "text/plain; charset=utf-8", "multipart/form-data"]
    )
    async def test_another_content_type_is_named(self, client, sent):
        answer = await client.post("/v1/rerank", content=json.dumps(COHERE), headers={"Content-Type": sent})
        assert answer.status_code == 415
        assert answer.json()["message"] == f"the Content-Type is {sent.partition(';')[0]!r}; send application/json"

    @pytest.mark.parametrize(
        "sent", [{}, {"Content-Type": "application/vnd.x+json"}, {"Content-Type": "Application/JSON"}]
    )
    async def test_json_under_other_names_or_none_is_read(self, client, sent):
        answer = await client.post("/v1/rerank", content=json.dumps(COHERE), headers=sent)
        assert answer.status_code == 200

    async def test_bodies_in_gzip_are_read_up_to_the_limit(self, client):
        async def post(content, encoding="gzip"):
            headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
            return await client.post("/v1/rerank", content=content, headers=headers)

        body = json.dumps(COHERE).encode()
        assert (await post(gzip.compress(body))).json()["results"][0]["index"] == 1
        assert (await post(gzip.compress(body[:9]) + gzip.compress(body[9:]), "X-GZIP")).status_code == 200
        assert (await post(body, "identity")).status_code == 200
        assert (await post(gzip.compress(body + b" " * 20_000))).status_code == 413
        assert (await post(gzip.compress(b" " * 9_000) + gzip.compress(b" " * 9_000))).status_code == 413
        for wrong, said in ((gzip.compress(body)[:-9], "end of the body"), (body, "not in gzip")):
            answer = await post(wrong)
            assert (answer.status_code, said in answer.json()["message"]) == (400, True)
        refused = await post(body, "br")
        assert (refused.status_code, "'br'; send gzip" in refused.json()["message"]) == (415, True)

    @pytest.mark.parametrize(
        "path", ["/health", "/healthz", "/livez", "/ready", "/readyz", "/meta", "/.well-known/live"]
    )
    async def test_probes_are_answered_without_a_token_also_to_head(self, path):
        app = create_app(Settings(token="t"), encoder=FakeEncoder(), log=json_lines(io.StringIO()))  # noqa: S106
        app.state.service.load()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
            got, head = await client.get(path), await client.head(path + "/")
            assert got.status_code == head.status_code < 300
            assert head.content == b""
            assert head.headers.get("content-length") == got.headers.get("content-length")
            for closed in ("/info", "/v1/models", "/metrics", "/openapi.json"):
                assert (await client.head(closed)).status_code == 401

    async def test_models_and_limits_are_listed(self, client):
        for path in ("/v1/models", "/models"):
            listed = (await client.get(path)).json()["data"]
            assert [model["id"] for model in listed] == ["fake"]
            assert (await client.get(f"{path}/fake")).json() == listed[0]
            unknown = await client.get(f"{path}/other")
            assert (unknown.status_code, unknown.json()["message"]) == (404, "unknown model; use fake")
        info = (await client.get("/info")).json()
        assert (info["model_id"], info["indexes"], info["max_client_batch_size"]) == ("fake", ["t"], 1000)

    @pytest.mark.parametrize(
        ("host", "is_here"),
        [
            ("127.0.0.1", True),
            ("localhost", True),
            ("::1", True),
            ("0.0.0.0", False),  # noqa: S104
            ("::", False),
            ("tansaku", False),
        ],
    )
    def test_an_address_that_others_reach(self, host, is_here):
        assert is_loopback(host) == is_here


class TestDescription:
    @pytest.mark.parametrize("token", [None, "t"])
    async def test_names_the_token(self, token):
        schema = create_app(Settings(token=token)).openapi()
        assert schema["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
        required = [{"token": []}] if token else [{"token": []}, {}]
        assert schema["paths"]["/v1/rerank"]["post"]["security"] == required
        assert "security" not in schema["paths"]["/readyz"]["get"]

    async def test_has_no_enum_whose_names_are_one_to_generators(self, app):
        def enums(content):
            if isinstance(content, dict):
                yield from [content["enum"]] if "enum" in content else []
                content = list(content.values())
            for value in content if isinstance(content, list) else []:
                yield from enums(value)

        found = list(enums(app.openapi()))
        assert found
        for names in found:
            assert len({str(name).lower() for name in names}) == len(names)

    async def test_tei_may_write_the_side_to_cut_from_in_capitals(self, client):
        body = {"query": QUERY, "texts": TEXTS, "truncation_direction": "Right"}
        assert (await client.post("/rerank", json=body)).status_code == 200
        assert (await client.post("/rerank", json={**body, "truncation_direction": "Left"})).status_code == 422
