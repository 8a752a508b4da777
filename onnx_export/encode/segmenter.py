"""Text → words, for tokenizers that expect words: MeCab with unidic-lite, as BertJapaneseTokenizer runs it."""

from __future__ import annotations

import functools
import re
import threading
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from ..errors import BundleError, MissingExtraError

MECAB_UNIDIC_LITE = "mecab-unidic-lite"
# The normalizer of the tokenizer's file runs before MeCab too. Versions that do not know the name refuse the bundle.
MECAB_AFTER_NORMALIZER = "mecab-unidic-lite after the normalizer"

Segmenter = Callable[[str], list[str]]
Origins = list[tuple[int, int]]


def load_segmenter(name: str | None, tokenizer: Tokenizer) -> Segmenter | None:
    """The word segmenter that a bundle or checkpoint names.

    Args:
        name: `MECAB_UNIDIC_LITE` or `MECAB_AFTER_NORMALIZER`, or None for a tokenizer that takes texts whole.
        tokenizer: the tokenizer that comes after it. Its added tokens are not cut where a text spells them.

    Returns:
        A function from a text to its words, or None if ``name`` is None.

    Raises:
        BundleError: ``name`` is unknown, or the tokenizer lacks the normalizer that it needs.
        MissingExtraError: fugashi or unidic-lite is not installed.
    """
    if name is None:
        return None
    if name not in (MECAB_UNIDIC_LITE, MECAB_AFTER_NORMALIZER):
        known = f"{MECAB_UNIDIC_LITE!r} and {MECAB_AFTER_NORMALIZER!r}"
        raise BundleError(f"unknown segmenter {name!r}; this tansaku has {known} only: update tansaku")
    added = (token.content for token in tokenizer.get_added_tokens_decoder().values())
    if name == MECAB_UNIDIC_LITE:
        return MecabSegmenter(added)
    if tokenizer.normalizer is None:
        raise BundleError(f"the segmenter {name!r} needs a normalizer, and the tokenizer has none; export again")
    return MecabSegmenter(added, tokenizer)


@functools.cache
def _shared_tagger(make: Callable[[str], Any], dictionary: str) -> tuple[Any, threading.Lock]:
    """The tagger of this process and its lock, as it has a single lattice. fugashi never frees one, nor its files."""
    return make(f'-d "{dictionary}" -r "{Path(dictionary) / "mecabrc"}"'), threading.Lock()


class MecabSegmenter:
    """Splits off added tokens first, normalizes the rest to NFKC and cuts it into MeCab's surface forms.

    That is the order of transformers' BertJapaneseTokenizer, so a full-width "［ＭＡＳＫ］" is not a mask token.
    MeCab's time grows with the square of an unbroken run of letters, digits or dashes: some seconds for 80,000 of them.

    Args:
        tokens: the added tokens.
        tokenizer: its normalizer comes before NFKC, if given.

    Raises:
        MissingExtraError: fugashi or unidic-lite is not installed.
    """

    def __init__(self, tokens: Iterable[str], tokenizer: Tokenizer | None = None) -> None:
        try:
            import fugashi
            import unidic_lite
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "fugashi", "japanese") from error
        make = fugashi.GenericTagger  # pyright: ignore[reportAttributeAccessIssue] (compiled)
        self._tagger, self._lock = _shared_tagger(make, unidic_lite.DICDIR)
        self._rules = None if tokenizer is None else tokenizer.normalizer
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
                words += self._cut(unicodedata.normalize("NFKC", self._normalized(part)))
        return words

    def origins(self, text: str) -> tuple[str, Origins]:
        """What `nfkc_origins` tells, of the text that MeCab gets."""
        if self._rules is None:
            return nfkc_origins(text)
        # One token for each character, and `tokenizers` keeps track of where it comes from.
        characters = Tokenizer(models.WordLevel({"": 0}, unk_token=""))
        characters.normalizer = self._rules
        characters.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")
        before = characters.encode(text).offsets
        normal, origins = nfkc_origins(self._normalized(text))
        return normal, [(before[start][0], before[end - 1][1]) for start, end in origins]

    def _normalized(self, text: str) -> str:
        return text if self._rules is None else self._rules.normalize_str(text)

    def _cut(self, text: str) -> list[str]:
        with self._lock:
            surfaces = [node.surface for node in self._tagger(text)]
        # MeCab keeps some white space inside a surface; WordPiece splits there.
        return [word for surface in surfaces for word in surface.split()]


def nfkc_origins(text: str) -> tuple[str, Origins]:
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
