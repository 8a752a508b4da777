"""An encoder that costs nothing, and how tests make tansaku work in small pieces."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from tansaku import BuildReport, Index
from tansaku.indexer.read import scan
from tansaku.indexer.table import changes, model
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.table import open_index_table
from tansaku.indexer.write import build_steps, rebuild
from tansaku.onnx_export.encode.bundle import read_bundle
from tansaku.onnx_export.encode.encoder import Encoder
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.onnx_export.encode.tokenize import Span, TokenizedText

SUPPORT = Path(__file__).parent  # for scripts that run in a process of their own
MOUNT = shutil.which("mount") or ""
DIM = 16
MAX_TOKENS = 12
UNREAD = "\ufffd"  # a character that the fake model has no token for


class KilledError(BaseException):
    """In place of a signal: nothing catches it but what must clean up."""


@cache
def _default_bundle():
    return read_bundle(DEFAULT_BUNDLE)


def token_vector(text: str, position: int) -> np.ndarray:
    """A unit vector that depends on the character there and a little on the whole text."""
    near, far = (
        np.frombuffer(hashlib.sha256(repr(part).encode()).digest() * 2, np.uint16)[:DIM].astype(np.float32) - 32767.5
        for part in (text[position], (text, position))
    )
    vector = near + 0.3 * far
    return vector / np.linalg.norm(vector)


class FakeEncoder(Encoder):
    """An `Encoder` without a graph: a token for each character but spaces, vectors from hashes.

    Attributes:
        encoded: the texts whose vectors were asked for.
        before_encoding: called with each batch of texts.
    """

    def __init__(self, name: str = "fake", *, phrase_weight: float = 0.0) -> None:
        rules = dataclasses.replace(_default_bundle().document, max_length=MAX_TOKENS)
        files = dict.fromkeys(_default_bundle().files, name)
        self.bundle = dataclasses.replace(
            _default_bundle(), name=name, dim=DIM, document=rules, files=files, phrase_weight=phrase_weight
        )
        self.encoded: list[str] = []
        self.before_encoding: Callable[[list[str]], object] = lambda texts: None

    def tokenize_documents(self, texts: Iterable[str]) -> list[TokenizedText]:
        return [self._tokenized(text) for text in texts]

    tokenize_queries = tokenize_documents

    def count_document_tokens(self, texts: Iterable[str]) -> list[int]:
        return [_length(text) for text in texts]

    def encode_tokens(
        self, tokenized: Sequence[TokenizedText], note: Callable[[int], None] | None = None
    ) -> list[np.ndarray]:
        texts = ["".join(map(chr, item.ids)) for item in tokenized]
        self.before_encoding(texts)
        self.encoded += texts
        return [self.vectors(text) for text in texts]

    def encode_query_tokens(self, tokenized: Sequence[TokenizedText]) -> list[np.ndarray]:
        return [self.vectors("".join(map(chr, item.ids))) for item in tokenized]

    def encode_documents(self, texts: Iterable[str]) -> list[np.ndarray]:
        return self.encode_tokens(self.tokenize_documents(texts))

    def query_spans(self, text: str) -> list[Span]:
        spans: list[Span] = [(i, i + 1) for i, character in enumerate(text) if character != " "]
        return spans[:MAX_TOKENS]

    document_spans = query_spans

    def vectors(self, text: str) -> np.ndarray:
        kept = text.replace(" ", "")[:MAX_TOKENS]
        return np.stack([token_vector(kept, position) for position in range(len(kept))])

    @staticmethod
    def _tokenized(text: str) -> TokenizedText:
        """The text itself, as the numbers of its characters."""
        ids = np.array([ord(character) for character in text], np.int64)
        return TokenizedText(ids, np.ones_like(ids), ids != ord(" "), _length(text) > MAX_TOKENS, UNREAD in text)


def make_findable(patch: pytest.MonkeyPatch, *encoders: FakeEncoder) -> None:
    """Find these models, and no others, as if their bundles were in a folder of models."""
    folders = {Path(encoder.bundle.name): encoder for encoder in encoders}

    def find(fingerprint: str) -> Path | None:
        return next((path for path, encoder in folders.items() if encoder.bundle.made(fingerprint)), None)

    patch.setattr(model, "find_bundle", find)
    patch.setattr(Encoder, "load", lambda path, threads=None: folders[path])


class MortalEncoder(FakeEncoder):
    """An encoder that other processes can load. There it writes down what it encodes, and may end its process.

    Args:
        log: the file in which each text that was encoded elsewhere becomes a line.
        deadly: texts with this end the process, but not that of the test.
        once: a file; if it is there, the next process that encodes removes it and ends.
        pause: seconds that encoding takes there.
    """

    def __init__(
        self,
        log: Path,
        deadly: str = "\0",
        once: Path | None = None,
        *,
        pause: float = 0,
        is_elsewhere: bool = False,
    ) -> None:
        super().__init__()
        self.log, self.deadly, self.once, self.pause, self.is_elsewhere = log, deadly, once, pause, is_elsewhere

    def elsewhere(self, threads: int) -> Callable[[], Encoder]:
        return partial(MortalEncoder, self.log, self.deadly, self.once, pause=self.pause, is_elsewhere=True)

    def encode_tokens(
        self, tokenized: Sequence[TokenizedText], note: Callable[[int], None] | None = None
    ) -> list[np.ndarray]:
        texts = ["".join(map(chr, item.ids)) for item in tokenized]
        if self.is_elsewhere:
            time.sleep(self.pause)
            dies = any(self.deadly in text for text in texts)
            if self.once is not None:
                with contextlib.suppress(FileNotFoundError):
                    self.once.unlink()
                    dies = True
            if dies:
                os._exit(1)
            with self.log.open("a", encoding="utf-8") as file:
                file.write("".join(f"{text}\n" for text in texts))
        return super().encode_tokens(tokenized, note)

    @property
    def encoded_elsewhere(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []


class NewerEncoder(FakeEncoder):
    """Another model: other vectors for the same texts."""

    def __init__(self) -> None:
        super().__init__("newer")

    def vectors(self, text: str) -> np.ndarray:
        kept = "*" + text.replace(" ", "")[:MAX_TOKENS]
        return np.roll([token_vector(kept, position) for position in range(1, len(kept))], 3, axis=1)


def _length(text: str) -> int:
    return len(text.replace(" ", ""))


def small_chunks(monkeypatch, documents: int = 4) -> None:
    """Encode and stage so few documents together."""
    for module in (scan, build_steps, rebuild):
        monkeypatch.setattr(module, "DOCUMENTS_PER_CHUNK", documents)
    monkeypatch.setattr(scan.chunks, "__defaults__", (documents,))


def small_slices(monkeypatch) -> None:
    """Make every chunk of an add or upsert a transaction of its own."""
    monkeypatch.setattr(changes, "BYTES_PER_TRANSACTION", 1)


def corpus(n: int, prefix: str = "d", salt: str = "", **fields):
    """Documents of 3 to 9 tokens; with another ``salt`` others of the same ids."""
    made = []
    for i in range(n):
        letters = hashlib.sha256(f"{prefix}{i}{salt}".encode()).hexdigest()
        made.append({"id": f"{prefix}{i}", "text": letters[: 3 + i % 7], **{k: v(i) for k, v in fields.items()}})
    return made


def built(index: Index) -> BuildReport:
    """What the last write of ``index`` did."""
    report = index.last_build
    assert report is not None
    return report


def stored(db, table: str = "t") -> pa.Table:
    """The table as plain LanceDB reads it, over a connection of its own."""
    return lancedb.connect(str(db)).open_table(table).to_arrow()


def rows_by_id(db, table: str = "t") -> dict[str, dict]:
    found = stored(db, table).to_pylist()
    assert len({row["id"] for row in found}) == len(found), "an id is there twice"
    return {row["id"]: row for row in found}


def texts_by_id(db, table: str = "t") -> dict[str, str]:
    return {doc_id: row["text"] for doc_id, row in rows_by_id(db, table).items()}


def comparable(table: pa.Table, *, in_order: bool = True) -> tuple[dict, list[dict]]:
    """What two tables of the same documents have in common: all but the random numbers of their writes."""
    header = json.loads(table.schema.metadata[b"tansaku.index"])
    random = [name for name in table.column_names if name == "write_id" or name.startswith("build_")]
    rows = table.drop_columns(random).to_pylist()
    del header["build_id"]
    return header, rows if in_order else sorted(rows, key=lambda row: row["id"])


def after(calls: int, function: Callable, error: type[BaseException] | BaseException = KilledError) -> Callable:
    """``function``, but the call after so many raises ``error``, and those that follow too."""
    made = [0]

    def counted(*args, **kwargs):
        made[0] += 1
        if made[0] > calls:
            raise error
        return function(*args, **kwargs)

    return counted


def exhaustive(db, query: np.ndarray, table: str = "t") -> list[tuple[str, float]]:
    """All ids and MaxSim scores, best first: decoded from the table's rows, one by one."""
    opened = open_index_table(connect(db), table)
    codec = opened.codec
    rows = opened.table.search().with_row_id(True).to_arrow().to_pylist()
    scored = []
    for row in rows:
        ids = np.frombuffer(row["centroid_ids"], codec.id_dtype)
        vectors = codec.decode(ids, np.frombuffer(row["residuals"], np.uint8).reshape(len(ids), codec.residual_bytes))
        scored.append((-float((query @ vectors.T).max(axis=1).sum()), row["_rowid"], row["id"]))
    return [(doc_id, -score) for score, _, doc_id in sorted(scored)]


def fill(folder, left):
    (folder / "filler").unlink(missing_ok=True)
    status = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - left)))


def noted_in(rejects):
    """What a file of rejects holds, a dict for each line."""
    return [json.loads(line) for line in rejects.path.read_text(encoding="utf-8").splitlines()]


def run_twice_at_once(script, db):
    """Run ``script`` in two processes, which are given this folder, ``db``, and "a" or "b"; their exit statuses."""
    command = [sys.executable, "-c", script, str(SUPPORT), str(db)]
    running = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    return [process.wait(60) for process in running]
