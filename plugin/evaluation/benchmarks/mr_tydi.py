"""Mr. TyDi, Japanese: questions over 7 million passages of Wikipedia. Compared by MRR@100 and recall@100.

Two published forms: the archive mrtydi-v1.1-japanese.tar.gz (as ir_datasets reads it: ``collection/docs.jsonl.gz``
with ``id`` and ``contents``, ``topic.SPLIT.tsv``, ``qrels.SPLIT.txt``), and the data sets castorini/mr-tydi
(``ir-format-data/topics.SPLIT.txt`` and ``qrels.SPLIT.txt``) and castorini/mr-tydi-corpus (``corpus.jsonl.gz`` with
``docid``, ``title``, ``text``). The measures are those of the authors' README; JMTEB compares by nDCG@10.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ....indexer.errors import SourceError
from ..judgements import read_qrels
from .task import Task, add_query, documents, files_in, records_of

MEASURES = {"mrr@100": "RR@100", "recall@100": "R@100", "ndcg@10": "nDCG@10"}


def read_mr_tydi(folder: Path, split: str) -> Iterator[Task]:
    """The task of the archive, or of copies of the two data sets, in one folder.

    Args:
        folder: folder with the topics, the judgements and the corpus, in it or below it.
        split: "test", "dev" or "train".

    Raises:
        SourceError: a file or a field is missing; names the place.
    """
    [topics, *_] = files_in(folder, f"topic.{split}.tsv", f"topics.{split}.txt")
    [qrels, *_] = files_in(folder, f"qrels.{split}.txt")
    paths = files_in(folder, "collection/docs.", "corpus.")
    _, first = next(records_of(paths), ("", {}))
    corpus = documents(paths, "id", "contents") if "contents" in first else documents(paths, "docid", "text", "title")
    yield Task("Mr. TyDi-ja", split, corpus, _topics(topics), read_qrels(qrels), MEASURES)


def _topics(path: Path) -> dict[str, str]:
    """Query id → text, from lines with a tab between them, whatever the file's suffix."""
    queries: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            query_id, tab, text = line.partition("\t")
            if not tab or not text.strip():
                raise SourceError(f"{path}:{number}: expected an id and a text with a tab between them")
            add_query(queries, f"{path}:{number}", query_id.strip(), text.strip())
    return queries
