"""AdamW: schedule-free, as in the recipe, or with a linear decay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ...onnx_export.errors import MissingExtraError
from ..config import OptimizerConfig

try:
    from schedulefree import AdamWScheduleFree
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "schedulefree", "train") from error


_WARMUP_SHARE = 0.05  # of all steps, as in the paper: 2,500 of 50,000


def warmup_steps(config: OptimizerConfig, steps: int) -> int:
    """Number of steps in which the learning rate rises from zero: the configured one, or 5% of ``steps``."""
    return round(_WARMUP_SHARE * steps) if config.warmup_steps is None else config.warmup_steps


class Optimizer:
    """An optimizer with its schedule.

    Schedule-free training has two sets of weights: those it steps with, and their running average, which is the model.
    Evaluate and save inside `averaged`.

    Args:
        config: the section [optimizer].
        parameters: the parameters to train.
        steps: number of steps in all, for the warm-up and the linear decay.
    """

    def __init__(self, config: OptimizerConfig, parameters: Iterable[torch.nn.Parameter], steps: int) -> None:
        self._parameters = list(parameters)
        self._schedule: torch.optim.lr_scheduler.LambdaLR | None = None
        warmup = warmup_steps(config, steps)
        settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        if config.schedule == "schedule_free":
            self._free = AdamWScheduleFree(self._parameters, warmup_steps=warmup, **settings)
            self._inner: torch.optim.Optimizer = self._free
            self._free.train()
        else:
            self._free = None
            self._inner = torch.optim.AdamW(self._parameters, **settings)
            rest = max(1, steps - warmup)
            self._schedule = torch.optim.lr_scheduler.LambdaLR(
                self._inner, lambda step: (step + 1) / warmup if step < warmup else max(0.0, (steps - step) / rest)
            )

    def step(self, scaler: torch.amp.GradScaler) -> None:
        """Do one step with the accumulated gradients and clear them.

        Args:
            scaler: scaler of the loss, which is enabled for float16. Gradients that overflow in its scale make no step,
                neither of the weights nor of the schedule, and the next ones are scaled less.
        """
        if self._schedule is not None:  # as in the paper's code, which clips nothing without a schedule
            scaler.unscale_(self._inner)
            torch.nn.utils.clip_grad_norm_(self._parameters, 2.0)
        before = scaler.get_scale()
        scaler.step(self._inner)
        scaler.update()
        self._inner.zero_grad(set_to_none=True)
        if self._schedule is not None and scaler.get_scale() >= before:
            self._schedule.step()

    def averaged(self) -> _Averaged:
        """A context manager in which the weights are the model's; after it they are what they were, to the last bit."""
        return _Averaged(self._free, self._parameters)

    def state_dict(self) -> dict[str, Any]:
        """The state to continue from; call it outside `averaged`."""
        schedule = None if self._schedule is None else self._schedule.state_dict()
        return {"optimizer": self._inner.state_dict(), "schedule": schedule}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        self._inner.load_state_dict(state["optimizer"])
        if self._schedule is not None:
            self._schedule.load_state_dict(state["schedule"])


class _Averaged:
    def __init__(self, free: AdamWScheduleFree | None, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._free, self._parameters = free, parameters
        self._stepped: list[torch.Tensor] = []

    def __enter__(self) -> None:
        if self._free is not None:
            self._stepped = [parameter.detach().clone() for parameter in self._parameters]
            self._free.eval()

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        if self._free is not None:
            self._free.train()
            # It computes them back from the average, with other last bits: how often a training is evaluated would
            # change its result.
            for parameter, before in zip(self._parameters, self._stepped, strict=True):
                parameter.copy_(before)
            self._stepped = []
