"""How fast this machine encodes texts, and whether the texts of a request can be encoded within the deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ...onnx_export.encode.encoder import Encoder
from .errors import ServiceError

_SENTENCE = "梅雨は五月から七月にかけて雨や曇りの日が多く現れる時期であり、北海道と小笠原諸島を除く日本で見られる。"
_SENTENCES = 8  # of a text: a passage of some 250 tokens, as long texts take more time for each token
_TEXTS_PER_THREAD = 4
_ENOUGH_TOKENS = 500  # of a request, to say how fast it was
_PER_BATCH = 128  # texts


class Pace:
    """The most tokens that were encoded in a second, of a sample and of the requests since.

    A request is refused only if its texts would take longer than the deadline even at that rate, with nothing else at
    work.

    Args:
        seconds: The deadline of a request.

    Attributes:
        tokens_per_second: The rate; None before it is measured.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.tokens_per_second: float | None = None

    @property
    def tokens_in_time(self) -> int | None:
        """Number of tokens that can be encoded within the deadline; None before the rate is measured."""
        return None if self.tokens_per_second is None else int(self.tokens_per_second * self._seconds)

    def measure(self, encoder: Encoder, threads: int) -> None:
        """Encode a sample of some thousand tokens for each thread, twice, since the first run warms up."""
        texts = [_SENTENCE * _SENTENCES] * (_TEXTS_PER_THREAD * threads)
        n_tokens = sum(len(text.ids) for text in encoder.tokenize_documents(texts))
        self.tokens_per_second = None
        for _ in range(2):
            start = time.perf_counter()
            encoder.encode_documents(texts)
            self._saw(n_tokens, time.perf_counter() - start)

    def saw(self, n_tokens: int, seconds: float) -> None:
        """Take note of a request; a faster one than any before raises the rate."""
        if n_tokens >= _ENOUGH_TOKENS:
            self._saw(n_tokens, seconds)

    def check(self, encoder: Encoder, texts: Iterable[str], before_batch: Callable[[], None]) -> None:
        """Refuse texts that cannot be encoded within the deadline, before they are encoded.

        Args:
            encoder: The model.
            texts: The texts; equal ones are encoded once.
            before_batch: Called before each batch of texts is read.

        Raises:
            ServiceError: 413, there are too many tokens.
        """
        distinct = [text for text in dict.fromkeys(texts) if text.strip()]
        limit, rate = self.tokens_in_time, self.tokens_per_second
        if limit is None or rate is None:
            return
        longest = encoder.bundle.document.max_length
        # A token is a character or more, but for rare characters; counting the tokens takes time.
        if sum(min(len(text) + 2, longest) for text in distinct) <= limit:
            return
        n_tokens = 0
        for start in range(0, len(distinct), _PER_BATCH):
            before_batch()
            batch = distinct[start : start + _PER_BATCH]
            n_tokens += sum(len(text.ids) for text in encoder.tokenize_documents(batch))
        if n_tokens > limit:
            at_most = max(1, len(distinct) * limit // n_tokens)
            raise ServiceError(
                413,
                f"the texts have {n_tokens:,} tokens; this machine encodes {rate:,.0f} a second, and {limit:,} within "
                f"the deadline of {self._seconds:g} s: send at most {at_most:,} such texts at once, or documents of an "
                "index by their ids",
                "documents",
            )

    def _saw(self, n_tokens: int, seconds: float) -> None:
        self.tokens_per_second = max(self.tokens_per_second or 0.0, n_tokens / max(seconds, 1e-6))
