"""Token vectors that benchmarks share: real passages and questions, encoded once by the model inside."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tansaku import Encoder
from tansaku.plugin.evaluation.judgements import read_qrels

_BLOCK = 2000  # passages that are encoded and kept together
_CORPORA = ("jsquad-valid", "jaquad", "kyoto-wiki-ja", "msdocs-ja")


@dataclass(frozen=True)
class Vectors:
    """Vectors of texts one after the other, float32 (tokens, dim), and where each text's begin."""

    ids: list[str]
    texts: list[str]
    tokens: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]


def passages(data: Path, cache: Path, count: int) -> Vectors:
    """The first ``count`` of all corpora's passages, those of `jsquad-valid` first, title and text."""
    records = itertools.chain(*(read(data / name / "corpus.jsonl") for name in _CORPORA))
    chosen = list(itertools.islice(records, count))
    return _encoded(cache / f"passages-{count}", chosen, queries=False)


def questions(data: Path, cache: Path, count: int) -> Vectors:
    """Every n-th question of `jsquad-valid`, ``count`` of them."""
    every = list(read(data / "jsquad-valid" / "queries.jsonl"))
    return _encoded(cache / f"questions-{count}", every[:: len(every) // count][:count], queries=True)


def corpus(folder: Path, cache: Path) -> Vectors:
    """All passages of one corpus, title and text."""
    records = list(read(folder / "corpus.jsonl"))
    return _encoded(cache / f"{folder.name}-{len(records)}", records, queries=False)


def relevant(data: Path) -> dict[str, set[str]]:
    """Question id → ids of its paragraphs."""
    judged = read_qrels(data / "jsquad-valid" / "qrels" / "dev.tsv")
    return {question: set(grades) for question, grades in judged.items()}


def read(path: Path) -> itertools.chain[dict]:
    with path.open(encoding="utf-8") as file:
        return itertools.chain([json.loads(line) for line in file])


def _encoded(folder: Path, records: list[dict], *, queries: bool) -> Vectors:
    texts = [f"{r['title']} {r['text']}" if r.get("title") else r["text"] for r in records]
    ids = [record["_id"] for record in records]
    if not (folder / "offsets.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        encoder = Encoder.load()
        if queries:
            _join(folder, [encoder.encode_queries(texts)])
        else:
            known, blocks = _fewer(folder)
            print(f"encoding {len(texts) - known:,} texts for {folder.name}", flush=True)
            encoded = (_block(folder, encoder, texts, start) for start in range(known, len(texts), _BLOCK))
            _join(folder, list(itertools.chain(blocks, encoded)))
            for path in folder.glob("block-*"):
                path.unlink()
    offsets = np.load(folder / "offsets.npy")
    if len(offsets) != len(texts) + 1:
        raise SystemExit(f"{folder}: of another corpus; remove it")
    return Vectors(ids, texts, np.load(folder / "tokens.npy", mmap_mode="r"), offsets)


def _fewer(folder: Path) -> tuple[int, list[Sequence[np.ndarray]]]:
    """How many of the same passages the cache has, in the folder of the largest smaller number, and their vectors."""
    kind, count = folder.name.rsplit("-", 1)
    counts = [int(path.parent.name.rsplit("-", 1)[1]) for path in folder.parent.glob(f"{kind}-*/offsets.npy")]
    fewer = max((n for n in counts if n < int(count)), default=0)
    if not fewer:
        return 0, []
    there = folder.with_name(f"{kind}-{fewer}")
    return fewer, [_parts(np.load(there / "tokens.npy", mmap_mode="r"), np.load(there / "offsets.npy"))]


def _block(folder: Path, encoder: Encoder, texts: list[str], start: int) -> Sequence[np.ndarray]:
    """Vectors of the texts from ``start`` on, kept in two files, so that an interrupted run goes on there."""
    tokens, offsets = (folder / f"block-{start:08d}-{name}.npy" for name in ("tokens", "offsets"))
    if not offsets.exists():
        vectors = encoder.encode_documents(texts[start : start + _BLOCK])
        np.save(tokens, np.concatenate(vectors))
        np.save(offsets, np.cumsum([0, *map(len, vectors)]))
        print(f"{start + len(vectors):,} of {len(texts):,}", flush=True)
    return _parts(np.load(tokens, mmap_mode="r"), np.load(offsets))


def _parts(tokens: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    return [tokens[start:stop] for start, stop in itertools.pairwise(offsets)]


def _join(folder: Path, blocks: list[Sequence[np.ndarray]]) -> None:
    """Write the vectors of all blocks into one file, a block at a time."""
    offsets = np.cumsum([0, *(len(vectors) for block in blocks for vectors in block)])
    dim = blocks[0][0].shape[1]
    joined = np.lib.format.open_memmap(folder / "tokens.npy", "w+", np.float32, (int(offsets[-1]), dim))
    done = 0
    for vectors in itertools.chain.from_iterable(blocks):
        joined[done : done + len(vectors)] = vectors
        done += len(vectors)
    joined.flush()
    np.save(folder / "offsets.npy", offsets)


def exhaustive(documents: np.ndarray, offsets: np.ndarray, queries: Vectors, k: int = 100) -> np.ndarray:
    """The ``k`` best documents of each query by MaxSim over all ``documents``, float32: int64 (queries, k)."""
    ranked = []
    for number in range(len(queries)):
        query = queries[number]
        scores = np.concatenate(
            [
                maxsim(query, documents[offsets[a] : offsets[b]], offsets[a : b + 1] - offsets[a])
                for a, b in _spans(len(offsets) - 1, 1000)
            ]
        )
        ranked.append(np.argsort(-scores, kind="stable")[:k])
    return np.array(ranked)


def maxsim(query: np.ndarray, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """MaxSim of a query with documents whose token vectors lie one after the other: float32 (documents,)."""
    return np.maximum.reduceat(query @ tokens.T, offsets[:-1], axis=1).sum(axis=0, dtype=np.float32)


def all_maxsim(queries: Iterable[np.ndarray], documents: Sequence[np.ndarray]) -> np.ndarray:
    """MaxSim of all queries with all documents: float32 (queries, documents)."""
    offsets = np.cumsum([0, *map(len, documents)])
    tokens = np.concatenate(documents)
    return np.stack([maxsim(query, tokens, offsets) for query in queries])


def recall(found: Sequence[Sequence[int]] | np.ndarray, exact: np.ndarray, k: int) -> float:
    """Mean share of the exact ``k`` best that are among the ``k`` found."""
    return float(np.mean([len(set(a[:k]) & set(b[:k])) / k for a, b in zip(found, exact, strict=True)]))


def hit_at_1(
    ranked: Sequence[Sequence[int]] | np.ndarray, documents: Vectors, queries: Vectors, judged: dict[str, set[str]]
) -> float:
    """Share of the queries whose first document is relevant."""
    first = [documents.ids[row[0]] for row in ranked]
    return float(np.mean([doc_id in judged[q] for doc_id, q in zip(first, queries.ids, strict=True)]))


def _spans(total: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(start + step, total)) for start in range(0, total, step)]
