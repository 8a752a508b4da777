from __future__ import annotations

import pytest

from tansaku import Index, InputError, Searcher

DOGS = [
    {"id": "dog", "title": "犬", "text": "犬は人に飼われる動物で、嗅覚が鋭い。"},
    {"id": "sea", "text": "　海の水は塩辛く、地球の表面の七割を占める。"},
]


@pytest.fixture(scope="module")
def searcher(default_encoder, tmp_path_factory):
    db = tmp_path_factory.mktemp("explain")
    Index.create(db, "t", DOGS, encoder=default_encoder)
    return Searcher.open(db, "t", encoder=default_encoder)


def test_the_matches_add_up_to_the_score_of_the_hit(searcher):
    hit = searcher.search("嗅覚の鋭い動物は？", 1)[0]
    explanation = searcher.explain("嗅覚の鋭い動物は？", hit.id)
    assert explanation.id == hit.id == "dog"
    assert explanation.score == pytest.approx(hit.score, abs=1e-4)
    assert explanation.score == pytest.approx(sum(match.weight * match.similarity for match in explanation.matches))
    assert explanation.text == "犬 犬は人に飼われる動物で、嗅覚が鋭い。"


def test_a_word_of_the_query_meets_the_same_word_of_the_document(searcher):
    query = "　嗅覚"
    explanation = searcher.explain(query, "dog")
    met = {match.query_text: match for match in explanation.matches}
    match = met["嗅覚"] if "嗅覚" in met else met["嗅"]
    assert query[slice(*match.query_span)] == match.query_text
    assert explanation.text[slice(*match.document_span)] == match.document_text
    assert match.document_text in "嗅覚"


def test_spans_count_from_the_text_as_it_was_given(searcher):
    explanation = searcher.explain("塩辛い水", "sea")
    assert explanation.text == DOGS[1]["text"]
    for match in explanation.matches:
        if match.document_span:
            assert explanation.text[slice(*match.document_span)] == match.document_text != ""


def test_an_index_of_pooled_vectors_knows_no_places(default_encoder, tmp_path):
    pytest.importorskip("scipy")
    Index.create(tmp_path, "t", DOGS, encoder=default_encoder, pool=2)
    explanation = Searcher.open(tmp_path, "t", encoder=default_encoder).explain("嗅覚", "dog")
    assert all(match.document_span is None for match in explanation.matches)
    assert explanation.score > 0


def test_an_unknown_document_and_an_empty_query_are_refused(searcher):
    with pytest.raises(InputError, match="no document with the id 'cat'"):
        searcher.explain("嗅覚", "cat")
    with pytest.raises(InputError, match="empty"):
        searcher.explain(" ", "dog")
