"""Distillation data: groups of passages with a teacher's scores, as `tansaku mine` and other trainers write them.

Ours is one line of JSONL, as in the code of JaColBERTv2.5 and ColBERTv2: `[query id, [passage id, score], …]`, the
relevant passage first. `raw_groups` says which other forms are read.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...indexer.errors import SourceError
from ...indexer.read.line_formats import ITEMS
from ...indexer.read.sources import lines_of
from ...onnx_export.files import write_atomically
from ...plugin.evaluation.judgements import field_of, id_of, read_records
from ..errors import TrainingDataError

_QUERY_IDS, _QUERY_TEXTS = ("query_id", "query-id", "qid"), ("query", "anchor", "question")
_LISTS = ("document_ids", "passage_ids", "doc_ids", "pids")
_POSITIVES = ("positive", "positives", "pos", "positive_id", "pos_id", "pid+")
_NEGATIVE = re.compile(r"^neg(?:s|atives?)?(_ids?)?(_?\d+)?$")
_SCORES = ("scores", "score", "labels", "label")
_TSV = re.compile(r"\.tsv(\.(gz|zst))?$", re.IGNORECASE)
_EXPECTED = (
    "expected [query id, [passage id, score], …]; or the fields query_id, document_ids and scores; or query, positive "
    "and negative"
)


@dataclass(frozen=True)
class Group:
    """A query and n passages.

    Attributes:
        query: id of the query.
        passages: ids of the passages, the relevant one first.
        scores: scores by the teacher, float32 (n,).
    """

    query: str
    passages: tuple[str, ...]
    scores: np.ndarray


@dataclass(frozen=True)
class RawGroup:
    """A group as a file has it.

    Attributes:
        place: file and line.
        query: id of the query.
        passages: ids of the passages.
        scores: their scores; None if they are in a file of their own.
        texts: id → text of query and passages, where the file has these instead of ids; the ids are made of the texts.
    """

    place: str
    query: str
    passages: tuple[str, ...]
    scores: tuple[float, ...] | None
    texts: tuple[dict[str, str], dict[str, str]] | None = None


def raw_groups(paths: Iterable[str | Path]) -> Iterator[RawGroup]:
    """The groups of files, in several forms.

    - lines or an array of `[query id, [passage id, score], …]`, or `[query id, passage id, …]` without scores;
    - records with `query_id`, `document_ids` and `scores`, as PyLate's data for distillation have;
    - triples of ids: records with `query_id`, `positive` and `negative` (also `negative_1`, …), or TSV without header;
    - triples of texts: records with `query` (or `anchor`), `positive` and `negative`, as sentence-transformers' and
      FlagEmbedding's data have, also lists of these. They may have `scores`.

    Triples without scores score 1 for the positive passage and 0 for the others.

    Args:
        paths: files of lines, or of any other kind that `Source` reads.

    Raises:
        TrainingDataError: a record has another form; names the file and the line.
        SourceError: a file cannot be read.
    """
    for path in map(Path, paths):
        try:
            for place, record in read_records(path, arrays=True, fields=_fields_without_header(path)):
                yield _parsed(place, record)
        except SourceError as error:
            raise TrainingDataError(str(error)) from error


def write_groups(path: str | Path, groups: Iterable[Group]) -> int:
    """Write groups as JSONL.

    Returns:
        The number of groups.
    """
    lines = [as_line(group) for group in groups]
    write_atomically(Path(path), "".join(lines))
    return len(lines)


def as_line(group: Group) -> str:
    """A group as a line of JSONL."""
    pairs = [[p, round(float(s), 6)] for p, s in zip(group.passages, group.scores, strict=True)]
    return json.dumps([group.query, *pairs], ensure_ascii=False) + "\n"


def normalized(scores: np.ndarray) -> np.ndarray:
    """Scores scaled to [0, 1], (s - min) / (max - min): float32 of the same shape; all 0 if they are all the same."""
    spread = float(scores.max() - scores.min())
    return ((scores - scores.min()) / (spread if math.isfinite(spread) and spread > 0 else 1.0)).astype(np.float32)


def _parsed(place: str, record: Mapping[str, Any]) -> RawGroup:
    try:
        return _of_items(place, record[ITEMS]) if isinstance(record.get(ITEMS), list) else _of_fields(place, record)
    except (TypeError, ValueError, KeyError, SyntaxError) as error:
        raise TrainingDataError(f"{place}: {_EXPECTED} ({error})") from error


def _of_items(place: str, items: list[Any]) -> RawGroup:
    query, *rest = items
    if rest and not any(isinstance(item, list) for item in rest):
        return RawGroup(place, id_of(query), tuple(map(id_of, rest)), None)
    if not all(isinstance(item, list) for item in rest):
        raise TypeError("some passages have scores and some have none")
    ids, scores = zip(*((id_of(passage), float(score)) for passage, score in rest), strict=True)
    return RawGroup(place, id_of(query), ids, scores)


def _of_fields(place: str, record: Mapping[str, Any]) -> RawGroup:
    query, given = field_of(record, _QUERY_IDS), field_of(record, _SCORES)
    scores = None if given is None else tuple(map(float, _listed(given)))
    if (listed := field_of(record, _LISTS)) is not None and query is not None:
        return _checked(RawGroup(place, id_of(query), tuple(map(id_of, _listed(listed))), scores))
    positives = _listed(field_of(record, _POSITIVES))
    negatives = [item for name in record if _NEGATIVE.match(name) for item in _listed(record[name])]
    if not positives or not negatives:
        raise ValueError(f"found the fields {', '.join(map(str, record)) or 'none'}")
    if scores is None and "pos_scores" in record and "neg_scores" in record:
        scores = tuple(map(float, [*_listed(record["pos_scores"]), *_listed(record["neg_scores"])]))
    if scores is None:
        scores = (1.0,) * len(positives) + (0.0,) * len(negatives)
    if query is not None:
        return _checked(RawGroup(place, id_of(query), tuple(map(id_of, [*positives, *negatives])), scores))
    asked, found = str(field_of(record, _QUERY_TEXTS) or "").strip(), [str(t).strip() for t in [*positives, *negatives]]
    passages = [_id_of_text(text) for text in found]
    texts = {_id_of_text(asked): asked}, dict(zip(passages, found, strict=True))
    return _checked(RawGroup(place, _id_of_text(asked), tuple(passages), scores, texts))


def _checked(group: RawGroup) -> RawGroup:
    if group.scores is not None and len(group.scores) != len(group.passages):
        raise ValueError(f"{len(group.passages)} passages and {len(group.scores)} scores")
    return group


def _listed(value: Any) -> list[Any]:
    """A field that holds one thing or several, or a list as text, as CSV and some data sets have it."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        value = ast.literal_eval(value)
    return value if isinstance(value, list) else [] if value is None else [value]


def _id_of_text(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()


def _fields_without_header(path: Path) -> tuple[str, ...] | None:
    """Names of the fields of a TSV file of triples without a header; None if it has one, or is not TSV."""
    if not _TSV.search(path.name):
        return None
    first = next((line.split("\t") for _, line in lines_of(path) if line.strip()), [])
    if not first or set(first) & {*_QUERY_IDS, *_QUERY_TEXTS}:
        return None
    return ("query_id", "positive", *(f"negative_{number}" for number in range(1, len(first) - 1)))
