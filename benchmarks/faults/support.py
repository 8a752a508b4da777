"""What the parts have in common: an encoder that costs next to nothing, and child processes."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from tansaku import Bundle, Encoder, TextRules, TokenizedText

TABLE = "docs"
LONGEST = 64  # tokens
ROOT = Path(__file__).parents[2]


class CharacterEncoder(Encoder):
    """An `Encoder` without a graph: a token for each of the first 64 characters, each character's vector drawn once."""

    def __init__(self) -> None:
        rules = TextRules("", None, LONGEST)
        self.bundle = Bundle("characters", 16, "float32", rules, rules)
        vectors = np.random.default_rng(0).standard_normal((512, self.dim)).astype(np.float32)
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def tokenize_documents(self, texts: Iterable[str]) -> list[TokenizedText]:
        return [_tokenized(text) for text in texts]

    tokenize_queries = tokenize_documents

    def count_document_tokens(self, texts: Iterable[str]) -> list[int]:
        return [len(text) for text in texts]

    def encode_tokens(self, tokenized: Sequence[Any], note: Callable[[int], None] | None = None) -> list[np.ndarray]:
        return [self._vectors[text.ids] for text in tokenized]

    def encode_documents(self, texts: Iterable[str]) -> list[np.ndarray]:
        return self.encode_tokens(self.tokenize_documents(texts))

    encode_query_tokens, encode_queries = encode_tokens, encode_documents


def _tokenized(text: str) -> TokenizedText:
    ids = np.array([ord(c) % 512 for c in text[:LONGEST]])
    return TokenizedText(ids, np.ones_like(ids), np.ones(len(ids), bool), len(text) > LONGEST)


def character_encoder() -> Encoder:
    """One, as the type that an index takes."""
    return CharacterEncoder()


class Child:
    """Another process of this benchmark, which answers a line of JSON with a line of JSON."""

    def __init__(self, process: str, **arguments: Any) -> None:
        command = [sys.executable, "-m", "benchmarks.faults", "--process", process]
        command += ["--arguments", json.dumps(arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self._stdin, self._stdout = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)

    def send(self, message: Any) -> None:
        self._stdin.write(json.dumps(message) + "\n")
        self._stdin.flush()

    def answer(self, timeout: float = 300) -> Any:
        """The next line; None if there is none in that time."""
        if not select.select([self._stdout], [], [], timeout)[0]:
            return None
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"a child process ended with status {self._process.wait()}")
        return json.loads(line)

    def has_answered(self) -> bool:
        return bool(select.select([self._stdout], [], [], 0)[0])

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        self._stdin.close()
        self._process.wait()
        self._stdout.close()
