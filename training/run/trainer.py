"""`train`: from a configuration to a trained model, step by step. An interrupted training can be continued."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

from ...indexer.errors import ResumeError
from ...onnx_export.convert.checkpoint import Checkpoint
from ...onnx_export.errors import InputError
from ...onnx_export.files import atomic_path
from ...onnx_export.progress import Progress, no_progress
from ..config import RunConfig, TrainingConfig
from ..data.prepared import PreparedData, prepare
from ..errors import ConfigError
from ..model.attention import use_sdpa
from ..model.layer_teacher import TokenSimilarities
from ..model.losses import in_batch, loss_of
from ..model.optimizer import Optimizer, warmup_steps
from ..model.start import load_start
from ..model.student import Student, for_search, with_rules
from .averaging import WEIGHTS_FILE
from .batches import Batches, Pass
from .evaluation import Evaluation
from .log import TrainingLog
from .memory import estimate_memory, said_of_memory
from .ranks import Ranks, process_group
from .saving import save_model, try_saving
from .state import STATE_FILE, load_state, save_state

_PASSAGES_TO_CENTRE_BY = 256  # of the layers that teach
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclasses.dataclass(frozen=True)
class StepReport:
    """The outcome of one step.

    Attributes:
        step: number of steps done.
        steps: number of steps in all.
        loss: loss of this step, the mean over its groups.
        evaluation: measures, if the model was evaluated after this step.
    """

    step: int
    steps: int
    loss: float
    evaluation: dict[str, float] | None = None

    def __str__(self) -> str:
        measured = "".join(f", {name} {value:.4f}" for name, value in (self.evaluation or {}).items())
        return f"step {self.step:,} of {self.steps:,}: loss {self.loss:.4f}{measured}"


def train(
    config: TrainingConfig,
    checkpoint: Checkpoint | None = None,
    *,
    resume: bool = True,
    progress: Progress = no_progress,
    on_step: Callable[[StepReport], None] | None = None,
    note: Callable[[str], None] = print,
) -> Path:
    """Train a model.

    Written to `run.output`: `checkpoint-N` folders with the model's weights, `log.jsonl` with the loss of every step
    and the evaluations, `state.safetensors` to continue from, `data` with the groups and texts as they are read during
    the training, and the model in the formats of the configuration.
    Started by torchrun, every rank takes its share of each batch.

    Args:
        config: the configuration.
        checkpoint: the model to start from, instead of the one that the configuration names. Its weights are trained in
            place.
        resume: continue an interrupted training of the same configuration. False discards it and starts over.
        progress: called with the stage "train" after each step.
        on_step: called after each step with its loss and evaluation.
        note: called with what a person should know before the first step, such as which groups are left out.

    Returns:
        The folder of the last checkpoint.

    Raises:
        ConfigError: the configuration does not suit the model or the number of ranks.
        SourceError: a file of queries or passages cannot be read.
        TrainingDataError: the groups cannot be trained on.
        ResumeError: the interrupted training had another configuration.
    """
    with process_group() as ranks:
        run = _Run(config, checkpoint, ranks, note)
        try:
            return _train(run, resume, progress, on_step)
        finally:
            run.close()


def _train(run: _Run, resume: bool, progress: Progress, on_step: Callable[[StepReport], None] | None) -> Path:
    run.begin(resume=resume)
    while run.step < run.steps:
        loss = run.train_step()
        evaluation = run.after_step(loss)
        if run.ranks.number == 0:
            progress("train", run.step, run.steps, 0)
            if on_step:
                on_step(StepReport(run.step, run.steps, loss, evaluation))
    return run.finish()


class _Run:
    """One training: its data, model, optimizer and current step."""

    def __init__(
        self, config: TrainingConfig, checkpoint: Checkpoint | None, ranks: Ranks, note: Callable[[str], None]
    ) -> None:
        self.config, self.ranks, self.note = config, ranks, note
        batch, accumulate = config.optimizer.batch_size, config.optimizer.accumulate
        if batch % (ranks.count * accumulate):
            raise ConfigError(
                f"optimizer.batch_size is {batch}; it must be a multiple of {ranks.count} ranks × {accumulate} passes"
            )
        self.device = _device(config.run)
        self.output = Path(config.run.output)
        self.log = TrainingLog(self.output, tensorboard=config.run.tensorboard and ranks.number == 0)
        if ranks.number == 0:
            prepare(config.data, self.output / "data", note)
        ranks.wait()
        self.data = PreparedData.open(self.output / "data")
        self.steps = config.run.steps or max(1, len(self.data) // batch)
        evaluation = config.run.evaluation
        self.evaluation = None
        if evaluation is not None:
            self.evaluation = Evaluation.read(evaluation, config.run.split, config.run.evaluation_questions)
        torch.manual_seed(config.run.seed)
        start = checkpoint or load_start(config.model, config.run.seed)
        self.checkpoint = with_rules(start, config.model)
        self.written = for_search(self.checkpoint, start)
        self.student = Student(self.checkpoint).to(self.device)
        if config.model.dropout is not None:
            self.student.drop_out(config.model.dropout)
        self._set_up_backbone()
        self._freeze()
        trained = [parameter for parameter in self.student.parameters() if parameter.requires_grad]
        self.optimizer = Optimizer(config.optimizer, trained, self.steps)
        self.scaler = torch.amp.GradScaler(enabled=config.run.precision == "float16")
        learner = self._learner()
        self.module = DistributedDataParallel(learner) if ranks.count > 1 else learner
        self.batches = Batches(config, self.data, self.student, ranks)
        self._state = self.output / STATE_FILE
        self.step = 0
        self._loss_before = 0.0  # of the saved step

    def _set_up_backbone(self) -> None:
        run = self.config.run
        self.student.recompute, self.student.tokens_at_once = run.recompute, run.tokens_at_once
        if run.attention == "sdpa":
            texts = ["日本語の文です。", "短い文"]
            compared = [*self.student.tokenize_queries(texts), *self.student.tokenize_passages(texts)]
            if not use_sdpa(self.student, compared) and self.ranks.number == 0:
                self.note("attention is computed in the plain way: this backbone has no fused one with the same result")
        if run.compile:
            self.student.backbone.compile(dynamic=True)

    def _freeze(self) -> None:
        settings = self.config.optimizer
        if settings.trained_layers is not None:
            kept = None if settings.activations is None else Path(settings.activations)
            if kept is not None and self.ranks.count > 1:
                kept /= f"rank-{self.ranks.number}-of-{self.ranks.count}"
            self.student.freeze_below(settings.trained_layers, kept, _TYPES[self.config.run.precision])

    def _learner(self) -> Student | TokenSimilarities:
        if self.config.loss.kind != "tokens":
            return self.student
        rows = self.data.passages.rows
        rows = rows[:: max(1, len(rows) // _PASSAGES_TO_CENTRE_BY)][:_PASSAGES_TO_CENTRE_BY]
        return TokenSimilarities(self.student, [self.data.passages.text_at(row) for row in rows], self.config.loss)

    def begin(self, *, resume: bool) -> None:
        """Take up what an interrupted training left, or discard it."""
        if resume and (self.output / "state").is_dir() and not self._state.exists():
            raise ResumeError(
                f"{self.output}: the interrupted training here is by an earlier version and cannot be continued; "
                "name another run.output, or start over (--no-resume, resume=False)"
            )
        if resume:
            state = load_state(self._state)
            if state is not None:
                self._take_up(state)
        if self.ranks.number == 0:
            self.output.mkdir(parents=True, exist_ok=True)
            if self.step < self.steps:
                try_saving(self.written, self.output, self.config.run.formats)
            if not resume:
                self._state.unlink(missing_ok=True)
            self.log.begin(self.step)
        if self.step and not self.ranks.gather(self.log.has(self.step))[0]:
            self._evaluate_and_log(self._loss_before)
        if self.ranks.number == 0 and self.step < self.steps:
            passes = self.batches.of_step(self.step, last=True)
            precision = _TYPES[self.config.run.precision]
            self.note(said_of_memory(estimate_memory(self.student, self.config, passes, precision), self.device))
        self.ranks.wait()  # patiently; the first shared gradients are waited for less long

    def _take_up(self, state: dict[str, Any]) -> None:
        plan, before = self._plan(), state["plan"]
        if self.config.optimizer.warmup_steps is None:  # 5% of what were all steps when it began
            plan["optimizer"]["warmup_steps"] = before["optimizer"].get("warmup_steps")
        if self.config.optimizer.schedule != "linear" and before["run"]["steps"] != self.steps >= state["step"]:
            before = {**before, "run": {**before["run"], "steps": self.steps}}
        if before != plan:
            changed = ", ".join(key for key in plan if before.get(key) != plan[key])
            raise ResumeError(
                f"{self.output}: {state['step']:,} steps are done here with another configuration ({changed}); use "
                "that one (run.steps may be raised, if the schedule is not linear), name another run.output, or start "
                "over (--no-resume, resume=False)"
            )
        self.student.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self._loss_before = state["step"], state.get("loss", 0.0)

    def train_step(self) -> float:
        """Do one step of the optimizer and return the loss, the mean over the groups of all ranks."""
        # Dropout depends on the step and the rank only, so a continued training does what one without a stop does.
        at = self.step * self.ranks.count + self.ranks.number
        torch.manual_seed(self.config.run.seed + 1_000_003 * (at + 1))
        self.module.train()
        passes = self.batches.of_step(self.step, last=self.step + 1 == self.steps)
        total = torch.zeros((), device=self.device)
        for number, some in enumerate(passes, start=1):
            alone = number == len(passes) or self.ranks.count == 1
            with contextlib.nullcontext() if alone else self.module.no_sync():  # pyright: ignore
                loss = self._loss(some) / len(passes)
                self.scaler.scale(loss).backward()
            total += loss.detach()
        self.optimizer.step(self.scaler)
        self.step += 1
        value = self.ranks.mean(total)
        if not abs(value) < float("inf"):
            raise InputError(f"the loss of step {self.step} is {value}; lower optimizer.learning_rate")
        return value

    def _loss(self, some: Pass) -> torch.Tensor:
        config = self.config
        precision = _TYPES[config.run.precision]
        with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
            if config.loss.kind == "tokens":
                return self.module(some.queries, some.passages)
            scores, pairs = self.module(some.queries, some.passages, all_pairs=config.loss.in_batch_negatives)
        loss = loss_of(config.loss, scores, some.scores.to(self.device))
        if pairs is not None:
            loss = loss + in_batch(config.loss, pairs, torch.arange(len(scores), device=self.device))
        return loss

    def after_step(self, loss: float) -> dict[str, float] | None:
        """Save, evaluate and log if they are due; returns the measures, or None."""
        run, last = self.config.run, self.step == self.steps
        if last or (run.save_every is not None and self.step % run.save_every == 0):
            # Before the evaluation: what interrupts that loses no step.
            self._save(loss)
        return self._evaluate_and_log(loss)

    def _save(self, loss: float) -> None:
        if self.ranks.number == 0:
            with self.optimizer.averaged():
                self._save_weights()
            state = {
                "plan": self._plan(),
                "step": self.step,
                "loss": loss,
                "weights": self.student.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            save_state(self._state, state)
        self.ranks.wait()

    def _evaluate_and_log(self, loss: float) -> dict[str, float] | None:
        run = self.config.run
        due = self.step == self.steps or (run.evaluate_every is not None and self.step % run.evaluate_every == 0)
        measures = None
        if due and self.evaluation is not None:
            self.batches.settle()
            with self.optimizer.averaged():
                self.student.eval()
                measures = self.evaluation.measure(self.student, self.ranks)
        if self.ranks.number == 0:
            self.log.add(self.step, loss, measures or {})
        return measures

    def close(self) -> None:
        """End the thread that tokenizes, and the log."""
        self.batches.close()
        self.log.close()

    def finish(self) -> Path:
        """Write the model in all formats; returns the folder of the last checkpoint."""
        folder = self.output / f"checkpoint-{self.step}"
        if self.ranks.number == 0:
            with self.optimizer.averaged():
                for form in self.config.run.formats:
                    facts = {"step": self.step, **self._plan()}
                    save_model(self.written, self.output / form, form, facts)  # pyright: ignore[reportArgumentType]
        return folder

    def _save_weights(self) -> None:
        folder = self.output / f"checkpoint-{self.step}"
        folder.mkdir(parents=True, exist_ok=True)
        weights = {n: t.detach().float().cpu().contiguous() for n, t in self.student.state_dict().items()}
        with atomic_path(folder / WEIGHTS_FILE) as making:
            save_file(weights, making)

    def _plan(self) -> dict[str, Any]:
        """What must be the same to continue: all but where and how often it saves, and what saves memory."""
        config = self.config
        run = {name: getattr(config.run, name) for name in ("precision", "seed")}
        run |= {"steps": self.steps, "ranks": self.ranks.count}
        parts = {name: getattr(config, name).model_dump() for name in ("model", "loss", "optimizer")}
        parts["data"] = {"nway": config.data.nway, "block": config.data.block, "digest": self.data.digest}
        parts["optimizer"]["warmup_steps"] = warmup_steps(config.optimizer, self.steps)
        return json.loads(json.dumps({**parts, "run": run}))


def _device(config: RunConfig) -> torch.device:
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if config.precision == "float16" and device.type != "cuda":
        raise ConfigError(
            f'run.precision is "float16", whose gradients need a GPU, and the device is "{device}"; use "bfloat16" or '
            '"float32"'
        )
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device
