"""`train`: from a configuration to a trained model, step by step. An interrupted training can be continued."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

from ...indexer.errors import ResumeError
from ...onnx_export.convert.checkpoint import Checkpoint
from ...onnx_export.convert.load import load_checkpoint
from ...onnx_export.errors import InputError
from ...onnx_export.files import atomic_path, finished_lines, write_atomically
from ...onnx_export.progress import Progress, no_progress
from ...plugin.evaluation.judgements import read_passages, read_queries
from ..config import TrainingConfig
from ..data.groups import Group, read_groups
from ..errors import ConfigError
from ..model.layer_teacher import TokenSimilarities
from ..model.losses import in_batch, loss_of
from ..model.optimizer import Optimizer
from ..model.student import Student, with_rules
from .averaging import WEIGHTS_FILE
from .evaluation import Evaluation
from .order import batch_of_step
from .saving import save_model
from .state import load_state, save_state

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
) -> Path:
    """Train a model.

    Written to `run.output`: `checkpoint-N` folders with the model's weights, `log.jsonl` with the loss of every step
    and the evaluations, `state.safetensors` to continue from, and the model in the formats of the configuration.
    Started by torchrun, every rank takes its share of each batch.

    Args:
        config: the configuration.
        checkpoint: the model to start from, instead of the one that the configuration names. Its weights are trained in
            place.
        resume: continue an interrupted training of the same configuration. False discards it and starts over.
        progress: called with the stage "train" after each step.
        on_step: called after each step with its loss and evaluation.

    Returns:
        The folder of the last checkpoint.

    Raises:
        ConfigError: the configuration does not suit the model or the number of ranks.
        SourceError: a file of queries or passages cannot be read.
        TrainingDataError: the groups cannot be trained on.
        ResumeError: the interrupted training had another configuration.
    """
    with _process_group() as (rank, ranks):
        return _train(_Run(config, checkpoint, rank, ranks), resume, progress, on_step)


def _train(run: _Run, resume: bool, progress: Progress, on_step: Callable[[StepReport], None] | None) -> Path:
    run.begin(resume=resume)
    while run.step < run.steps:
        loss = run.train_step()
        evaluation = run.after_step(loss)
        if run.rank == 0:
            progress("train", run.step, run.steps, 0)
            if on_step:
                on_step(StepReport(run.step, run.steps, loss, evaluation))
    return run.finish()


class _Run:
    """One training: its data, model, optimizer and current step."""

    def __init__(self, config: TrainingConfig, checkpoint: Checkpoint | None, rank: int, ranks: int) -> None:
        self.config, self.rank, self.ranks = config, rank, ranks
        batch, accumulate = config.optimizer.batch_size, config.optimizer.accumulate
        if batch % (ranks * accumulate):
            raise ConfigError(
                f"optimizer.batch_size is {batch}; it must be a multiple of {ranks} ranks × {accumulate} passes"
            )
        self.queries, self.passages = read_queries(config.data.queries), read_passages(config.data.collection)
        self.groups = read_groups(config.data.groups, self.queries, self.passages, nway=config.data.nway)
        self.steps = config.run.steps or max(1, len(self.groups) // batch)
        evaluation = config.run.evaluation
        self.evaluation = None
        if evaluation is not None and rank == 0:
            self.evaluation = Evaluation.read(evaluation, config.run.split, config.run.evaluation_questions)
        torch.manual_seed(config.run.seed)
        device = config.run.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.device = torch.device(device, rank % max(1, torch.cuda.device_count())) if device == "cuda" else device
        self.checkpoint = with_rules(checkpoint or load_checkpoint(config.model.checkpoint), config.model)
        self.student = Student(self.checkpoint).to(self.device)
        if config.model.dropout is not None:
            self.student.drop_out(config.model.dropout)
        self._freeze()
        trained = [parameter for parameter in self.student.parameters() if parameter.requires_grad]
        self.optimizer = Optimizer(config.optimizer, trained, self.steps)
        self.scaler = torch.amp.GradScaler(enabled=config.run.precision == "float16")
        learner = self._learner()
        self.module = DistributedDataParallel(learner) if ranks > 1 else learner
        self.output = Path(config.run.output)
        self._state = self.output / "state.safetensors"
        self._log = self.output / "log.jsonl"
        self.step = 0
        self.started = time.monotonic()

    def _freeze(self) -> None:
        settings = self.config.optimizer
        if settings.trained_layers is not None:
            kept = None if settings.activations is None else Path(settings.activations)
            if kept is not None and self.ranks > 1:
                kept /= f"rank-{self.rank}-of-{self.ranks}"
            self.student.freeze_below(settings.trained_layers, kept, _TYPES[self.config.run.precision])

    def _learner(self) -> Student | TokenSimilarities:
        if self.config.loss.kind != "tokens":
            return self.student
        texts = list(self.passages.values())
        return TokenSimilarities(
            self.student,
            texts[:: max(1, len(texts) // _PASSAGES_TO_CENTRE_BY)][:_PASSAGES_TO_CENTRE_BY],
            self.config.loss,
        )

    def begin(self, *, resume: bool) -> None:
        """Take up what an interrupted training left, or discard it."""
        if resume and (self.output / "state").is_dir() and not self._state.exists():
            raise ResumeError(
                f"{self.output}: the interrupted training here is by an earlier version and cannot be continued; "
                "name another run.output, or start over (--no-resume, resume=False)"
            )
        state = load_state(self._state) if resume else None
        if state is not None:
            plan = self._plan()
            if state["plan"] != plan:
                changed = [key for key in plan if state["plan"].get(key) != plan[key]]
                raise ResumeError(
                    f"{self.output}: an interrupted training here had another configuration ({', '.join(changed)}); "
                    "use that configuration, name another run.output, or start over (--no-resume, resume=False)"
                )
            self.student.load_state_dict(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.step = state["step"]
        if self.rank == 0:
            self.output.mkdir(parents=True, exist_ok=True)
            if not resume:
                self._state.unlink(missing_ok=True)
            self._cut_log()

    def train_step(self) -> float:
        """Do one step of the optimizer and return the loss, the mean over the groups of all ranks."""
        settings = self.config.optimizer
        # Dropout depends on the step and the rank only, so a continued training does what one without a stop does.
        torch.manual_seed(self.config.run.seed + 1_000_003 * (self.step * self.ranks + self.rank + 1))
        self.module.train()
        numbers = batch_of_step(
            self.step,
            groups=len(self.groups),
            batch_size=settings.batch_size,
            seed=self.config.run.seed,
            block=self.config.data.block,
            rank=self.rank,
            ranks=self.ranks,
        )
        size = len(numbers) // settings.accumulate
        total = torch.zeros((), device=self.device)
        for start in range(0, len(numbers), size):
            last = start + size >= len(numbers)
            with contextlib.nullcontext() if last or self.ranks == 1 else self.module.no_sync():  # pyright: ignore
                loss = self._loss([self.groups[i] for i in numbers[start : start + size]]) / settings.accumulate
                self.scaler.scale(loss).backward()
            total += loss.detach()
        self.optimizer.step(self.scaler)
        self.step += 1
        if self.ranks > 1:
            torch.distributed.all_reduce(total)
            total /= self.ranks
        value = float(total)
        if not abs(value) < float("inf"):
            raise InputError(f"the loss of step {self.step} is {value}; lower optimizer.learning_rate")
        return value

    def _loss(self, groups: list[Group]) -> torch.Tensor:
        config = self.config
        queries = self.student.tokenize_queries([self.queries[group.query] for group in groups])
        passages = self.student.tokenize_passages([self.passages[p] for group in groups for p in group.passages])
        precision = _TYPES[config.run.precision]
        kind = torch.device(self.device).type
        with torch.autocast(kind, precision, enabled=precision != torch.float32):
            if config.loss.kind == "tokens":
                return self.module(queries, passages)
            scores, pairs = self.module(queries, passages, all_pairs=config.loss.in_batch_negatives)
        teacher = torch.stack([torch.from_numpy(group.scores) for group in groups]).to(self.device)
        loss = loss_of(config.loss, scores.float(), teacher)
        if pairs is not None:
            loss = loss + in_batch(config.loss, pairs.float(), torch.arange(len(groups), device=self.device))
        return loss

    def after_step(self, loss: float) -> dict[str, float] | None:
        """Evaluate, log and save if they are due; returns the measures, or None."""
        if self.rank != 0:
            return None
        run, last = self.config.run, self.step == self.steps
        due = last or (run.evaluate_every is not None and self.step % run.evaluate_every == 0)
        evaluation = None
        with self.optimizer.averaged():
            if due and self.evaluation is not None:
                self.student.eval()
                evaluation = self.evaluation.measure(self.student)
            save = last or (run.save_every is not None and self.step % run.save_every == 0)
            if save:
                self._save_weights()
        with self._log.open("a", encoding="utf-8") as log:
            seconds = round(time.monotonic() - self.started, 1)
            line = {"step": self.step, "loss": round(loss, 6), "seconds": seconds, **(evaluation or {})}
            log.write(json.dumps(line) + "\n")
        if save:
            state = {
                "plan": self._plan(),
                "step": self.step,
                "weights": self.student.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            save_state(self._state, state)
        return evaluation

    def finish(self) -> Path:
        folder = self.output / f"checkpoint-{self.step}"
        if self.rank == 0:
            with self.optimizer.averaged():
                for form in self.config.run.formats:
                    facts = {"step": self.step, **self._plan()}
                    save_model(self.checkpoint, self.output / form, form, facts)  # pyright: ignore[reportArgumentType]
        return folder

    def _cut_log(self) -> None:
        """Leave out of the log the steps that come after the saved state: they will be done again."""
        if self._log.exists():
            lines = finished_lines(self._log)
            write_atomically(self._log, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= self.step))

    def _save_weights(self) -> None:
        folder = self.output / f"checkpoint-{self.step}"
        folder.mkdir(parents=True, exist_ok=True)
        weights = {n: t.detach().float().cpu().contiguous() for n, t in self.student.state_dict().items()}
        with atomic_path(folder / WEIGHTS_FILE) as making:
            save_file(weights, making)

    def _plan(self) -> dict[str, Any]:
        """What must be the same to continue: all but where, and how often, training saves and evaluates."""
        config = self.config
        run = {"steps": self.steps, "precision": config.run.precision, "seed": config.run.seed, "ranks": self.ranks}
        parts = {name: getattr(config, name).model_dump() for name in ("model", "data", "loss", "optimizer")}
        return json.loads(json.dumps({**parts, "run": run, "groups": len(self.groups)}))


@contextlib.contextmanager
def _process_group():  # noqa: ANN202
    """Rank and number of ranks, in the process group that the environment of torchrun describes."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        yield 0, 1
        return
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield torch.distributed.get_rank(), ranks
        torch.distributed.barrier()  # no rank leaves while another still works
    finally:
        # An object that still refers to the group keeps its threads, and the interpreter aborts if it ends before them.
        gc.collect()
        torch.distributed.destroy_process_group()
