"""The one reader of what a search is judged by, in the formats of BEIR and TREC: corpora, queries, judgements, runs.

A BEIR folder has ``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``) and
``qrels/SPLIT.tsv`` (query-id, corpus-id, score). Every error names the file and, where it has lines, the line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...indexer.errors import SourceError
from ...indexer.read.line_formats import BOM
from ...indexer.read.sources import BadRecord, Source, lines_of
from ...onnx_export.errors import InputError

Run = dict[str, dict[str, float]]  # query id → document id → score, best first
Qrels = dict[str, dict[str, int]]  # query id → document id → grade of relevance

_TSV = re.compile(r"\.tsv(\.(gz|zst))?$", re.IGNORECASE)
_RECORDS = re.compile(r"\.(jsonl|json|csv|parquet|arrow)(\.(gz|zst))?$", re.IGNORECASE)
_DIVIDES = re.compile(r"[ \t\r\n\v\f]")  # white space in C, as TREC's own programs read it
_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")

# Names of a field in BEIR, on the hub (MS MARCO, PyLate, mMARCO) and in the files of other trainers; the first counts.
QUERY_IDS = ("_id", "id", "query_id", "query-id", "qid")
QUERY_TEXTS = ("text", "query", "question")
PASSAGE_IDS = ("_id", "id", "document_id", "passage_id", "corpus-id", "doc_id", "docid", "pid")
PASSAGE_TEXTS = ("text", "document", "passage", "contents")
SCORES = ("score", "label", "relevance", "grade")
# In a file about both queries and passages, "id" would be neither's.
_OF_QUERY, _OF_PASSAGE = (tuple(n for n in names if n not in ("_id", "id")) for names in (QUERY_IDS, PASSAGE_IDS))


class Corpus:
    """The passages of a corpus whose title or text is not empty; iterate over it as often as needed.

    Iterating yields (place, record) pairs as a `Source` does. A record has the fields ``_id`` (or ``id``), ``title``
    and ``text`` only. A title without a text becomes the text, which is encoded as the same.

    Args:
        path: the file, of any kind that `Source` reads.
        records: makes the (place, record) pairs, where the file has other names for the fields; None reads ``path``.
        among: ids of the only passages that count; None takes all.

    Attributes:
        path: the file.
        empty: ids of the passages whose title and text are empty; known after the first iteration.

    Raises:
        SourceError: while iterating, for a record that cannot be parsed; names the place.
    """

    def __init__(
        self,
        path: Path,
        records: Callable[[], Iterable[tuple[str, dict[str, Any]]]] | None = None,
        among: Container[str] | None = None,
    ) -> None:
        self.path = path
        self.empty: set[str] = set()
        self._records = records or partial(read_records, path)
        self._among = among

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (place, record) pairs in order."""
        for place, record in self._records():
            fields = {name: record[name] for name in ("_id", "id", "title", "text") if name in record}
            doc_id, title, text = fields.get("_id", fields.get("id")), fields.get("title"), fields.get("text")
            if self._among is not None and str(doc_id) not in self._among:
                continue
            if doc_id is not None and isinstance(text, str) and not text.strip():
                if title is None or not str(title).strip():
                    self.empty.add(str(doc_id))
                    continue
                fields |= {"text": title, "title": ""}
            yield place, fields

    def only(self, ids: Container[str]) -> Corpus:
        """The passages of this corpus that have one of some ids."""
        return Corpus(self.path, self._records, ids)


def beir_file(folder: Path, stem: str) -> Path:
    """The file "corpus" or "queries" of a BEIR folder: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.

    Raises:
        SourceError: there is no such folder, or no such file in it.
    """
    for suffix in _SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.exists():
            return path
    problem = f"no {stem}.jsonl in it" if folder.is_dir() else "no such folder"
    raise SourceError(
        f"{folder}: {problem}; a BEIR folder has corpus.jsonl, queries.jsonl (also .jsonl.gz, .jsonl.zst or .parquet) "
        "and qrels/SPLIT.tsv"
    )


def qrels_file(folder: Path, split: str) -> Path:
    """The judgements of one split of a BEIR folder.

    Raises:
        SourceError: the folder has no such split; names those it has.
    """
    path = folder / "qrels" / f"{split}.tsv"
    if not path.exists():
        there = ", ".join(sorted(other.stem for other in path.parent.glob("*.tsv"))) or "none"
        raise SourceError(f"{path}: no such file; the splits in this folder: {there}")
    return path


def read_records(path: str | Path, **options: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and content of each record of a file that `Source` reads.

    Args:
        path: the file.
        **options: options of `Source`.

    Raises:
        SourceError: a record cannot be parsed; names the place.
    """
    for place, record in Source(path, **options):
        if isinstance(record, BadRecord):
            raise SourceError(f"{place}: {record.reason}")
        yield place, record


def read_queries(paths: str | Path | Iterable[str | Path]) -> dict[str, str]:
    """Query id → text, without white space at either end, from one file or several.

    Args:
        paths: files with the fields ``_id`` and ``text``, or what `QUERY_IDS` and `QUERY_TEXTS` call them: JSONL or any
            other kind that `Source` reads. A TSV file may also have no header and two fields: id and text.

    Raises:
        SourceError: a field is missing, a text is empty, or an id occurs twice; names the place.
    """
    return _read_texts(paths, passages=False)


def read_query_lines(path: Path) -> dict[str, str]:
    """Number of the line → text of a query, from a file with a query in each line; empty lines are left out.

    Raises:
        SourceError: the file cannot be read.
    """
    return {str(number): line.strip() for _, number, line in _lines(path) if line.strip()}


def read_passages(paths: str | Path | Iterable[str | Path]) -> dict[str, str]:
    """Passage id → "title text", from one file or several.

    Args:
        paths: files as those of `read_queries`, with the names of `PASSAGE_IDS` and `PASSAGE_TEXTS`; the field
            ``title``, the third one in a TSV file without a header, may be missing or empty.

    Raises:
        SourceError: as `read_queries`.
    """
    return _read_texts(paths, passages=True)


def read_qrels(path: str | Path) -> Qrels:
    """Judgements from a BEIR file (query-id, corpus-id, score) or a TREC one (query, 0, document, grade).

    Args:
        path: the file, of lines, perhaps compressed by gzip or Zstandard; or JSONL, JSON, CSV or Parquet with these
            names.

    Raises:
        SourceError: a line has another number of fields or a grade that is not an integer, or there are no judgements.
    """
    qrels: Qrels = {}
    for place, number, (query_id, doc_id, grade) in _judgements(Path(path)):
        try:
            value = int(grade)
        except ValueError:
            if number == 1:  # a header
                continue
            raise SourceError(f"{place}: the grade {grade!r} is not an integer") from None
        qrels.setdefault(query_id, {})[doc_id] = value
    if not qrels:
        raise SourceError(f"{path}: no judgements here")
    return qrels


def read_scores(path: str | Path) -> Iterator[tuple[str, str, str, float]]:
    """Place, query id, passage id and score of each line of a file of scores.

    Args:
        path: a TREC run; or three fields (query, passage, score), in a file as those of `read_qrels`.

    Raises:
        SourceError: a line has another number of fields, or a score that is not a number.
    """
    for place, number, (query_id, doc_id, score) in _judgements(Path(path), runs=True):
        try:
            yield place, query_id, doc_id, float(score)
        except ValueError:
            if number > 1:  # not a header
                raise SourceError(f"{place}: the score {score!r} is not a number") from None


def _judgements(path: Path, *, runs: bool = False) -> Iterator[tuple[str, int, tuple[str, str, str]]]:
    """Place, line, and query, document and grade."""
    if _RECORDS.search(path.name):
        for number, (place, record) in enumerate(read_records(path), start=2):
            found = tuple(field_of(record, names) for names in (_OF_QUERY, _OF_PASSAGE, SCORES))
            if None in found:
                raise SourceError(
                    f"{place}: expected the fields 'query-id', 'corpus-id' and 'score', found {_names(record)}"
                )
            yield place, number, (id_of(found[0]), id_of(found[1]), str(found[2]))
        return
    for place, number, line in _lines(path):
        parts = line.split("\t") if "\t" in line else _fields(line)
        if runs and len(parts) == 6:
            yield place, number, (parts[0], parts[2], parts[4])
        elif len(parts) in ((3,) if runs else (3, 4)):
            yield place, number, (parts[0], parts[-2], parts[-1])
        elif runs:
            raise SourceError(f"{place}: expected 3 fields (query, passage, score) or 6 (TREC run), found {len(parts)}")
        else:
            raise SourceError(f"{place}: expected 3 fields (BEIR) or 4 (TREC), found {len(parts)}")


def judged_queries(queries: Mapping[str, str], qrels: Qrels) -> dict[str, str]:
    """Those of ``queries`` that have a judgement, in the order of the judgements.

    Raises:
        InputError: a judged query has no text.
    """
    missing = [query_id for query_id in qrels if query_id not in queries]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(qrels)} judged queries are not among the queries, such as {missing[0]!r}; "
            "give the queries that the judgements are for"
        )
    return {query_id: queries[query_id] for query_id in qrels}


def judged_documents(qrels: Qrels) -> list[str]:
    """The ids of all judged documents, each once, in the order of the judgements."""
    return list(dict.fromkeys(doc_id for grades in qrels.values() for doc_id in grades))


def check_missing(qrels: Qrels, missing: Collection[str], place: str, *, allow_missing: bool = False) -> str | None:
    """What is said of judged documents that are not where they are looked for; None if all are there.

    Args:
        qrels: the judgements.
        missing: ids of judged documents that are not there.
        place: where they should be, as the message calls it.
        allow_missing: whether most of the judged, or of the relevant, documents may be missing.

    Raises:
        InputError: most of them are missing, and that is not allowed.
    """
    if not missing:
        return None
    gone, judged = set(missing), judged_documents(qrels)
    relevant = {doc_id for grades in qrels.values() for doc_id, grade in grades.items() if grade > 0}
    said = (
        f"{place}: {len(gone):,} of {len(judged):,} judged documents ({len(gone & relevant):,} of {len(relevant):,} "
        f"relevant ones) are not here and cannot be found, such as {next(iter(missing))!r}"
    )
    if not allow_missing and (2 * len(gone) > len(judged) or 2 * len(gone & relevant) > len(relevant)):
        raise InputError(
            f"{said}; give the documents that the judgements are for, or allow it (--allow-missing, allow_missing=True)"
        )
    return said


def read_run(path: str | Path) -> Run:
    """A run from a TREC file (query, Q0, document, rank, score, tag), the documents of a query best first.

    Raises:
        SourceError: a line has another number of fields, or a score that is not a finite number.
    """
    run: Run = {}
    for place, _, line in _lines(Path(path)):
        parts = _fields(line)
        if len(parts) != 6:
            raise SourceError(f"{place}: expected 6 fields of a TREC run, found {len(parts)}")
        query_id, _, doc_id, _, score, _ = parts
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise SourceError(f"{place}: the score {score!r} is not a finite number")
        run.setdefault(query_id, {})[doc_id] = value
    return {
        query_id: dict(sorted(scores.items(), key=lambda item: item[1], reverse=True))
        for query_id, scores in run.items()
    }


def trec_lines(run: Run, tag: str = "tansaku") -> Iterable[str]:
    """``run`` in TREC's format, one line for each document.

    Raises:
        InputError: an id has a space, a tab or a line break, which divide fields and lines there.
    """
    for query_id, scores in run.items():
        for rank, (doc_id, score) in enumerate(scores.items(), start=1):
            for kind, name in (("query", query_id), ("document", doc_id)):
                if _DIVIDES.search(name):
                    raise InputError(
                        f"the id of {kind} {name!r} has a space, a tab or a line break, which a TREC run cannot hold; "
                        "leave out --run, or index the documents under other ids"
                    )
            yield f"{query_id} Q0 {doc_id} {rank} {score:.6f} {tag}"


def texts_in(paths: str | Path | Iterable[str | Path], *, passages: bool) -> Iterator[tuple[str, str, str]]:
    """Place, id and text of each record, without white space at either end; the text may be empty.

    Args:
        paths: one file or several, as `read_queries` and `read_passages` take them.
        passages: whether they are passages, whose title comes before the text; otherwise queries.

    Raises:
        SourceError: a file cannot be read, or a field is missing; names the place.
    """
    ids, texts = (PASSAGE_IDS, PASSAGE_TEXTS) if passages else (QUERY_IDS, QUERY_TEXTS)
    for path in [paths] if isinstance(paths, str | Path) else paths:
        for place, record in read_records(path, fields=_fields_without_header(Path(path), ids, texts, passages)):
            text_id, text = field_of(record, ids), field_of(record, texts)
            if text_id is None or not isinstance(text, str):
                raise SourceError(
                    f"{place}: expected the fields '_id' (or {', '.join(map(repr, ids[1:]))}) and 'text' (or "
                    f"{', '.join(map(repr, texts[1:]))}), found {_names(record)}"
                )
            yield place, id_of(text_id), (f"{record.get('title') or ''} {text}" if passages else text).strip()


def field_of(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The value of the first of some fields that a record has; None if it has none of them."""
    return next((record[name] for name in names if record.get(name) is not None), None)


def id_of(value: Any) -> str:
    """An id as text, without a byte order mark, which files that are put together have before their first id."""
    return str(value).removeprefix(BOM)


def _read_texts(paths: str | Path | Iterable[str | Path], *, passages: bool) -> dict[str, str]:
    texts: dict[str, str] = {}
    for place, text_id, text in texts_in(paths, passages=passages):
        if not text:
            raise SourceError(f"{place}: the text of {text_id!r} is empty; leave it out")
        if text_id in texts:
            raise SourceError(f"{place}: the id {text_id!r} occurs twice")
        texts[text_id] = text
    return texts


def _fields_without_header(
    path: Path, ids: Collection[str], texts: Collection[str], passages: bool
) -> tuple[str, ...] | None:
    """Names of the fields of a TSV file as MS MARCO has it: id and text, perhaps a title, also in the first line.

    None if it has a header, or is not TSV.
    """
    if not _TSV.search(path.name):
        return None
    place, first = next(((place, line.split("\t")) for place, _, line in _lines(path)), ("", list(ids)[:1]))
    if (set(first) & set(ids) and set(first) & set(texts)) or not place:
        return None
    if len(first) != 2 and not (passages and len(first) == 3):
        raise SourceError(
            f"{place}: expected an id and a text{', perhaps a title,' if passages else ''} with a tab between them, "
            f"found {len(first)} fields; or name the fields in a first line"
        )
    return ("_id", "text", "title")[: len(first)]


def _names(record: Mapping[str, Any]) -> str:
    return ", ".join(map(str, record)) or "none"


def _fields(line: str) -> list[str]:
    """The fields of a line of TREC's, between spaces and tabs; ids may hold other white space, such as U+3000."""
    return [field for field in _DIVIDES.split(line) if field]


def _lines(path: Path) -> Iterator[tuple[str, int, str]]:
    """Place, number and text of each line that is not blank."""
    for number, line in lines_of(path):
        if line.strip():
            yield f"{path}:{number}", number, line
