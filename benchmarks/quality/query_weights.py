"""What query weights do, and how much of them is best: exhaustive MaxSim over uncompressed vectors.

    python -m benchmarks.quality.query_weights --data ../shared/data --set jsquad-valid --set niilc-qa

A score is linear in the strength of the weights, so scores without and with them give those between and beyond. Beside
hits, which a few questions decide, stands the cross-entropy of the relevant documents among all, which every question
moves; scores are sharpened by the factor that makes it least.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

from tansaku import Encoder, Source
from tansaku.indexer.read.documents import DocumentReader
from tansaku.plugin.evaluation.judgements import judged_queries, read_qrels, read_queries

from ..support.machine import cpu_name
from ..support.vectors import all_maxsim

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
FACTORS = (2, 3, 4, 5, 6, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the BEIR folders")
    parser.add_argument("--set", dest="sets", action="append", required=True, help="name of one; may be repeated")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--model", type=Path, help="a bundle with query weights; by default the one that ships inside")
    parser.add_argument("--strength", type=float, default=0.5, help="with which `tansaku weigh` gave it the weights")
    options = parser.parse_args()
    encoder = Encoder.load(options.model, threads=2)
    print(f"{date.today()}, {cpu_name()}, model {encoder.bundle.name} ({encoder.bundle.fingerprint})")
    for name in options.sets:
        compare(options.data / name, options.split, encoder, options.strength)


def compare(folder: Path, split: str, encoder: Encoder, strength: float) -> None:
    """One set: over the documents that answer questions of the split alone."""
    qrels = read_qrels(folder / "qrels" / f"{split}.tsv")
    queries = judged_queries(read_queries(folder / "queries.jsonl"), qrels)
    answering = {document for found in qrels.values() for document in found}
    documents = [d for d in DocumentReader(Source(folder / "corpus.jsonl")) if d.id in answering]
    numbers = {document.id: number for number, document in enumerate(documents)}
    relevant = [[numbers[d] for d, grade in qrels[query].items() if grade > 0] for query in queries]
    print(f"\n{folder.name} {split}: {len(documents):,} documents, {len(queries):,} queries")
    print(f"{'strength':<10}{'hit@1':>9}{'hit@3':>9}{'hit@10':>9}{'cross-entropy':>15}")

    vectors = encoder.encode_documents([document.encoded_text for document in documents])
    weighted = encoder.encode_queries(queries.values())
    plain = [matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in weighted]
    without, with_weights = (all_maxsim(matrices, vectors) for matrices in (plain, weighted))
    for wanted in STRENGTHS:
        scores = without + wanted / strength * (with_weights - without)
        hits = "".join(f"{hit(scores, relevant, k):>9.4f}" for k in (1, 3, 10))
        print(f"{wanted:<10}{hits}{min(cross_entropy(f * scores, relevant) for f in FACTORS):>15.4f}", flush=True)


def hit(scores: np.ndarray, relevant: Sequence[list[int]], k: int) -> float:
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean([bool(set(row) & set(found)) for row, found in zip(best.tolist(), relevant, strict=True)]))


def cross_entropy(scores: np.ndarray, relevant: Sequence[list[int]]) -> float:
    logs = scores - logsumexp(scores, axis=1, keepdims=True)
    found = [np.asarray(logsumexp(row[those])) for row, those in zip(logs, relevant, strict=True)]
    return -float(np.mean(found))


if __name__ == "__main__":
    main()
