"""ESCI, Japanese: products for Amazon's search queries, graded. Compared by nDCG@10.

JMTEB ranks the products that were judged for each query (``esci``). The paper of JaColBERTv2.5 ranks all 149,999
products (``esci-corpus``), by nDCG@10, MRR@10 and recall@10. The form is JMTEB's, see `jmteb`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .jmteb import jmteb_corpus, retrieved_docs
from .task import Task

MEASURES = {"ndcg@10": "nDCG@10"}
CORPUS_MEASURES = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "recall@10": "R@10"}


def read_esci(folder: Path, split: str) -> Iterator[Task]:
    """The reranking task of JMTEB.

    Args:
        folder: folder with esci-query and esci-corpus, in it or below it.
        split: "test", "validation" or "train".

    Raises:
        SourceError: a file or a field is missing; names the place.
    """
    queries, qrels, candidates = retrieved_docs(folder, "esci", split)
    yield Task("ESCI-ja", split, jmteb_corpus(folder, "esci"), queries, qrels, MEASURES, candidates)


def read_esci_corpus(folder: Path, split: str) -> Iterator[Task]:
    """The same queries and judgements, over all products.

    Args:
        folder: as `read_esci`.
        split: as `read_esci`.

    Raises:
        SourceError: a file or a field is missing; names the place.
    """
    queries, qrels, _ = retrieved_docs(folder, "esci", split)
    yield Task("ESCI-ja, whole corpus", split, jmteb_corpus(folder, "esci"), queries, qrels, CORPUS_MEASURES)
