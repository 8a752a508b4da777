"""BM25 over character bigrams: what a text is divided into, and scores checked against the plain formula."""

from __future__ import annotations

import math
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import InputError, MissingExtraError
from tansaku.plugin.evaluation.bm25 import K1, B, Bm25, bigrams

TEXTS = {"kyoto": "京都は昔の首都だ。", "sea": "海の水は塩辛い。", "tokyo": "東京は首都だ。"}


def by_formula(query: str, texts: dict[str, str]) -> dict[str, float]:
    counted = {text_id: Counter(bigrams(text)) for text_id, text in texts.items()}
    mean = sum(sum(counts.values()) for counts in counted.values()) / len(texts)
    scores = dict.fromkeys(texts, 0.0)
    for gram in bigrams(query):
        having = sum(gram in counts for counts in counted.values())
        idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        for text_id, counts in counted.items():
            norm = K1 * (1 - B + B * sum(counts.values()) / mean)
            scores[text_id] += idf * counts[gram] / (counts[gram] + norm)
    return scores


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("東京都", ["東京", "京都"]),
        ("ｶﾞｰﾄﾞ", ["ガー", "ード"]),
        ("Ａｂ c", ["ab", "c"]),
        ("京 都\u3000は", ["京", "都", "は"]),
        (" \n", []),
    ],
)
def test_text_is_divided_into_pairs_of_a_word(text: str, found: list[str]):
    assert bigrams(text) == found


words = st.text("京都は海A ", max_size=9)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(words, min_size=1, max_size=8), words, st.integers(1, 9))
def test_scores_are_those_of_the_formula(texts: list[str], query: str, k: int):
    collection = {f"d{i}": text for i, text in enumerate(texts)}
    if not any(map(bigrams, texts)):
        with pytest.raises(InputError, match="no text"):
            Bm25(collection.items())
        return
    index = Bm25(collection.items())
    expected = by_formula(query, collection)
    assert index.scores(query, list(collection)) == pytest.approx(list(expected.values()), abs=1e-5)
    best = index.best(query, k)
    positive = sorted((score for score in expected.values() if score > 0), reverse=True)
    assert list(best.values()) == pytest.approx(positive[:k], abs=1e-5)
    assert all(best[text_id] == pytest.approx(expected[text_id], abs=1e-5) for text_id in best)


def test_of_equal_texts_the_earlier_comes_first():
    index = Bm25((name, "海の水") for name in "bac")
    assert list(index.best("海の", 2)) == ["b", "a"]


def test_only_texts_that_share_a_bigram_are_found():
    index = Bm25(TEXTS.items())
    assert list(index.best("昔の首都", 5)) == ["kyoto", "tokyo"]
    assert index.best("ＺＺＺ", 5) == {}
    assert np.array_equal(index.scores("ＺＺＺ", ["sea", "kyoto"]), [0, 0])


def test_any_text_is_only_text():
    for query in ("' OR 1=1 --", '"都" AND (', "+a -b* ~2 ^3", "\\", "text:都", "%_", ""):
        Bm25(TEXTS.items()).best(query, 3)


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match=r"bm25s.*tansaku\[evaluate\]"):
        Bm25(TEXTS.items())
