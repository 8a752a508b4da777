"""The miner: queries and the candidates that engines found for them become groups with scores by teachers.

Every group has a relevant passage, or else the one that the teachers score highest, and hard negatives: passages that
engines rank high. Groups are written one by one, so that an interrupted run can be continued behind the last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...indexer.errors import ResumeError
from ...onnx_export.errors import InputError
from ...onnx_export.files import finished_lines, write_atomically
from ...onnx_export.progress import Progress, no_progress
from ..errors import TrainingDataError
from .groups import Group, as_line
from .teachers import Teacher, ensemble
from .texts import TextStore

Candidates = Mapping[str, Sequence[str]]  # query id → passage ids, best first


@dataclass(frozen=True)
class MiningPlan:
    """What makes two runs of the miner give the same groups.

    Attributes:
        nway: number of passages of a group, 2 or more.
        depth: number of candidates of each engine that negatives are drawn from, 1 or more.
        skip: number of first candidates that are not drawn, 0 or more: they are often relevant without a judgement.
        seed: seed of the draw.

    Raises:
        InputError: a number out of range.
    """

    nway: int = 32
    depth: int = 100
    skip: int = 0
    seed: int = 12345

    def __post_init__(self) -> None:
        if self.nway < 2 or self.depth < 1 or self.skip < 0:
            raise InputError(f"{self}: nway must be 2 or more, depth 1 or more, and skip 0 or more")


@dataclass(frozen=True)
class MiningReport:
    """The outcome of mining.

    Attributes:
        written: number of groups in the file, with those of an interrupted run.
        too_few: ids of the queries with fewer candidates than a group needs.
        constant: ids of the queries whose passages all got the same score.
    """

    written: int
    too_few: tuple[str, ...]
    constant: tuple[str, ...]


def mine(
    out: str | Path,
    queries: Mapping[str, str],
    collection: Mapping[str, str],
    candidates: Sequence[Candidates],
    teachers: Sequence[Teacher],
    *,
    weights: Sequence[float] | None = None,
    positives: Mapping[str, Sequence[str]] | None = None,
    plan: MiningPlan | None = None,
    resume: bool = True,
    progress: Progress = no_progress,
) -> MiningReport:
    """Write groups for queries to a file.

    Args:
        out: JSONL file to write. ``out``.plan.json beside it records what the groups were made of.
        queries: query id → text.
        collection: passage id → text.
        candidates: for each engine, query id → ids of the passages it found, best first.
        teachers: teachers; the mean of their scores counts, each scaled to [0, 1] over a group.
        weights: weight of each teacher in that mean; None gives all the same.
        positives: query id → ids of relevant passages; each has a group, which it is the first passage of. The group of
            a query without any begins with the passage that the teachers score highest.
        plan: numbers of passages and candidates; None takes the defaults of `MiningPlan`.
        resume: continue the file of an interrupted run. False discards it and starts over.
        progress: called with the stage "mine" after each query.

    Returns:
        The number of groups, and the queries without any.

    Raises:
        ResumeError: ``out`` was made of other data or with other options, or was not made by this function.
        TrainingDataError: a candidate or a relevant passage is not in the collection.
        InputError: a teacher gave no number for a passage.
    """
    plan = plan or MiningPlan()
    weights = [1.0] * len(teachers) if weights is None else weights
    positives = positives or {}
    _check(collection, candidates, positives)
    path = Path(out)
    done = _begin(path, _digest(queries, candidates, positives, plan, weights, teachers), resume=resume)
    written, too_few, constant = len(done), [], []
    finished = {group[0] for group in done}
    with path.open("a", encoding="utf-8") as file:
        for number, (query_id, text) in enumerate(queries.items(), start=1):
            if query_id not in finished:
                lines = []
                for ids in _chosen(query_id, candidates, positives.get(query_id, ()), plan):
                    if len(ids) < plan.nway:
                        too_few.append(query_id)
                        continue
                    scores = ensemble(teachers, weights, text, {doc_id: collection[doc_id] for doc_id in ids})
                    if scores.min() == scores.max():
                        constant.append(query_id)
                        continue
                    if query_id not in positives:
                        order = np.argsort(-scores, kind="stable")
                        ids, scores = [ids[i] for i in order], scores[order]
                    lines.append(as_line(Group(query_id, tuple(ids), scores)))
                # All groups of a query at once: only groups of this query can then be cut off by a kill.
                file.write("".join(lines))
                file.flush()
                written += len(lines)
            progress("mine", number, len(queries), 0)
    return MiningReport(written, tuple(too_few), tuple(constant))


def _chosen(
    query_id: str, candidates: Sequence[Candidates], positives: Sequence[str], plan: MiningPlan
) -> list[list[str]]:
    """The passages of each group of a query: a positive first if there is one, then negatives in random order."""
    pools = [list(ranked.get(query_id, ()))[plan.skip : plan.depth] for ranked in candidates]
    relevant = set(positives)
    pool = list(dict.fromkeys(doc_id for found in pools for doc_id in found if doc_id not in relevant))
    seed = int.from_bytes(hashlib.sha256(f"{plan.seed} {query_id}".encode()).digest()[:8], "little")
    random = np.random.default_rng(seed)
    groups = []
    for first in [[positive] for positive in positives] or [[]]:
        size = min(plan.nway - len(first), len(pool))
        groups.append([*first, *(pool[i] for i in random.choice(len(pool), size, replace=False).tolist())])
    return groups


def _check(
    collection: Mapping[str, str], candidates: Sequence[Candidates], positives: Mapping[str, Sequence[str]]
) -> None:
    for ranked in [*candidates, positives]:
        for query_id, found in ranked.items():
            if isinstance(collection, TextStore):  # a single look-up takes it longer than many
                unknown = [
                    doc_id for doc_id, row in zip(found, collection.find(found).tolist(), strict=True) if row < 0
                ]
            else:
                unknown = [doc_id for doc_id in found if doc_id not in collection]
            if unknown:
                raise TrainingDataError(f"query {query_id!r}: the passage {unknown[0]!r} is not in the collection")


def _begin(path: Path, digest: dict[str, object], *, resume: bool) -> list[list]:
    """The groups that an interrupted run has left in ``path``, whose last line may be incomplete."""
    beside = path.with_name(f"{path.name}.plan.json")
    remedy = "name another file, or start over (--no-resume, resume=False)"
    if not resume or not path.exists() or not path.stat().st_size:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "")
        write_atomically(beside, json.dumps(digest))
        return []
    if not beside.exists():
        raise ResumeError(f"{path}: there is no {beside.name} beside it, so it cannot be continued; {remedy}")
    before = json.loads(beside.read_text(encoding="utf-8"))
    changed = [key for key in digest if before.get(key) != digest[key]]
    if changed:
        raise ResumeError(f"{path}: was made with other {', '.join(changed)}; {remedy}")
    whole = finished_lines(path)
    groups = [json.loads(line) for line in whole]
    last = groups[-1][0] if groups else None
    # The last query may have more groups than were written.
    kept = [line for line, group in zip(whole, groups, strict=True) if group[0] != last]
    write_atomically(path, "".join(f"{line}\n" for line in kept))
    return [group for group in groups if group[0] != last]


def _digest(
    queries: Mapping[str, str],
    candidates: Sequence[Candidates],
    positives: Mapping[str, Sequence[str]],
    plan: MiningPlan,
    weights: Sequence[float],
    teachers: Iterable[Teacher],
) -> dict[str, object]:
    def of(*contents: Mapping[str, str | Sequence[str]]) -> str:
        digest = hashlib.sha256()
        for content in contents:
            for query_id, value in content.items():
                digest.update(json.dumps([query_id, value if isinstance(value, str) else list(value)]).encode())
            digest.update(b"\n")
        return digest.hexdigest()[:16]

    return {
        "plan": asdict(plan),
        "queries": of(queries),
        "candidates": of(*candidates),
        "positives": of(positives),
        "teachers": [
            [getattr(teacher, "name", type(teacher).__name__), weight]
            for teacher, weight in zip(teachers, weights, strict=True)
        ],
    }
