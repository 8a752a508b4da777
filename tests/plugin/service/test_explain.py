"""`POST /explain`: which tokens of a document the tokens of a query met."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tansaku import Encoder, Index, Searcher
from tansaku.plugin.service.app import create_app
from tansaku.plugin.service.settings import Settings

pytestmark = pytest.mark.integration

DOCS = [{"id": "dog", "title": "犬", "text": "𠮷野の犬は嗅覚が鋭い。"}, {"id": "sea", "text": "海の水は塩辛い。"}]


@pytest.fixture(scope="module")
def searcher(default_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    db = tmp_path_factory.mktemp("explain")
    Index.create(db, "t", DOCS, encoder=default_encoder)
    return Searcher.open(db, "t", encoder=default_encoder)


@pytest.fixture(scope="module")
def client(searcher: Searcher) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(refresh_seconds=0), searchers={"t": searcher})) as client:
        while client.get("/ready").status_code != 200:
            time.sleep(0.05)
        yield client


def test_the_answer_is_what_python_gives(client: TestClient, searcher: Searcher):
    answer = client.post("/explain", json={"query": "嗅覚の鋭い動物", "id": "dog", "matrix": True}).json()
    expected = searcher.explain("嗅覚の鋭い動物", "dog")
    assert answer["index"] == "t"
    assert answer["score"] == pytest.approx(expected.score, abs=1e-5)
    assert answer["text"] == expected.text
    assert len(answer["matches"]) == len(expected.matches)
    for row, match in zip(answer["similarities"], answer["matches"], strict=True):
        assert len(row) == len(answer["document_spans"])
        assert max(row) == pytest.approx(match["similarity"], abs=1e-3)
        if match["document_span"]:
            assert answer["text"][slice(*match["document_span"])] == match["document_text"]


def test_the_matrix_is_sent_on_request_alone(client: TestClient):
    answer = client.post("/explain", json={"query": "嗅覚", "id": "dog"}).json()
    assert answer["similarities"] is answer["document_spans"] is None


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"query": "嗅覚", "id": "cat"}, 404, "no document with the id 'cat'"),
        ({"query": " ", "id": "dog"}, 422, "the query is empty"),
        ({"query": "嗅覚", "id": "dog", "index": "u"}, 404, "unknown index"),
        ({"query": "嗅覚", "id": "dog", "matrx": True}, 422, "did you mean 'matrix'"),
    ],
)
def test_what_cannot_be_explained_is_refused(client: TestClient, body: dict, status: int, said: str):
    answer = client.post("/explain", json=body)
    assert answer.status_code == status
    assert said in answer.text
