"""JaCWIR: one web page of 100 for each question. Compared by MAP@10, which is the mean of 1/rank, and by hit@10.

The form is that of the data set hotchpotch/JaCWIR (its card): ``eval`` with ``query``, ``positive`` and
``negatives``, and ``collection`` with ``doc_id``, ``title`` and ``description``. As in the authors' evaluator, a
query is named by its positive, and a page is ranked by its title and description.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..judgements import Qrels
from .task import Task, add_query, documents, files_in, id_in, ids_in_list, records_of, text_in

MEASURES = {"map@10": "AP@10", "hit@10": "Success@10"}


def read_jacwir(folder: Path, split: str) -> Iterator[Task]:
    """The task of a copy of the data set hotchpotch/JaCWIR.

    Args:
        folder: folder with eval-*.parquet and collection-*.parquet, in it or below it.
        split: "eval".

    Raises:
        SourceError: a file or a field is missing; names the place.
    """
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    candidates: dict[str, list[str]] = {}
    for place, record in records_of(files_in(folder, f"{split}-*.", f"{split}.")):
        positive = id_in(place, record, "positive")
        query_id = f"q_id##{positive}"
        add_query(queries, place, query_id, text_in(place, record, "query"))
        qrels[query_id] = {positive: 1}
        candidates[query_id] = [positive, *ids_in_list(place, record, "negatives")]
    corpus = documents(files_in(folder, "collection-*.", "collection."), "doc_id", "description", "title")
    yield Task("JaCWIR", split, corpus, queries, qrels, MEASURES, candidates)
