"""The batches of the steps, tokenized by a thread while the step before is computed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import torch

from ...onnx_export.encode.tokenize import TokenizedText
from ..config import TrainingConfig
from ..data.prepared import PreparedData
from ..model.student import Student
from .order import batch_of_step
from .ranks import Ranks


@dataclass(frozen=True)
class Pass:
    """The groups that go through the model together: a share of a step's batch.

    Attributes:
        queries: one query for each group.
        passages: nway passages for each group, one group after the other.
        scores: the teacher's scores, float32 (groups, nway).
    """

    queries: list[TokenizedText]
    passages: list[TokenizedText]
    scores: torch.Tensor


class Batches:
    """What each step is trained on, as a function of the step alone. One step ahead is tokenized by a thread.

    Args:
        config: the configuration.
        data: the groups and their texts.
        student: the model, which tokenizes.
        ranks: the processes that share each batch.
    """

    def __init__(self, config: TrainingConfig, data: PreparedData, student: Student, ranks: Ranks) -> None:
        self._config, self._data, self._student, self._ranks = config, data, student, ranks
        self._thread = ThreadPoolExecutor(1, "tokenize")
        self._ahead: dict[int, Future[list[Pass]]] = {}

    def of_step(self, step: int, *, last: bool) -> list[Pass]:
        """The passes of a step; unless it is the last one, those of the next are begun."""
        ready = self._ahead.pop(step, None)
        passes = self._tokenized(step) if ready is None else ready.result()
        if not last:
            self._ahead[step + 1] = self._thread.submit(self._tokenized, step + 1)
        return passes

    def settle(self) -> None:
        """Wait until the thread does nothing: word segmenters cannot be used by two threads at once."""
        wait(self._ahead.values())

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _tokenized(self, step: int) -> list[Pass]:
        settings = self._config.optimizer
        numbers = batch_of_step(
            step,
            groups=len(self._data),
            batch_size=settings.batch_size,
            seed=self._config.run.seed,
            block=self._config.data.block,
            rank=self._ranks.number,
            ranks=self._ranks.count,
        )
        return [self._pass(part) for part in np.split(numbers, settings.accumulate)]

    def _pass(self, numbers: np.ndarray) -> Pass:
        data = self._data
        queries = [data.queries.text_at(row) for row in data.query_rows[numbers].tolist()]
        passages = [data.passages.text_at(row) for row in data.passage_rows[numbers].ravel().tolist()]
        return Pass(
            self._student.tokenize_queries(queries),
            self._student.tokenize_passages(passages),
            torch.from_numpy(np.array(data.scores[numbers])),
        )
