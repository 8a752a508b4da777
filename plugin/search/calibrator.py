"""Measures what share of exact MaxSim's best a search finds in an index, and keeps its promises.

The queries are stored documents, cut to about as many tokens as a query has, or the user's own. For each query the ten
best rows are found twice: by a search that misses next to nothing, and by each step of the ladder (`calibration`). A
step's recall is the share of the former that it finds, less what chance may have added.

The result lies next to the derived arrays, so that the next process need not measure again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...indexer.plain_files import read_plain
from ...onnx_export.cores import usable_cores
from ...onnx_export.errors import InputError
from ...onnx_export.files import write_atomically
from .calibration import LEVELS, PROMISED, Calibration, Fitted, ladder, plan_of
from .filters import Allowed
from .pipeline import rank_rows
from .plan import LEVELS_BY_NAME, MEASURED_HITS, SearchOptions
from .results import RankedRows, Stopwatch
from .stored_codes import StoredCodes

FILE = "calibration.json"

_logger = logging.getLogger(__name__)

_QUERIES = 64
_QUERY_TOKENS = 24
_SEED = 28
# The truth is the exhaustive ranking of indexes of up to so many tokens, which takes seconds. In a larger one it is
# that of a search at this level for so many rows that the ten best are scored in float32 and nothing stops early for
# them. Of the ten best of 69,720 passages for each of 100 questions, this missed none.
_EXHAUSTIVE_UP_TO = 1 << 20
_WIDE, _WIDE_HITS = 5.0, 100
_DEVIATIONS = 1.64  # by which a share is lowered: 19 times in 20 it is then less than the true one

# A query, float32 (tokens, dim), and the row that it was made of, which any search would find.
_Query = tuple[np.ndarray, int | None]


def measure(codes: StoredCodes, queries: Sequence[np.ndarray] = ()) -> Calibration:
    """Measure the recall of each step.

    The truth for each query is the exhaustive ranking in an index of up to a million tokens whose codes are in memory
    or mapped, otherwise the ranking by a search with many times the candidates of the last step, and hits.

    Memory: some bytes for each row of the index, in each thread.

    Args:
        codes: The index's codes.
        queries: The user's own queries, float32 (tokens, dim) each. Stored documents make up what they lack to 64.
    """
    asked: list[_Query] = [(query, None) for query in queries]
    asked += _documents_as_queries(codes, max(0, _QUERIES - len(asked)))
    in_memory = all(segment.residuals is not None for _, segment in codes.segments)
    exhaustive = in_memory and codes.n_tokens <= _EXHAUSTIVE_UP_TO
    _logger.info("%s: measuring what searches find, with %d queries", codes.index.place(), len(asked))

    def shares(query: _Query) -> list[float]:
        wide = _scores(codes, query, None if exhaustive else _WIDE, MEASURED_HITS if exhaustive else _WIDE_HITS)
        # By score: where others are as good as the last of the best, any of them will do.
        last = wide[:MEASURED_HITS][-1]
        return [float(np.mean(_scores(codes, query, level) >= last)) for level in LEVELS]

    with ThreadPoolExecutor(usable_cores()) as pool:
        found = np.mean(list(pool.map(shares, asked)), axis=0)
    recalls = [lower_bound(share, MEASURED_HITS * len(asked)) for share in found.tolist()]
    return Calibration(
        steps=tuple(replace(s, recall=r) for s, r in zip(ladder(codes, len(codes)), recalls, strict=True)),
        queries=len(asked),
        own_queries=len(queries),
        exhaustive=exhaustive,
        documents=len(codes),
        tokens=codes.n_tokens,
        fitted=Fitted.of(codes),
    )


def lower_bound(share: float, trials: int) -> float:
    """What a share is most likely at least: the lower end of Wilson's score interval, one-sided at 95%.

    Args:
        share: The share that was seen in a sample, 0 to 1.
        trials: Size of the sample.
    """
    z2 = _DEVIATIONS**2
    spread = _DEVIATIONS * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, (share + z2 / (2 * trials) - spread) / (1 + z2 / trials))


def _documents_as_queries(codes: StoredCodes, count: int) -> list[_Query]:
    """Documents drawn at random, of each some of its tokens, in their order."""
    random = np.random.default_rng(_SEED)
    made: list[_Query] = []
    for row in random.permutation(np.flatnonzero(codes.alive))[:count].tolist():
        vectors = codes.vectors(row)
        made.append((vectors[np.sort(random.permutation(len(vectors))[:_QUERY_TOKENS])], row))
    return made


def _scores(codes: StoredCodes, query: _Query, level: float | None, hits: int = MEASURED_HITS) -> np.ndarray:
    """The scores of the best rows that a search finds, best first."""
    vectors, own_row = query
    mask = codes.alive
    if own_row is not None:
        mask = mask.copy()
        mask[own_row] = False
    allowed = Allowed(mask, int(np.count_nonzero(mask)))
    options = replace(PROMISED, k=hits)
    ranked = rank_rows(codes, vectors, "", options, codes.phrase_weight, allowed, Stopwatch(), level)
    return ranked.scores


class Calibrator:
    """What is known of the recall of searches in one version of an index; measured when it is first needed.

    Several threads may use it: one measures, and the others wait.

    Args:
        codes: The codes of that version.
        folder: Folder of the derived arrays, where the result is kept; None keeps it in memory.
        before: That of an earlier version, whose result holds as long as it fits.

    Attributes:
        known: What was measured, or None.
    """

    def __init__(self, codes: StoredCodes, folder: Path | None, before: Calibrator | None = None) -> None:
        self._codes = codes
        self._folder = folder
        self._lock = threading.Lock() if before is None else before._lock
        self.known = self._stored()
        if self.known is None and before is not None and before.known is not None and before.known.fits(codes):
            self.known = before.known

    def settled(self, options: SearchOptions) -> tuple[SearchOptions, float | None]:
        """The options of a search with what a number as ``recall`` stands for, and the level for `make_plan`.

        Args:
            options: The options as they were given.

        Raises:
            InputError: A promise that this index cannot keep.
            StorageError: The database cannot be read.
        """
        recall = options.recall
        if isinstance(recall, str):
            return options, None
        if recall == 1 and self._codes.index.header.pool > 1:
            raise InputError(
                f"{self._codes.index.place()} has pooled vectors, whose MaxSim is not that of the documents: give "
                "recall 'exact' to score all of them, or a number below 1"
            )
        step = self._calibration().cheapest(recall) if recall < 1 and self._is_needed() else None
        return (replace(options, recall="exact"), None) if step is None else (options, step.level)

    def expected(self, options: SearchOptions, level: float | None, ranked: RankedRows) -> float | None:
        """What `Hits.recall` says.

        Args:
            options: The options of the search, from `settled`.
            level: The level, from `settled`.
            ranked: What was found.
        """
        if options.bm25_weight:  # the order is not that of MaxSim
            return None
        if ranked.complete:
            return 1.0
        if isinstance(options.recall, str):
            level = LEVELS_BY_NAME.get(options.recall)
        if options.nprobe is not None or options.candidates is not None or options.source != "lists":
            return None
        return None if level is None or self.known is None else self.known.at(level)

    def measure(self, queries: Sequence[np.ndarray] = ()) -> Calibration | None:
        """Measure now, with the user's queries if there are some; None where all rows are scored anyway."""
        if not self._is_needed():
            return None
        with self._lock:
            return self._measured(queries)

    def _calibration(self) -> Calibration:
        known = self.known
        if known is not None:
            return known
        with self._lock:
            self.known = self.known or self._stored()
            return self.known or self._measured(())

    def _is_needed(self) -> bool:
        every = plan_of(self._codes, LEVELS[0]).score_all_up_to
        return every is not None and len(self._codes) > every

    def _measured(self, queries: Sequence[np.ndarray]) -> Calibration:
        self.known = measure(self._codes, queries)
        if self._folder is not None:
            with contextlib.suppress(OSError):  # read-only, or full
                write_atomically(self._folder / FILE, self.known.as_json())
        return self.known

    def _stored(self) -> Calibration | None:
        """What was kept, if it can be used and still fits."""
        if self._folder is None:
            return None
        try:
            stored = Calibration.from_json(read_plain(self._folder / FILE))
        except (OSError, ValueError, RecursionError):
            return None
        return stored if stored.fits(self._codes) else None
