"""Small sets of HAKARI-Bench: NanoBEIR-ja, NanoJMTEB, and others of the same form. Compared by nDCG@10.

The form is that of their cards, and of NanoBEIR: folders ``corpus`` and ``queries`` with ``_id`` and ``text``, and
``qrels`` with ``query-id``, ``corpus-id`` and sometimes ``score``; in each folder one file SPLIT-*.parquet for each
task. The measures are those of HAKARI-Bench's leaderboard, which calls hit@10 Acc@10. The whole corpus is ranked; its
lists of candidates for rerankers are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ....indexer.errors import SourceError
from ..judgements import Qrels
from .task import Task, add_query, documents, files_in, grade_in, id_in, records_of, text_in

MEASURES = {
    "ndcg@10": "nDCG@10",
    "recall@100": "R@100",
    "hit@10": "Success@10",
    "mrr@10": "RR@10",
    "map@100": "AP@100",
}
ALL = "all"
_JAPANESE = "ja"
_PART = re.compile(r"-\d{5}-of-\d{5}$")


def read_nano(folder: Path, split: str) -> Iterator[Task]:
    """The tasks of one Nano data set, or of several in one folder.

    Args:
        folder: folder of a data set, or of several.
        split: name of one task; "all" takes all, and only "ja" where a data set has tasks by language.

    Raises:
        SourceError: no data set or no such task is there, or a file or a field is missing; names the place.
    """
    files_in(folder, "queries/*.")
    found = False
    for data_set in sorted({path.parent.parent for path in folder.rglob("queries/*") if path.is_file()}):
        splits = sorted({_PART.sub("", path.name.split(".")[0]) for path in (data_set / "queries").iterdir()})
        japanese = [_JAPANESE] if _JAPANESE in splits else splits
        for name in japanese if split == ALL else [one for one in splits if one == split]:
            found = True
            yield _task(data_set, name)
    if not found:
        raise SourceError(f"{folder}: no task {split!r} in the folders of queries")


def _task(folder: Path, split: str) -> Task:
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    for place, record in records_of(_of(folder / "queries", split)):
        add_query(queries, place, id_in(place, record, "_id"), text_in(place, record, "text"))
    for place, record in records_of(_of(folder / "qrels", split)):
        grade = grade_in(place, record["score"], "score") if "score" in record else 1
        qrels.setdefault(id_in(place, record, "query-id"), {})[id_in(place, record, "corpus-id")] = grade
    corpus = documents(_of(folder / "corpus", split), "_id", "text")
    return Task(f"{folder.resolve().name} {split}", split, corpus, queries, qrels, MEASURES)


def _of(folder: Path, split: str) -> list[Path]:
    return files_in(folder, f"{split}-?????-of-?????.", f"{split}.")
