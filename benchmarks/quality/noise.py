"""What disfigured text costs: hit@1 where the questions, or the documents, are written in another way.

    python -m benchmarks.quality.noise --data ../shared/data

1,000 questions of `jsquad-valid` are asked of its 1,145 paragraphs, ranked by exhaustive MaxSim of uncompressed
vectors without phrases. Each row disfigures the text of one side, the other side stays clean. "same" is the part of the
texts whose tokens are those of the clean text.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from tansaku import Encoder, Source, TokenizedText
from tansaku.indexer.read.documents import DocumentReader
from tansaku.plugin.evaluation.judgements import judged_queries, read_qrels, read_queries

from ..support.machine import cpu_name
from ..support.noise import NOISES
from ..support.vectors import all_maxsim

SET = "jsquad-valid"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the BEIR folders")
    parser.add_argument("--queries", type=int, default=1000, help="take this many questions, drawn with a fixed seed")
    parser.add_argument("--noise", action="append", choices=list(NOISES), help="one kind of noise; may be repeated")
    parser.add_argument(
        "--only", choices=["questions", "documents"], help="the side that is disfigured; by default each"
    )
    parser.add_argument("--model", type=Path, help="an encoder bundle; by default the one that ships inside")
    options = parser.parse_args()

    encoder = Encoder.load(options.model)
    print(f"{date.today()}, {cpu_name()}, model {encoder.bundle.name} ({encoder.bundle.fingerprint})")
    folder = options.data / SET
    documents = list(DocumentReader(Source(folder / "corpus.jsonl")))
    qrels = read_qrels(folder / "qrels" / "dev.tsv")
    asked = judged_queries(read_queries(folder / "queries.jsonl"), qrels)
    chosen = random.Random(0).sample(sorted(asked), min(options.queries, len(asked)))
    ids = [document.id for document in documents]
    right = [{i for i, doc_id in enumerate(ids) if doc_id in qrels[query_id]} for query_id in chosen]
    bench = Bench(encoder, [asked[query_id] for query_id in chosen], [d.encoded_text for d in documents], right)
    sides = [options.only] if options.only else ["questions", "documents"]
    print(f"{'':<34}" + "".join(f"{side:>11}{'same':>7}" for side in sides))
    print(f"{'clean':<34}" + f"{bench.clean:>11.4f}{'':>7}" * len(sides), flush=True)
    for name in options.noise or NOISES:
        found = [bench.disfigured(NOISES[name], side) for side in sides]
        print(f"{name:<34}" + "".join(f"{hit:>11.4f}{same:>7.2f}" for hit, same in found), flush=True)


class Bench:
    """Questions and documents with their clean vectors; texts whose tokens stay the same are not encoded again."""

    def __init__(self, encoder: Encoder, questions: list[str], documents: list[str], right: list[set[int]]) -> None:
        self.encoder = encoder
        self.questions, self.documents, self.right = questions, documents, right
        self.query_vectors = encoder.encode_queries(questions)
        self.document_vectors = encoder.encode_documents(documents)
        self.clean = self.hit(self.query_vectors, self.document_vectors)

    def hit(self, queries: Sequence[np.ndarray], documents: Sequence[np.ndarray]) -> float:
        """hit@1."""
        best = [int(np.argmax(scores)) for scores in all_maxsim(queries, documents)]
        return sum(document in right for document, right in zip(best, self.right, strict=True)) / len(best)

    def disfigured(self, noise: Callable[[str], str], side: str) -> tuple[float, float]:
        """hit@1 with one side disfigured, and the part of its texts that keep their tokens."""
        queries, documents = list(self.query_vectors), list(self.document_vectors)
        if side == "questions":
            changed = self._changed(self.questions, noise, self.encoder.tokenize_queries)
            for i, matrix in zip(changed, self.encoder.encode_queries(changed.values()), strict=True):
                queries[i] = matrix
        else:
            changed = self._changed(self.documents, noise, self.encoder.tokenize_documents)
            for i, matrix in zip(changed, self.encoder.encode_documents(changed.values()), strict=True):
                documents[i] = matrix
        same = 1 - len(changed) / len(self.questions if side == "questions" else self.documents)
        return self.hit(queries, documents) if changed else self.clean, same

    def _changed(
        self, texts: list[str], noise: Callable[[str], str], tokenize: Callable[[list[str]], list[TokenizedText]]
    ) -> dict[int, str]:
        """Position → the disfigured text, where its tokens are not those of the clean one."""
        noisy = [noise(text) for text in texts]
        pairs = zip(tokenize(texts), tokenize(noisy), strict=True)
        return {i: noisy[i] for i, (a, b) in enumerate(pairs) if not np.array_equal(a.ids, b.ids)}


if __name__ == "__main__":
    main()
