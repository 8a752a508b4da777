"""NLP Journal: find a paper's abstract, introduction or article by its title or abstract. Compared by nDCG@10.

Four tasks of JMTEB, in its form, see `jmteb`; those whose folders are there are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ....indexer.errors import SourceError
from .jmteb import jmteb_corpus, relevant_docs
from .task import Task

MEASURES = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "hit@1": "Success@1", "hit@10": "Success@10"}
TASKS = ("title_abs", "title_intro", "abs_intro", "abs_article")


def read_nlp_journal(folder: Path, split: str) -> Iterator[Task]:
    """The tasks whose folders are there.

    Args:
        folder: folder with nlp_journal_TASK-query and nlp_journal_TASK-corpus, in it or below it.
        split: "test" or "validation".

    Raises:
        SourceError: no task is there, or a file or a field is missing; names the place.
    """
    there = [task for task in TASKS if any(folder.rglob(f"nlp_journal_{task}-query"))]
    if not there:
        wanted = ", ".join(f"nlp_journal_{task}-query" for task in TASKS)
        raise SourceError(f"{folder}: none of the folders {wanted} in it or below it")
    for task in there:
        name = f"nlp_journal_{task}"
        queries, qrels = relevant_docs(folder, name, split)
        yield Task(name, split, jmteb_corpus(folder, name), queries, qrels, MEASURES)
