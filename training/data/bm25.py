"""BM25 over character bigrams, a floor for Japanese that needs no dictionary; `bm25s` does the work."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from ...onnx_export.errors import MissingExtraError

try:
    import bm25s
except ImportError as error:
    raise MissingExtraError("bm25s", "train") from error

_K1, _B = 0.9, 0.4


class Bm25:
    """A collection, to be asked for its best passages.

    Args:
        collection: id → text.
    """

    def __init__(self, collection: Mapping[str, str]) -> None:
        self._ids = list(collection)
        self._numbers = {doc_id: number for number, doc_id in enumerate(self._ids)}
        self._index = bm25s.BM25(k1=_K1, b=_B)
        self._index.index([bigrams(text) for text in collection.values()], show_progress=False)

    def best(self, query: str, k: int) -> list[str]:
        """The ids of the ``k`` best passages for ``query``, best first; those that share a bigram with it only."""
        scores = self._scored(query)
        best = np.argsort(-scores, kind="stable")[:k]
        return [self._ids[i] for i in best.tolist() if scores[i] > 0]

    def scores(self, query: str, ids: Sequence[str]) -> np.ndarray:
        """The scores of some passages, float32 (ids,)."""
        return self._scored(query)[[self._numbers[doc_id] for doc_id in ids]]

    def _scored(self, query: str) -> np.ndarray:
        known = [gram for gram in bigrams(query) if gram in self._index.vocab_dict]
        if not known:
            return np.zeros(len(self._ids), np.float32)
        return self._index.get_scores(known)


def bigrams(text: str) -> list[str]:
    """Pairs of neighbouring characters, spaces left out, in NFKC; a single character alone."""
    compact = "".join(unicodedata.normalize("NFKC", text).split())
    return [compact[i : i + 2] for i in range(max(len(compact) - 1, 1))]
