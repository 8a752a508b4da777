"""Text → token ids, by the rules of a bundle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding, Tokenizer

from ..errors import BundleError, InputError
from .rules import TextRules
from .segmenter import MecabSegmenter, Segmenter, nfkc_origins

# Where a token stands in a text: the positions of its first character and of the one after its last. None for a token
# that stands for no text.
Span = tuple[int, int] | None


_UNKNOWN = ("[UNK]", "<unk>")  # what tokenizers put for characters without a token


@dataclass(frozen=True)
class TokenizedText:
    """The tokens of one text, as the graph takes them.

    Attributes:
        ids: int64 (length,): start, marker, text, end and mask tokens.
        attention: int64 (length,): 1 where other tokens may attend to the position.
        keep: bool (length,): the positions whose vectors are kept.
        truncated: whether the text was longer than its rules allow, and was cut.
        unread: whether the tokenizer has no token for some of the text, or nothing of it became a token.
    """

    ids: np.ndarray
    attention: np.ndarray
    keep: np.ndarray
    truncated: bool
    unread: bool = False


@contextlib.contextmanager
def tokenizer_errors() -> Iterator[None]:
    """What `tokenizers` raises becomes a BundleError; a panic of its Rust code is a BaseException only."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise BundleError(f"the tokenizer fails ({error}); use another one, or copy the bundle again") from error
        raise


class TextTokenizer:
    """Tokenizes one kind of text, query or document.

    Args:
        tokenizer: adds the start and end tokens; does not pad or cut.
        rules: the rules for this kind of text.
        segmenter: cuts a text into words first, or None.

    Raises:
        BundleError: the rules name a token that the tokenizer does not have.
    """

    def __init__(self, tokenizer: Tokenizer, rules: TextRules, segmenter: Segmenter | None = None) -> None:
        self._tokenizer = tokenizer
        self._segmenter = segmenter
        self._rules = rules
        self._marker = None if rules.marker is None else _token_id(tokenizer, rules.marker)
        self._mask = None if rules.expansion is None else _token_id(tokenizer, rules.expansion.token)
        known = (tokenizer.token_to_id(token) for token in _UNKNOWN)
        self._unknown = [token_id for token_id in known if token_id is not None]
        self._skiplist = np.array([_token_id(tokenizer, token) for token in rules.skiplist], np.int64)

    def __call__(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Tokenize texts.

        Raises:
            InputError: a text is empty or not a str; the message gives its position.
        """
        return [self._apply_rules(encoding) for encoding in self._encode(texts)]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text before it is cut: with start, marker, prefix and end, without masks.

        Raises:
            InputError: a text is empty or not a str; the message gives its position.
        """
        return [len(encoding) + (self._marker is not None) for encoding in self._encode(texts)]

    def spans(self, text: str) -> list[Span]:
        """Where the token of each vector of ``text`` stands in it; None for marker, end and mask tokens.

        If normalization composed a token's characters, its span is that of all the characters they come from.

        Raises:
            InputError: ``text`` is empty or not a str.
        """
        (encoding,) = self._encode([text])
        tokenized = self._apply_rules(encoding)
        spans = self._text_spans(text, encoding)
        if self._marker is not None:
            spans.insert(1, None)
        if tokenized.truncated:
            spans = [*spans[: self._rules.max_length - 1], spans[-1]]
        spans += [None] * (len(tokenized.ids) - len(spans))
        return [span for span, kept in zip(spans, tokenized.keep, strict=True) if kept]

    def _text_spans(self, text: str, encoding: Encoding) -> list[Span]:
        """The span in ``text`` of every token of its ``encoding``."""
        before = len(text) - len(text.lstrip()) if self._rules.strip else 0
        prefix = len(self._rules.prefix)
        found = self._word_places(text, encoding) if self._segmenter else encoding.offsets
        spans: list[Span] = []
        for special, place in zip(encoding.special_tokens_mask, found, strict=True):
            if special or place is None or place[0] == place[1] or place[1] <= prefix:
                spans.append(None)
            else:
                spans.append((max(place[0] - prefix, 0) + before, place[1] - prefix + before))
        return spans

    def _word_places(self, text: str, encoding: Encoding) -> list[Span]:
        """The span of every token in the prepared text, if a segmenter cut its words in NFKC."""
        prepared, after = self._prepare(text), 0
        track = self._segmenter.origins if isinstance(self._segmenter, MecabSegmenter) else nfkc_origins
        normal, origins = track(prepared)
        starts: list[int | None] = []
        for word in self._segmenter(prepared) if self._segmenter else []:
            found = normal.find(word, after)
            starts.append(found if found >= 0 else None)
            after = found + len(word) if found >= 0 else after
        places: list[Span] = []
        for (start, end), word in zip(encoding.offsets, encoding.word_ids, strict=True):
            at = None if word is None else starts[word]
            if at is None or start == end:
                places.append(None)
            else:
                places.append((origins[at + start][0], origins[at + end - 1][1]))
        return places

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {position} is {type(text).__name__}, not str")
            if not text.strip():
                raise InputError(f"text {position} is empty; leave it out")
        prepared = [self._prepare(text) for text in texts]
        words = [self._segmenter(text) for text in prepared] if self._segmenter else None
        with tokenizer_errors():
            if words is not None:
                return self._tokenizer.encode_batch(words, is_pretokenized=True)
            return self._tokenizer.encode_batch(prepared)

    def _prepare(self, text: str) -> str:
        text = self._rules.prefix + (text.strip() if self._rules.strip else text)
        # A lone surrogate is not a character, and tokenizers refuse it: "?" takes its place.
        return text.encode("utf-8", "replace").decode("utf-8")

    def _apply_rules(self, encoding: Encoding) -> TokenizedText:
        ids = np.array(encoding.ids, np.int64)
        unread = bool(np.isin(ids, self._unknown).any()) or all(start == end for start, end in encoding.offsets)
        if self._marker is not None:
            ids = np.insert(ids, 1, self._marker)
        truncated = len(ids) > self._rules.max_length
        if truncated:
            # The cut falls before the end token, which stays.
            ids = np.append(ids[: self._rules.max_length - 1], ids[-1])
        attention = np.ones(len(ids), np.int64)
        keep = ~np.isin(ids, self._skiplist)
        if expansion := self._rules.expansion:
            masks = min(expansion.masks(len(ids)), self._rules.max_length - len(ids))
            ids = np.append(ids, np.full(masks, self._mask))
            attention = np.append(attention, np.full(masks, int(expansion.attend)))
            keep = np.append(keep, np.full(masks, True))
        return TokenizedText(ids, attention, keep, truncated, unread)


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise BundleError(f"the text rules name the token {token!r}, which the tokenizer does not have; export again")
    return token_id
