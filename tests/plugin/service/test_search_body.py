"""What a search over HTTP may ask beyond the options of Python: parameters, pages, passages, marks, many queries."""

from __future__ import annotations

import pytest

from tansaku import Index, Searcher, Settings

from ...support.fakes import FakeEncoder, corpus, small_chunks
from .test_service import running

pytestmark = pytest.mark.integration

DOCS = corpus(12, year=lambda i: 1990 + i)
QUERY = "3a9f"
SETTINGS = Settings(refresh_seconds=0, max_k=10)


@pytest.fixture
def searcher(tmp_path, monkeypatch):
    small_chunks(monkeypatch)
    encoder = FakeEncoder()
    Index.create(tmp_path / "db", "t", DOCS, encoder=encoder)
    return Searcher.open(tmp_path / "db", "t", encoder=encoder)


@pytest.fixture
def divided(tmp_path, monkeypatch):
    small_chunks(monkeypatch)
    encoder = FakeEncoder()
    documents = [
        {"id": "a", "text": "3a9f。0000。3a。"},
        {"id": "b", "text": "1111。3a9。"},
        {"id": "c", "text": "2222。4444。"},
    ]
    Index.create(tmp_path / "db", "p", documents, encoder=encoder, passage_tokens=6)
    return Searcher.open(tmp_path / "db", "p", encoder=encoder)


async def asked(searcher, body, path="/search", status=200):
    async with running(SETTINGS, searchers={"t": searcher}) as s:
        answer = await s.post(path, body)
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("where", "params"),
    [
        ("year < $y AND year IN $years", {"y": 1993, "years": [1990, 1991, 2000]}),
        ("year < ? AND year IN ?", [1993, [1990, 1991, 2000]]),
        ("year < $text AND year IN $self", {"text": 1993, "self": [1990, 1991, 2000]}),
    ],
)
async def test_values_of_a_condition_are_no_part_of_its_text(searcher, where, params):
    hits = (await asked(searcher, {"query": QUERY, "where": where, "params": params}))["hits"]
    assert sorted(hit["fields"]["year"] for hit in hits) == [1990, 1991]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"params": {"y": 1}}, "no condition"),
        ({"where": "year < $y", "params": {"z": 1}}, "y"),
        ({"where": "year < $y", "params": {"y": "1 OR 1 = 1"}}, "year"),
        ({"fields": ["yeer"]}, "did you mean 'year'"),
        ({"offsett": 3}, "did you mean 'offset'"),
        ({"k": 5, "offset": 6}, "offset and k together"),
        ({"per_document": 2}, "index of passages"),
        ({"highlight": True, "highlight_chars": 0}, "highlight_chars"),
    ],
)
async def test_what_cannot_be_asked(searcher, body, said):
    assert said in (await asked(searcher, {"query": QUERY, **body}, status=422))["message"]


async def test_pages_and_the_least_score(searcher):
    whole = (await asked(searcher, {"query": QUERY, "k": 6}))["hits"]
    page = (await asked(searcher, {"query": QUERY, "k": 2, "offset": 3}))["hits"]
    assert [hit["id"] for hit in page] == [hit["id"] for hit in whole[3:5]]
    assert (await asked(searcher, {"query": QUERY, "k": 2, "offset": 8, "ids": ["d1"]}))["hits"] == []
    least = whole[2]["score"]
    best = (await asked(searcher, {"query": QUERY, "k": 6, "min_score": least}))["hits"]
    assert [hit["id"] for hit in best] == [hit["id"] for hit in whole[:3]]


async def test_highlights_are_marks_in_the_text_of_the_hit(searcher):
    hits = (await asked(searcher, {"query": DOCS[3]["text"], "k": 2, "highlight": True}))["hits"]
    assert hits[0]["id"] == "d3"
    for hit in hits:
        shown = hit["highlight"]
        assert hit["text"][shown["start"] :].startswith(shown["text"])
        assert shown["marks"]
    assert "highlight" not in (await asked(searcher, {"query": QUERY}))["hits"][0]


async def test_passages_are_grouped_by_document(divided):
    hits = (await asked(divided, {"query": QUERY, "k": 2, "per_document": 2}))["hits"]
    expected = divided.search(QUERY, 100, passages=True, recall="exact")
    for hit in hits:
        of_document = [passage.id for passage in expected if passage.fields["parent_id"] == hit["id"]][:2]
        assert [passage["id"] for passage in hit["passages"]] == of_document
        assert hit["passages"][0]["text"] == hit["text"]
    assert hits[0]["id"] == "a"
    said = await asked(divided, {"query": QUERY, "per_document": 1, "passages": True}, status=422)
    assert "leave one of them out" in said["message"]


async def test_many_queries_find_what_each_finds_alone(searcher):
    queries = [QUERY, "zz", QUERY]
    options = {"k": 3, "where": "year > $y", "params": {"y": 1991}, "fields": ["year"]}
    many = await asked(searcher, {"queries": queries, **options}, "/search-many")
    assert [result["hits"] for result in many["results"]] == [
        (await asked(searcher, {"query": query, **options}))["hits"] for query in queries
    ]
    for body, status, said in (
        ({"queries": ["a"] * 257}, 413, "256"),
        ({"queries": ["a", " "]}, 422, "empty"),
        ({"queries": []}, 422, "queries"),
        ({"queries": ["a"], "k": 11}, 422, "k is"),
    ):
        assert said in (await asked(searcher, body, "/search-many", status))["message"]
