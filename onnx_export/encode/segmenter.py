"""Text → words, for tokenizers that expect words: MeCab with unidic-lite, as BertJapaneseTokenizer runs it."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import Tokenizer

from ..errors import BundleError, MissingExtraError

MECAB_UNIDIC_LITE = "mecab-unidic-lite"

Segmenter = Callable[[str], list[str]]


def load_segmenter(name: str | None, tokenizer: Tokenizer) -> Segmenter | None:
    """The word segmenter that a bundle or checkpoint names.

    Args:
        name: `MECAB_UNIDIC_LITE`, or None for a tokenizer that takes texts whole.
        tokenizer: the tokenizer that comes after it. Its added tokens are not cut where a text spells them.

    Returns:
        A function from a text to its words, or None if ``name`` is None.

    Raises:
        BundleError: ``name`` is unknown.
        MissingExtraError: fugashi or unidic-lite is not installed.
    """
    if name is None:
        return None
    if name != MECAB_UNIDIC_LITE:
        raise BundleError(f"unknown segmenter {name!r}; this tansaku has {MECAB_UNIDIC_LITE!r} only: update tansaku")
    return MecabSegmenter(token.content for token in tokenizer.get_added_tokens_decoder().values())


class MecabSegmenter:
    """Splits off added tokens first, normalizes the rest to NFKC and cuts it into MeCab's surface forms.

    That is the order of transformers' BertJapaneseTokenizer, so a full-width "［ＭＡＳＫ］" is not a mask token.
    MeCab's time grows with the square of an unbroken run of letters, digits or dashes: some seconds for 80,000 of them.

    Args:
        tokens: the added tokens.

    Raises:
        MissingExtraError: fugashi or unidic-lite is not installed.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        try:
            import fugashi
            import unidic_lite
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "fugashi", "japanese") from error
        dictionary = Path(unidic_lite.DICDIR)
        self._tagger = fugashi.GenericTagger(  # pyright: ignore[reportAttributeAccessIssue] (compiled)
            f'-d "{dictionary}" -r "{dictionary / "mecabrc"}"'
        )
        self._lock = threading.Lock()  # a tagger has a single lattice
        longest_first = sorted(filter(None, tokens), key=len, reverse=True)
        self._tokens = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None

    def __call__(self, text: str) -> list[str]:
        """The words of ``text``, without white space except inside an added token."""
        parts = self._tokens.split(text) if self._tokens else [text]
        words: list[str] = []
        for position, part in enumerate(parts):
            if position % 2:
                words.append(part)
            elif part:
                words += self._cut(unicodedata.normalize("NFKC", part))
        return words

    def _cut(self, text: str) -> list[str]:
        with self._lock:
            surfaces = [node.surface for node in self._tagger(text)]
        # MeCab keeps some white space inside a surface; WordPiece splits there.
        return [word for surface in surfaces for word in surface.split()]


def nfkc_origins(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Normalize a text to NFKC and keep track of where each character comes from.

    A character and the combining marks after it are normalized together. Where a script composes more than that (Hangul
    letters), a character keeps the span of its neighbour.

    Args:
        text: the text.

    Returns:
        ``text`` in NFKC, and for each of its characters the span of ``text`` that it comes from: the position of its
        first character and of the one after its last.
    """
    normal, origins, start = "", [], 0
    for end in range(1, len(text) + 1):
        if end < len(text) and unicodedata.combining(unicodedata.normalize("NFKC", text[end])[0]):
            continue
        part = unicodedata.normalize("NFKC", text[start:end])
        normal += part
        origins += [(start, end)] * len(part)
        start = end
    return normal, origins
