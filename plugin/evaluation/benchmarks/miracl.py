"""MIRACL, Japanese: 6,953,614 passages of Wikipedia. Compared by nDCG@10 and recall@100.

The form is that of the data sets miracl/miracl (topics and judgements) and miracl/miracl-corpus, by their cards. The
measures are those of the paper (Zhang et al., 2023) and of Pyserini's reproductions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..judgements import read_qrels, read_queries
from .task import Task, documents, files_in

MEASURES = {"ndcg@10": "nDCG@10", "recall@100": "R@100", "mrr@10": "RR@10", "recall@10": "R@10"}


def read_miracl(folder: Path, split: str) -> Iterator[Task]:
    """The task of copies of miracl/miracl and miracl/miracl-corpus in one folder.

    Args:
        folder: folder with topics.miracl-v1.0-ja-SPLIT.tsv, qrels.miracl-v1.0-ja-SPLIT.tsv and the corpus'
            miracl-corpus-v1.0-ja/docs-*.jsonl.gz, in it or below it.
        split: "dev" or "train"; the judgements of the others are not published.

    Raises:
        SourceError: a file or a field is missing; names the place.
    """
    [topics, *_] = files_in(folder, f"topics.miracl-v1.0-ja-{split}.tsv")
    [qrels, *_] = files_in(folder, f"qrels.miracl-v1.0-ja-{split}.tsv")
    paths = files_in(folder, "miracl-corpus-v1.0-ja/docs-*.")
    corpus = documents(paths, "docid", "text", "title")
    yield Task("MIRACL-ja", split, corpus, read_queries(topics), read_qrels(qrels), MEASURES)
