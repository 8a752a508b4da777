"""The form of JMTEB's tasks: a folder NAME-query and a folder NAME-corpus, as in sbintuitions/JMTEB on GitHub.

Its data sets are made by a program. ``datasets.load_dataset("sbintuitions/JMTEB", "NAME-query", split="test")`` and
``.to_parquet("NAME-query/test.parquet")`` write the files that are read here; kasys/JBEIR and hotchpotch/JaCWIR-JMTEB
are published in the same form. The fields are those of JMTEB's readers: ``docid`` and ``text`` of documents;
``query`` and either ``relevant_docs``, or ``retrieved_docs`` and ``relevance_scores``.
"""

from __future__ import annotations

from pathlib import Path

from ....indexer.errors import SourceError
from ..judgements import Corpus, Qrels
from .task import documents, files_in, grade_in, id_in, ids_in_list, list_in, records_of, text_in


def jmteb_corpus(folder: Path, name: str) -> Corpus:
    """The documents of a task.

    Raises:
        SourceError: there is no file of them.
    """
    return documents(files_in(folder, f"{name}-corpus/corpus*."), "docid", "text")


def relevant_docs(folder: Path, name: str, split: str) -> tuple[dict[str, str], Qrels]:
    """Queries and judgements of a retrieval task; a query is named by its number in the file.

    Raises:
        SourceError: a file or a field is missing; names the place.
    """
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    for number, (place, record) in enumerate(records_of(files_in(folder, f"{name}-query/{split}*."))):
        queries[str(number)] = text_in(place, record, "query")
        one = not isinstance(record.get("relevant_docs"), list)  # as JMTEB's reader, which takes one id or a list
        ids = [id_in(place, record, "relevant_docs")] if one else ids_in_list(place, record, "relevant_docs")
        qrels[str(number)] = dict.fromkeys(ids, 1)
    return queries, qrels


def retrieved_docs(folder: Path, name: str, split: str) -> tuple[dict[str, str], Qrels, dict[str, list[str]]]:
    """Queries, judgements and candidates of a reranking task; a query is named by its number in the file.

    Raises:
        SourceError: a file or a field is missing, or two lists have not the same length; names the place.
    """
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    candidates: dict[str, list[str]] = {}
    for number, (place, record) in enumerate(records_of(files_in(folder, f"{name}-query/{split}*."))):
        ids, grades = ids_in_list(place, record, "retrieved_docs"), list_in(place, record, "relevance_scores")
        if len(ids) != len(grades):
            raise SourceError(
                f"{place}: {len(ids)} ids in the field 'retrieved_docs', but {len(grades)} grades in 'relevance_scores'"
            )
        queries[str(number)] = text_in(place, record, "query")
        qrels[str(number)] = {
            doc_id: grade_in(place, grade, "relevance_scores") for doc_id, grade in zip(ids, grades, strict=True)
        }
        candidates[str(number)] = ids
    return queries, qrels, candidates
