"""The data of a training as it is trained on: files of numbers and texts, mapped into memory.

They are made once, in the folder that the training writes to, and opened by every process and by later runs. A step
reads the groups and texts of its batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...onnx_export.files import atomic_folder
from ...plugin.evaluation.judgements import read_scores, texts_in
from ..config import DataConfig
from ..errors import TrainingDataError
from .groups import RawGroup, raw_groups
from .left_out import LeftOut
from .texts import TextStore, keys_of, write_texts

_MADE_OF = "made_of.json"
_VERSION = 1  # of the files
_GROUPS_TOGETHER = 2_048  # looked up


@dataclass(frozen=True)
class PreparedData:
    """Groups, queries and passages; make one with `prepare`, or open what it has made with `PreparedData.open`.

    Attributes:
        queries: query id → text.
        passages: passage id → text.
        query_rows: row of each group's query, int32 (groups,).
        passage_rows: rows of each group's passages, the relevant one first: int32 (groups, nway).
        scores: their scores, float32 (groups, nway).
        digest: hash of all of it.
    """

    queries: TextStore
    passages: TextStore
    query_rows: np.ndarray
    passage_rows: np.ndarray
    scores: np.ndarray
    digest: str

    @classmethod
    def open(cls, folder: Path) -> PreparedData:
        """Open what `prepare` has made."""
        made_of = json.loads((folder / _MADE_OF).read_text(encoding="utf-8"))
        count, nway = made_of["groups"], made_of["of"]["nway"]

        def mapped(name: str, kind: type, *shape: int) -> np.ndarray:
            return np.memmap(folder / name, kind, "r", shape=(count, *shape))

        return cls(
            TextStore(folder, "queries"),
            TextStore(folder, "collection"),
            mapped("groups.queries", np.int32),
            mapped("groups.passages", np.int32, nway),
            mapped("groups.scores", np.float32, nway),
            made_of["digest"],
        )

    def __len__(self) -> int:
        return len(self.query_rows)


def prepare(config: DataConfig, folder: Path, note: Callable[[str], None] = print) -> PreparedData:
    """Make the files of the data, unless they are there and were made of the same files.

    Args:
        config: the section [data].
        folder: folder of the files.
        note: called with what was left out.

    Raises:
        SourceError: a file of queries or passages cannot be read.
        TrainingDataError: the groups cannot be trained on, or too much would be left out.
        OSError: a file cannot be written.
    """
    of = {
        "version": _VERSION,
        "nway": config.nway,
        "max_left_out": config.max_left_out,
        **{
            name: [stamp for path in getattr(config, name) for stamp in _stamps(Path(path))]
            for name in ("groups", "queries", "collection", "scores")
        },
    }
    path = folder / _MADE_OF
    if path.exists():
        made_of = json.loads(path.read_text(encoding="utf-8"))
        if made_of.get("of") == of:
            for said in made_of["left_out"]:
                note(said)
            return PreparedData.open(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as making:
        _make(config, making, of)
    for said in json.loads(path.read_text(encoding="utf-8"))["left_out"]:
        note(said)
    return PreparedData.open(folder)


def _make(config: DataConfig, folder: Path, of: dict[str, Any]) -> None:
    left_out = [LeftOut("queries"), LeftOut("passages"), LeftOut("groups")]
    digest = hashlib.blake2b(digest_size=8)

    def hashed(records: Iterator[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
        for place, text_id, text in records:
            digest.update(f"{text_id}\0{text}\0".encode("utf-8", "replace"))
            yield place, text_id, text

    stores = []
    for number, name in enumerate(("queries", "collection")):
        paths = getattr(config, name)
        records = texts_in(paths, passages=name == "collection") if paths else _texts_of_groups(config.groups, number)
        stores.append(write_texts(folder, name, hashed(records), left_out[number] if paths else None))
        left_out[number].check(config.max_left_out)
    scores = _Scores(config.scores) if config.scores else None
    count = 0
    with (
        (folder / "groups.queries").open("wb") as queries,
        (folder / "groups.passages").open("wb") as passages,
        (folder / "groups.scores").open("wb") as scored,
    ):
        for query, rows, values in _numbered(config, stores[0], stores[1], scores, left_out[2]):
            parts = np.int32(query).tobytes(), rows.astype(np.int32).tobytes(), values.tobytes()
            for file, part in zip((queries, passages, scored), parts, strict=True):
                file.write(part)
                digest.update(part)
            count += 1
    left_out[2].check(config.max_left_out)
    if not count:
        raise TrainingDataError(f"{', '.join(config.groups)}: no groups here")
    made_of = {
        "of": of,
        "groups": count,
        "left_out": [str(one) for one in left_out if one.count],
        "digest": digest.hexdigest(),
    }
    (folder / _MADE_OF).write_text(json.dumps(made_of, ensure_ascii=False), encoding="utf-8")


def _texts_of_groups(paths: Sequence[str], which: int) -> Iterator[tuple[str, str, str]]:
    for group in raw_groups(paths):
        if group.texts is None:
            raise TrainingDataError(
                f"{group.place}: this group has ids, not texts; name the files of the texts (data.queries, "
                "data.collection)"
            )
        for text_id, text in group.texts[which].items():
            yield group.place, text_id, text


def _numbered(
    config: DataConfig, queries: TextStore, passages: TextStore, scores: _Scores | None, left_out: LeftOut
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Row of the query, rows of the first ``nway`` passages, and their scores, of each group that can be trained on."""
    groups = raw_groups(config.groups)
    while some := list(islice(groups, _GROUPS_TOGETHER)):
        left_out.total += len(some)
        asked = queries.find(group.query for group in some)
        found = passages.find(passage for group in some for passage in group.passages)
        given = scores.find(some) if scores else None
        end = 0
        for group, query in zip(some, asked.tolist(), strict=True):
            start, end = end, end + len(group.passages)
            values = given[start:end] if given is not None else group.scores
            if values is None:
                raise TrainingDataError(f"{group.place}: no scores; name the files that have them (data.scores)")
            rows = found[start:end]
            if query < 0 and group.query not in queries.empty:
                raise TrainingDataError(f"{group.place}: the query {group.query!r} is not among the queries")
            for place in np.flatnonzero(rows < 0):
                if group.passages[place] not in passages.empty:
                    raise TrainingDataError(
                        f"{group.place}: the passage {group.passages[place]!r} is not in the collection"
                    )
            chosen = _chosen(rows, config.nway)
            kept = np.array(values, np.float64)[chosen]
            with np.errstate(over="ignore"):
                kept = kept.astype(np.float32)
            if reason := _unusable(config.nway, query, kept):
                left_out.add(reason, group.place)
                continue
            yield query, rows[chosen], kept


def _chosen(rows: np.ndarray, nway: int) -> np.ndarray:
    """Places of the first ``nway`` different passages that have a text."""
    _, firsts = np.unique(rows, return_index=True)
    firsts = np.sort(firsts)
    return firsts[rows[firsts] >= 0][:nway]


def _unusable(nway: int, query: int, scores: np.ndarray) -> str:
    if query < 0:
        return "whose query has no text"
    if len(scores) < nway:
        return f"of fewer than {nway} different passages with text (data.nway)"
    if not np.isfinite(scores).all():
        return "with a score that is not finite"
    if scores.min() == scores.max():
        return "whose scores are all the same"
    return ""


class _Scores:
    """Scores of pairs of a query and a passage, from files of their own. Memory: 20 bytes for each.

    Args:
        paths: files, see `read_scores`; of several scores of a pair the first counts.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        keys, values = bytearray(), bytearray()
        for path in paths:
            for _, query, passage, score in read_scores(path):
                keys += keys_of([f"{query}\0{passage}"]).tobytes()
                values += np.float32(score).tobytes()
        unordered = np.frombuffer(keys, keys_of(["-"]).dtype)
        order = np.argsort(unordered, kind="stable")
        self._keys, self._values = unordered[order], np.frombuffer(values, np.float32)[order]

    def find(self, groups: Sequence[RawGroup]) -> np.ndarray:
        """The scores of all passages of some groups, one after the other: float32.

        Raises:
            TrainingDataError: one is missing; names the group.
        """
        pairs = [(group, passage) for group in groups for passage in group.passages]
        keys = keys_of(f"{group.query}\0{passage}" for group, passage in pairs)
        places = np.searchsorted(self._keys, keys)
        places[places == len(self._keys)] = 0
        is_there = self._keys[places] == keys if len(self._keys) else np.zeros(len(keys), bool)
        if not is_there.all():
            group, passage = pairs[int(np.argmin(is_there))]
            raise TrainingDataError(
                f"{group.place}: no score of the passage {passage!r} for the query {group.query!r} in data.scores"
            )
        return self._values[places]


def _stamps(path: Path) -> list[list[Any]]:
    """Path, size and time of the last change of a file, or of the files in a folder."""
    if not path.exists():
        return [[str(path), 0, 0]]
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
