"""BM25 over character bigrams: what Japanese search has to beat, without a dictionary. Needs the extra ``evaluate``.

The package bm25s scores. What is ours is how text is divided: NFKC and lower case, so that half-width kana, full-width
letters and capitals match; then pairs of neighbouring characters within each run of characters without a space.
k1 = 0.9 and b = 0.4 are Anserini's values. Qdrant's bigram vectors are made by the same rules.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra

K1, B = 0.9, 0.4


class Bm25:
    """A collection of texts that can be asked for its best ones.

    Memory: 8 bytes for each different bigram of each text; while the index is made, 4 more for each bigram.

    Args:
        collection: (id, text) pairs. They are read once and not kept.

    Raises:
        InputError: the collection has no text.
        MissingExtraError: the extra ``evaluate`` is not installed.

    Example:
        >>> list(Bm25([("kyoto", "京都は昔の首都だ。"), ("sea", "海の水は塩辛い。")]).best("昔の首都"))
        ['kyoto']
    """

    def __init__(self, collection: Iterable[tuple[str, str]]) -> None:
        require_extra("evaluate", "bm25s")
        import bm25s

        self._ids: list[str] = []
        vocabulary: dict[str, int] = {}
        tokens: list[array[int]] = []
        for text_id, text in collection:
            self._ids.append(text_id)
            tokens.append(array("i", [vocabulary.setdefault(gram, len(vocabulary)) for gram in bigrams(text)]))
        if not vocabulary:
            raise InputError("the collection has no text that BM25 could search")
        self._numbers = {text_id: number for number, text_id in enumerate(self._ids)}
        self._vocabulary = vocabulary
        self._index = bm25s.BM25(k1=K1, b=B)
        self._index.nonoccurrence_array = None
        # bm25s's own way to build its matrix takes more than twice the memory; it says that it may be replaced.
        setattr(self._index, "build_index_from_ids", lambda **_: _matrix(tokens, len(vocabulary)))  # noqa: B010
        self._index.index((tokens, vocabulary), create_empty_token=False, show_progress=False)

    def best(self, query: str, k: int = 10) -> dict[str, float]:
        """The best texts for a query; of equal ones the earlier first.

        Args:
            query: the query's text.
            k: how many texts; fewer if fewer share a bigram with the query.

        Returns:
            Id → score, best first.
        """
        scores = self._scored(query)
        found = np.flatnonzero(scores > 0)
        if len(found) > k:
            least = np.partition(scores[found], -k)[-k]
            found = found[scores[found] >= least]
        order = found[np.argsort(-scores[found], kind="stable")][:k]
        return {self._ids[number]: float(scores[number]) for number in order.tolist()}

    def scores(self, query: str, ids: Sequence[str]) -> np.ndarray:
        """The scores of some texts for a query, float32 (ids,); 0 for a text that shares no bigram with it."""
        return self._scored(query)[[self._numbers[text_id] for text_id in ids]]

    def _scored(self, query: str) -> np.ndarray:
        known = [gram for gram in bigrams(query) if gram in self._vocabulary]
        return self._index.get_scores(known) if known else np.zeros(len(self._ids), np.float32)


def bigrams(text: str) -> list[str]:
    """Pairs of neighbouring characters between spaces, in NFKC and lower case; a single character alone."""
    words = unicodedata.normalize("NFKC", text).lower().split()
    return [word[i : i + 2] for word in words for i in range(max(len(word) - 1, 1))]


def _matrix(tokens: Sequence[array[int]], n_grams: int) -> dict[str, Any]:
    """The scores of all texts for each bigram, one bigram after the other, as bm25s keeps them.

    ln(1 + (N - df + 0.5) / (df + 0.5)) · tf / (tf + k1 · (1 - b + b · length / mean length)), which is Lucene's BM25
    (Robertson and Zaragoza, 2009, without the factor k1 + 1).

    Args:
        tokens: numbers of the bigrams of each text.
        n_grams: number of different bigrams.
    """
    having = np.zeros(n_grams, np.int64)
    for of_text in tokens:
        having[np.unique(np.asarray(of_text, np.int32))] += 1
    ends = np.cumsum(having)
    places = ends - having  # where the next text of each bigram goes
    mean = sum(map(len, tokens)) / len(tokens)
    rarity = np.log1p((len(tokens) - having + 0.5) / (having + 0.5))
    data, texts = np.empty(ends[-1], np.float32), np.empty(ends[-1], np.int32)
    for text, of_text in enumerate(tokens):
        grams, counts = np.unique(np.asarray(of_text, np.int32), return_counts=True)
        data[places[grams]] = rarity[grams] * counts / (counts + K1 * (1 - B + B * len(of_text) / mean))
        texts[places[grams]] = text
        places[grams] += 1
    return {"data": data, "indices": texts, "indptr": np.append(0, ends), "num_docs": len(tokens)}
