"""The hits of several shards as those of one index. Scores are comparable: all shards have one codec and one model."""

from __future__ import annotations

from collections.abc import Sequence

from ..search.results import Hit
from .server import FoundInShard


def best_hits(found: Sequence[FoundInShard], k: int, *, passages: bool) -> list[Hit]:
    """The ``k`` best hits of all shards, in the order of one index.

    A document whose passages lie in several shards is one hit, with its best passage. Each shard's list has the ``k``
    best of its own, so no hit is missed: whatever is above it in its shard is above it in the whole.

    Args:
        found: what each shard found.
        k: number of hits.
        passages: whether passages are hits of their own.
    """
    every = [
        (-hit.score, row_id, document, hit)
        for shard in found
        for hit, document, row_id in zip(shard.hits, shard.documents, shard.row_ids, strict=True)
    ]
    every.sort(key=lambda one: one[:2])
    best: dict[object, Hit] = {}
    for _, row_id, document, hit in every:
        best.setdefault(row_id if passages else document, hit)
        if len(best) == k:
            break
    return list(best.values())


def missing_everywhere(found: Sequence[FoundInShard]) -> tuple[str, ...]:
    """The ids that no shard has, in the order in which they were asked for."""
    first, *others = found
    lacking = [set(shard.missing) for shard in others]
    return tuple(doc_id for doc_id in first.missing if all(doc_id in of_one for of_one in lacking))


def expected_recall(found: Sequence[FoundInShard], hits: Sequence[Hit]) -> float | None:
    """The expected share of the best that is among the hits: that of each shard, by its share of them.

    Args:
        found: what each shard found.
        hits: the hits.
    """
    recalls = [shard.recall for shard in found if shard.recall is not None]
    if len(recalls) < len(found):
        return None
    if all(shard.complete for shard in found):
        return 1.0
    ids = {hit.id for hit in hits}
    weights = [sum(hit.id in ids for hit in shard.hits) for shard in found]
    if not sum(weights):
        return min(recalls)
    return sum(weight * recall for weight, recall in zip(weights, recalls, strict=True)) / sum(weights)
