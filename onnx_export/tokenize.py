"""Text → token ids, by the rules in a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding, Tokenizer

from .bundle import TextRules
from .errors import BundleError, InputError


@dataclass(frozen=True)
class TokenizedText:
    """One text as the graph takes it.

    Attributes:
        ids: int64 (length,), start, marker and end tokens included.
        keep: bool (length,), the positions whose vectors are kept.
        truncated: whether the text was longer than the rules allow, and was cut.
    """

    ids: np.ndarray
    keep: np.ndarray
    truncated: bool


class TextTokenizer:
    """Tokenizes one kind of text, query or document."""

    def __init__(self, tokenizer: Tokenizer, rules: TextRules) -> None:
        self._tokenizer = tokenizer
        self._prefix = rules.prefix
        self._max_length = rules.max_length
        self._marker = None if rules.marker is None else _token_id(tokenizer, rules.marker)
        self._skiplist = np.array([_token_id(tokenizer, token) for token in rules.skiplist], np.int64)

    def __call__(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Tokenize ``texts``; raises InputError, naming the position, for a text that is empty or not a str."""
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {position} is {type(text).__name__}, not str")
            if not text.strip():
                raise InputError(f"text {position} is empty; leave it out")
        # A lone surrogate is no character and no tokenizer takes it: "?" stands in its place.
        clean = [(self._prefix + text).encode("utf-8", "replace").decode("utf-8") for text in texts]
        return [self._apply_rules(encoding) for encoding in self._tokenizer.encode_batch(clean)]

    def _apply_rules(self, encoding: Encoding) -> TokenizedText:
        ids = np.array(encoding.ids, np.int64)
        if self._marker is not None:
            ids = np.insert(ids, 1, self._marker)
        truncated = len(ids) > self._max_length
        if truncated:
            # The cut falls before the end token, which stays.
            ids = np.append(ids[: self._max_length - 1], ids[-1])
        return TokenizedText(ids, ~np.isin(ids, self._skiplist), truncated)


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise BundleError(f"bundle.json names the token {token!r}, which tokenizer.json does not have")
    return token_id
