"""What a training writes down of its steps: lines of JSON, and scalars for TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...onnx_export.errors import MissingExtraError
from ...onnx_export.files import finished_lines, write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FILE, _FOLDER = "log.jsonl", "tensorboard"


class TrainingLog:
    """The log of one training.

    Args:
        output: folder of the training.
        tensorboard: whether scalars are written for TensorBoard too.

    Raises:
        MissingExtraError: the extra ``tensorboard`` is not installed.
    """

    def __init__(self, output: Path, *, tensorboard: bool = False) -> None:
        self._path, self._scalars = output / _FILE, output / _FOLDER
        self._writer: SummaryWriter | None = None
        self._to_board = tensorboard
        if tensorboard:
            _summary_writer()
        self._started = time.monotonic()

    def begin(self, step: int) -> None:
        """Leave out the steps after ``step``: they will be done again.

        Args:
            step: number of steps that are done; 0 begins a new log.
        """
        lines = finished_lines(self._path) if self._path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        if self._path.exists():
            write_atomically(self._path, "".join(f"{line}\n" for line in kept))
        if self._to_board:
            self._writer = _summary_writer()(str(self._scalars), purge_step=step + 1)

    def has(self, step: int) -> bool:
        """Whether the last line is of ``step``. It is not, if the evaluation of a saved step was interrupted."""
        lines = finished_lines(self._path) if self._path.exists() else []
        return bool(lines) and json.loads(lines[-1])["step"] == step

    def add(self, step: int, loss: float, measures: Mapping[str, float]) -> None:
        """Write down a step."""
        seconds = round(time.monotonic() - self._started, 1)
        line = {"step": step, "loss": round(loss, 6), "seconds": seconds, **measures}
        with self._path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in {"loss": loss, **measures}.items():
                self._writer.add_scalar(name.replace("@", "_at_"), value, step)

    def close(self) -> None:
        """Write what TensorBoard's writer has kept."""
        if self._writer is not None:
            self._writer.close()


def _summary_writer() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise MissingExtraError("tensorboard", "tensorboard") from error
    return SummaryWriter
