"""MLDR, Japanese: one article of 10,000 for each question, 9,297 characters long on average. Compared by nDCG@10.

The form is that of the data set Shitao/MLDR (its card): ``mldr-v1.0-ja/corpus.jsonl.gz`` with ``docid`` and ``text``,
and ``SPLIT.jsonl.gz`` with ``query_id``, ``query`` and ``positive_passages``, which are the judgements.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ....indexer.errors import SourceError
from ..judgements import Qrels
from .task import Task, add_query, documents, files_in, id_in, list_in, records_of, text_in

MEASURES = {"ndcg@10": "nDCG@10", "recall@100": "R@100"}


def read_mldr(folder: Path, split: str) -> Iterator[Task]:
    """The task of a copy of the data set Shitao/MLDR.

    Args:
        folder: folder with mldr-v1.0-ja, in it or below it.
        split: "test", "dev" or "train".

    Raises:
        SourceError: a file or a field is missing; names the place.
    """
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    for place, record in records_of(files_in(folder, f"mldr-v1.0-ja/{split}.")):
        query_id = id_in(place, record, "query_id")
        add_query(queries, place, query_id, text_in(place, record, "query"))
        for number, passage in enumerate(list_in(place, record, "positive_passages")):
            at = f"{place}: positive_passages[{number}]"
            if not isinstance(passage, dict):
                raise SourceError(f"{at}: not an object with 'docid', but {type(passage).__name__}")
            qrels.setdefault(query_id, {})[id_in(at, passage, "docid")] = 1
    corpus = documents(files_in(folder, "mldr-v1.0-ja/corpus."), "docid", "text")
    yield Task("MLDR-ja", split, corpus, queries, qrels, MEASURES)
