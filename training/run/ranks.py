"""The processes of one training, which torchrun starts: one for each GPU."""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
from collections.abc import Iterator
from typing import Any

import torch

# How long a rank waits for what takes long on another one: reading the data, saving, evaluating.
_PATIENCE = datetime.timedelta(days=1)


class Ranks:
    """One process among those of the training.

    Args:
        number: number of this process, from 0.
        count: number of processes.
        patient: process group whose collectives wait for `_PATIENCE`; None if there is one process.
    """

    def __init__(self, number: int = 0, count: int = 1, patient: Any = None) -> None:
        self.number, self.count = number, count
        self._patient = patient

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in the order of their numbers; all of them must call it."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value, group=self._patient)
        return values

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.gather(None)

    def mean(self, value: torch.Tensor) -> float:
        """The mean of a scalar over the processes, which is changed."""
        if self.count > 1:
            torch.distributed.all_reduce(value)
            value /= self.count
        return float(value)


@contextlib.contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the process group that the environment of torchrun describes.

    Yields:
        The ranks, one if torchrun did not start this process.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    if torch.cuda.is_available():
        number = int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")))
        torch.cuda.set_device(number % torch.cuda.device_count())
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        # Of its own and on the CPU: the limit of the group that shares gradients should stay short, so that a process
        # that is gone is noticed.
        patient = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
        ranks = Ranks(torch.distributed.get_rank(), count, patient)
        yield ranks
        ranks.wait()  # no rank leaves while another still works
    finally:
        # An object that still refers to the group keeps its threads, and the interpreter aborts if it ends before them.
        gc.collect()
        torch.distributed.destroy_process_group()
