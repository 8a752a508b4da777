"""JQaRA: 100 candidates for each question; those that help to answer it are relevant. Compared by nDCG@10.

The fields are those that the authors' own evaluator reads (hotchpotch/JQaRA on GitHub, evaluator/evaluator): one row
for each question and passage, with ``q_id``, ``question``, ``passage_row_id``, ``title``, ``text`` and ``label``,
where 1 is relevant. A passage is ranked by its title and text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ....indexer.errors import SourceError
from ..judgements import Corpus, Qrels
from .task import Place, Task, files_in, grade_in, id_in, records_of, text_in

MEASURES = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "ndcg@100": "nDCG@100", "mrr@100": "RR@100"}


def read_jqara(folder: Path, split: str) -> Iterator[Task]:
    """The task of a copy of the data set hotchpotch/JQaRA.

    Args:
        folder: folder with SPLIT-*.parquet, in it or below it.
        split: "test", "dev" or "unused".

    Raises:
        SourceError: a file or a field is missing; names the place.
    """
    paths = files_in(folder, f"{split}-*.", f"{split}.")
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    candidates: dict[str, list[str]] = {}
    for place, record in records_of(paths):
        query_id, doc_id = id_in(place, record, "q_id"), id_in(place, record, "passage_row_id")
        question = text_in(place, record, "question")
        if queries.setdefault(query_id, question) != question:
            raise SourceError(f"{place}: the field 'question' is another one than before for q_id {query_id!r}")
        candidates.setdefault(query_id, []).append(doc_id)
        if grade_in(place, record.get("label"), "label") == 1:
            qrels.setdefault(query_id, {})[doc_id] = 1
    yield Task("JQaRA", split, Corpus(paths[0], lambda: _passages(paths)), queries, qrels, MEASURES, candidates)


def _passages(paths: list[Path]) -> Iterator[Place]:
    """Each passage once, though it is a candidate for several questions."""
    seen: dict[str, int] = {}
    for place, record in records_of(paths):
        doc_id = id_in(place, record, "passage_row_id")
        title, text = (text_in(place, record, name, empty=True) for name in ("title", "text"))
        content = hash((title, text))
        if doc_id not in seen:
            seen[doc_id] = content
            yield place, {"_id": doc_id, "title": title, "text": text}
        elif seen[doc_id] != content:
            raise SourceError(f"{place}: the passage_row_id {doc_id!r} has another title or text than before")
