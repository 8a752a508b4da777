"""What all benchmarks have in common: a task to rank, and the reading of folders, records and fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ....indexer.errors import SourceError
from ..judgements import Corpus, Qrels, id_of, read_records

Place = tuple[str, dict[str, Any]]  # where a record is, and the record

# Suffixes of files of records, as the hub and the projects themselves publish them.
_RECORDS = tuple(f"{kind}{packed}" for kind in (".parquet", ".jsonl", ".json") for packed in ("", ".gz", ".zst"))


@dataclass(frozen=True)
class Task:
    """One set of queries that are ranked and judged together.

    Attributes:
        name: what results are filed under.
        split: name of the judgements.
        corpus: documents to rank.
        queries: query id → text.
        qrels: query id → document id → grade.
        measures: name → measure as ir_measures writes it; the first is the one that models are compared by.
        candidates: query id → ids of the only documents that are ranked for it; None ranks the whole corpus.
    """

    name: str
    split: str
    corpus: Corpus = field(repr=False)
    queries: dict[str, str] = field(repr=False)
    qrels: Qrels = field(repr=False)
    measures: Mapping[str, str]
    candidates: dict[str, list[str]] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Benchmark:
    """How one benchmark is read.

    Attributes:
        split: the split that is published.
        read: makes the tasks of a folder and a split.
    """

    split: str
    read: Callable[[Path, str], Iterable[Task]]


def files_in(folder: Path, *patterns: str) -> list[Path]:
    """The files of the first pattern that matches in a folder or below it, in the order of their names.

    Args:
        folder: where to look.
        *patterns: patterns of paths, such as "topics/*.tsv"; one that ends in a period takes any suffix of records.

    Raises:
        SourceError: there is no such folder, or no pattern matches; names all.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder")
    for pattern in patterns:
        suffixes = _RECORDS if pattern.endswith(".") else ("",)
        stem = pattern.rstrip(".") if pattern.endswith(".") else pattern
        for suffix in suffixes:
            if found := sorted(path for path in folder.rglob(stem + suffix) if path.is_file()):
                return found
    wanted = " or ".join(f"{p.rstrip('.')}{{.parquet,.jsonl}}" if p.endswith(".") else p for p in patterns)
    raise SourceError(f"{folder}: no file {wanted} in it or below it")


def records_of(paths: Iterable[Path]) -> Iterator[Place]:
    """Place and content of each record of some files.

    Raises:
        SourceError: a record cannot be parsed; names the place.
    """
    for path in paths:
        yield from read_records(path)


def text_in(place: str, record: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    """A field that must be text, without white space at either end.

    Args:
        place: where the record is.
        record: the record.
        name: name of the field.
        empty: whether the text may be empty or null.

    Raises:
        SourceError: the field is missing, of another type, or empty; names the place and the field.
    """
    value = record.get(name)
    if value is None and empty and name in record:
        return ""
    if not isinstance(value, str):
        raise _of_another_kind(place, record, name, "a text")
    if not value.strip() and not empty:
        raise SourceError(f"{place}: the field {name!r} is empty")
    return value.strip()


def id_in(place: str, record: Mapping[str, Any], name: str) -> str:
    """A field that must be an id: text that is not empty, or an integer.

    Raises:
        SourceError: the field is missing, of another type, or empty; names the place and the field.
    """
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise _of_another_kind(place, record, name, "an id")
    return id_of(value)


def list_in(place: str, record: Mapping[str, Any], name: str) -> list[Any]:
    """A field that must be a list.

    Raises:
        SourceError: the field is missing or of another type; names the place and the field.
    """
    value = record.get(name)
    if not isinstance(value, list):
        raise _of_another_kind(place, record, name, "a list")
    return value


def grade_in(place: str, value: Any, name: str) -> int:
    """A grade of relevance, an integer.

    Raises:
        SourceError: it is not an integer; names the place and the field.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise SourceError(f"{place}: the field {name!r}: the grade {value!r} is not an integer")
    return int(value)


def ids_in_list(place: str, record: Mapping[str, Any], name: str) -> list[str]:
    """A field that must be a list of ids.

    Raises:
        SourceError: the field is missing or of another type, or one of the ids is; names the place and the field.
    """
    return [id_in(f"{place}: {name}[{n}]", {name: value}, name) for n, value in enumerate(list_in(place, record, name))]


def documents(paths: list[Path], doc_id: str, text: str, title: str | None = None) -> Corpus:
    """A corpus of files whose fields have other names.

    Args:
        paths: the files.
        doc_id: name of the field with the id.
        text: name of the field with the text.
        title: name of the field with the title, if there is one; it may be null.

    Returns:
        The corpus. Reading it raises SourceError for a field that is missing.
    """

    def read() -> Iterator[Place]:
        for place, record in records_of(paths):
            yield (
                place,
                {
                    "_id": id_in(place, record, doc_id),
                    "title": text_in(place, record, title, empty=True) if title else "",
                    "text": text_in(place, record, text, empty=True),
                },
            )

    return Corpus(paths[0], read)


def add_query(queries: dict[str, str], place: str, query_id: str, text: str) -> None:
    """Take a query in.

    Raises:
        SourceError: the id occurred before; names the place.
    """
    if query_id in queries:
        raise SourceError(f"{place}: the query id {query_id!r} occurs twice")
    queries[query_id] = text


def _of_another_kind(place: str, record: Mapping[str, Any], name: str, wanted: str) -> SourceError:
    if name in record:
        return SourceError(f"{place}: the field {name!r} is not {wanted}, but {type(record[name]).__name__}")
    return SourceError(f"{place}: no field {name!r}; it has {', '.join(map(repr, record)) or 'none'}")
