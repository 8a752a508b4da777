"""The miner: queries and what engines found for them become groups with teachers' scores.

Every group has a passage that is known to be relevant, or else the teachers' best, and hard negatives: passages that
engines rank high. Groups are written one by one; an interrupted run goes on behind the last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...onnx_export.errors import InputError
from ..errors import TrainingDataError
from .groups import Group, as_line
from .teachers import Teacher, ensemble

Ranked = Mapping[str, Sequence[str]]  # query id → passage ids, best first


@dataclass(frozen=True)
class MiningPlan:
    """What makes two runs of the miner give the same groups.

    Attributes:
        nway: passages of a group.
        depth: candidates of each engine from which negatives are drawn.
        skip: the first so many are not drawn: they are often relevant without being known to be.
        seed: of the drawing.
    """

    nway: int = 32
    depth: int = 100
    skip: int = 0
    seed: int = 12345

    def __post_init__(self) -> None:
        if self.nway < 2 or self.depth < 1 or self.skip < 0:
            raise InputError(f"{self}: nway must be 2 or more, depth 1 or more, skip not below 0")


@dataclass(frozen=True)
class MiningReport:
    """What became of the queries.

    Attributes:
        written: groups, those of an earlier run too.
        too_few: ids of queries for which there were fewer candidates than a group needs.
        constant: ids of queries whose passages all got the same score.
    """

    written: int
    too_few: tuple[str, ...]
    constant: tuple[str, ...]


def mine(
    out: str | Path,
    queries: Mapping[str, str],
    collection: Mapping[str, str],
    candidates: Sequence[Ranked],
    teachers: Sequence[Teacher],
    *,
    weights: Sequence[float] | None = None,
    positives: Mapping[str, Sequence[str]] | None = None,
    plan: MiningPlan | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MiningReport:
    """Write groups for queries to the file ``out``, or go on with one that an interrupted run has left.

    Args:
        out: a JSONL file; beside it, ``out``.plan.json says what it was made of.
        queries: id → text.
        collection: id → text.
        candidates: of each engine, what it found.
        teachers: their scores, brought to [0, 1] over each group, are averaged.
        weights: of the teachers; None weighs all the same.
        positives: query id → ids of relevant passages, for each of which there is a group; None, or none for a query:
            the teachers' best candidate comes first.
        plan: how groups are made.
        progress: told how many queries are done, of how many.

    Raises InputError if ``out`` was made otherwise, TrainingDataError for an unknown passage.
    """
    plan = plan or MiningPlan()
    weights = [1.0] * len(teachers) if weights is None else weights
    positives = positives or {}
    _check(collection, candidates, positives)
    path = Path(out)
    done = _begin(path, _digest(queries, candidates, positives, plan, weights, teachers))
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
                # All groups of a query at once: what is cut off by a kill is then of this query alone.
                file.write("".join(lines))
                file.flush()
                written += len(lines)
            if progress:
                progress(number, len(queries))
    return MiningReport(written, tuple(too_few), tuple(constant))


def _chosen(query_id: str, candidates: Sequence[Ranked], positives: Sequence[str], plan: MiningPlan) -> list[list[str]]:
    """The passages of each group of a query: a positive first if there is one, then negatives in random order."""
    pools = [list(ranked.get(query_id, ()))[plan.skip : plan.depth] for ranked in candidates]
    pool = list(dict.fromkeys(doc_id for found in pools for doc_id in found if doc_id not in set(positives)))
    seed = int.from_bytes(hashlib.sha256(f"{plan.seed} {query_id}".encode()).digest()[:8], "little")
    random = np.random.default_rng(seed)
    groups = []
    for first in [[positive] for positive in positives] or [[]]:
        size = min(plan.nway - len(first), len(pool))
        groups.append([*first, *(pool[i] for i in random.choice(len(pool), size, replace=False).tolist())])
    return groups


def _check(collection: Mapping[str, str], candidates: Sequence[Ranked], positives: Mapping[str, Sequence[str]]) -> None:
    for ranked in [*candidates, positives]:
        for query_id, found in ranked.items():
            for doc_id in found:
                if doc_id not in collection:
                    raise TrainingDataError(f"query {query_id!r}: the passage {doc_id!r} is not in the collection")


def _begin(path: Path, digest: dict[str, object]) -> list[list]:
    """The groups that an interrupted run has left in ``path``, whose last line may be half."""
    beside = path.with_name(f"{path.name}.plan.json")
    if not path.exists() or not beside.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
        beside.write_text(json.dumps(digest), encoding="utf-8")
        return []
    before = json.loads(beside.read_text(encoding="utf-8"))
    changed = [key for key in digest if before.get(key) != digest[key]]
    if changed:
        raise InputError(f"{path}: was made of other {', '.join(changed)}; remove it or name another file")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    groups = [json.loads(line) for line in whole]
    last = groups[-1][0] if groups else None
    # The last query may have more groups than were written.
    kept = [line for line, group in zip(whole, groups, strict=True) if group[0] != last]
    path.write_text("".join(kept), encoding="utf-8")
    return [group for group in groups if group[0] != last]


def _digest(
    queries: Mapping[str, str],
    candidates: Sequence[Ranked],
    positives: Mapping[str, Sequence[str]],
    plan: MiningPlan,
    weights: Sequence[float],
    teachers: Iterable[Teacher],
) -> dict[str, object]:
    def of(content: object) -> str:
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]

    return {
        "plan": asdict(plan),
        "queries": of(dict(queries)),
        "candidates": of([{q: list(found) for q, found in ranked.items()} for ranked in candidates]),
        "positives": of({q: list(found) for q, found in positives.items()}),
        "teachers": [
            [getattr(teacher, "name", type(teacher).__name__), weight]
            for teacher, weight in zip(teachers, weights, strict=True)
        ],
    }
