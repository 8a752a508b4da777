"""One TOML file says how a model is trained; every key but the paths has the JaColBERTv2.5 paper's value by default."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

Augmentation = Literal["none", "fixed", "paper"]
Loss = Literal["kl", "margin_mse", "tokens"]
Schedule = Literal["schedule_free", "linear"]
Precision = Literal["float32", "bfloat16", "float16"]
Format = Literal["stanford", "pylate"]


@dataclass(frozen=True)
class ModelConfig:
    """[model]: where training starts, and how texts are read.

    Attributes:
        checkpoint: a ColBERT checkpoint: a folder or the name of a hub repository.
        augmentation: mask tokens of queries: "fixed" up to ``query_length``, as the paper trains; "paper", up to the
            next multiple of it; or "none".
        query_length: in tokens.
        document_length: in tokens; longer passages are cut.
        dropout: of the backbone in training; None is as its own configuration says. Without any (0.0) a CPU trains
            twice as fast.
    """

    checkpoint: str
    augmentation: Augmentation = "fixed"
    query_length: int = 32
    document_length: int = 300
    dropout: float | None = None


@dataclass(frozen=True)
class DataConfig:
    """[data]: what is trained on; paths are relative to the configuration's folder.

    Attributes:
        groups: JSONL files of n-way groups, see `groups`.
        queries: of all groups: JSONL (``_id``, ``text``) or TSV (id, text) files.
        collection: their passages: JSONL (``_id``, ``text``, perhaps ``title``) or TSV (id, text) files.
        nway: passages of each group that are used, the first of it.
        block: so many consecutive groups of the files stay beside one another. Where neighbours share passages, as
            questions about one article do, a batch then encodes each passage once for all of them.
    """

    groups: list[str]
    queries: list[str]
    collection: list[str]
    nway: int = 32
    block: int = 1


@dataclass(frozen=True)
class LossConfig:
    """[loss]: what is made small.

    Attributes:
        kind: "kl", the divergence of the student's distribution over a group from the teacher's; "margin_mse"; or
            "tokens", which needs no teacher's scores: the similarities of single tokens follow what the layers that
            are trained, as they were, and the one below them give side by side (`layers`).
        teacher_layers: of "tokens": only so many of those layers teach, the upper ones; None is all.
        normalize_student: bring the student's scores of each group to [0, 1] first.
        normalize_teacher: likewise the teacher's.
        distillation_alpha: the teacher's scores are multiplied by it. At 1, normalised scores make soft distributions;
            a student whose scores are not normalised can follow sharper ones.
        in_batch_negatives: add a cross-entropy of each group's first passage among those of all groups of the batch;
            with "tokens", among all passages of the batch.
        in_batch_weight: that cross-entropy is multiplied by it.
        in_batch_scale: MaxSim is multiplied by it in there: an inverse temperature.
    """

    kind: Loss = "kl"
    teacher_layers: int | None = None
    normalize_student: bool = True
    normalize_teacher: bool = True
    distillation_alpha: float = 1.0
    in_batch_negatives: bool = False
    in_batch_weight: float = 1.0
    in_batch_scale: float = 1.0


@dataclass(frozen=True)
class OptimizerConfig:
    """[optimizer]: AdamW.

    Attributes:
        schedule: "schedule_free" (Defazio et al., 2024), or "linear" decay to zero.
        learning_rate: its highest value.
        warmup_steps: in which it rises from zero.
        weight_decay: of AdamW.
        batch_size: groups of one step, over all ranks and accumulated passes together.
        accumulate: passes of one step.
        trained_layers: only so many of the backbone's upper layers, and the projection, are trained; None is all.
            The layers below run without dropout.
        activations: a folder where what the layers below give for a text is kept, so that it is computed once, for
            later trainings too; None computes it at every step.
    """

    schedule: Schedule = "schedule_free"
    learning_rate: float = 3e-5
    warmup_steps: int = 0
    weight_decay: float = 0.0
    batch_size: int = 64
    accumulate: int = 1
    trained_layers: int | None = None
    activations: str | None = None


@dataclass(frozen=True)
class RunConfig:
    """[run]: how long, and what is written.

    Attributes:
        output: folder of the checkpoints and the log.
        formats: what the trained model is written as beside its plain weights: "stanford", "pylate".
        steps: of the optimizer; None is one pass over the groups.
        save_every: steps between checkpoints, from which an interrupted run goes on; None is at the end alone.
        evaluate_every: steps between evaluations; None is at the end alone.
        evaluation: a BEIR folder whose questions are asked: over its whole corpus, exactly.
        split: of its judgements.
        evaluation_questions: the first so many.
        precision: of the forward and backward passes; weights and optimizer stay float32.
        device: "cpu", "cuda", …; None takes a GPU if there is one.
        seed: of the order of groups, dropout and new weights.
    """

    output: str
    formats: list[str] = field(default_factory=list)
    steps: int | None = None
    save_every: int | None = None
    evaluate_every: int | None = None
    evaluation: str | None = None
    split: str = "dev"
    evaluation_questions: int = 500
    precision: Precision = "float32"
    device: str | None = None
    seed: int = 12345


@dataclass(frozen=True)
class TrainingConfig:
    """All of a configuration, section by section."""

    model: ModelConfig
    data: DataConfig
    run: RunConfig
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


_OF_SCORES = "normalize_student normalize_teacher distillation_alpha".split()
_OF_NEGATIVES = "in_batch_weight in_batch_scale".split()
_POSITIVE = (
    "query_length document_length nway block teacher_layers batch_size accumulate steps save_every evaluate_every"
).split()


def read_config(path: str | Path) -> TrainingConfig:
    """The configuration in a TOML file, its relative paths resolved.

    Raises ConfigError for a file that cannot be read, an unknown or missing key, and a value of another type or range.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    config = _section(path, "", content, TrainingConfig)
    _check(path, config)
    return _resolved(config, path.resolve().parent)


def _section(path: Path, place: str, content: Any, kind: type) -> Any:
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: {place} is {content!r}; it must be a section [{place}]")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in content:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1, 0.0)[0]
            raise ConfigError(f"{path}: unknown key {_key(place, key)}; the nearest that is known is {near!r}")
    hints, values = get_type_hints(kind), {}
    for name, of_kind in fields.items():
        if name in content:
            values[name] = _value(path, _key(place, name), content[name], hints[name])
        elif of_kind.default is dataclasses.MISSING and of_kind.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{path}: the key {_key(place, name)} is missing")
    return kind(**values)


def _value(path: Path, key: str, value: Any, kind: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _section(path, key, value, kind)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{path}: {key} is {value!r}; it must be one of {', '.join(get_args(kind))}")
        return value
    kinds: tuple[Any, ...] = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if list[str] in kinds:
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{path}: {key} is {value!r}; it must be a list of texts, not empty")
        return value
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(k.__name__ for k in kinds if k is not type(None))
        raise ConfigError(f"{path}: {key} is {value!r}; it must be of type {expected}")
    return value


def _check(path: Path, config: TrainingConfig) -> None:
    for section in dataclasses.fields(config):
        part = getattr(config, section.name)
        for name, value in vars(part).items():
            if name in _POSITIVE and value is not None and value < 1:
                raise ConfigError(f"{path}: {section.name}.{name} is {value}; it must be 1 or more")
    for name in config.run.formats:
        if name not in get_args(Format):
            raise ConfigError(f"{path}: run.formats has {name!r}; known are {', '.join(get_args(Format))}")
    _check_loss(path, config.loss, config.optimizer.trained_layers)
    optimizer, trained = config.optimizer, config.optimizer.trained_layers
    if config.data.nway < 2:
        raise ConfigError(f"{path}: data.nway is {config.data.nway}; a group needs 2 passages or more")
    if config.model.dropout is not None and not 0 <= config.model.dropout < 1:
        raise ConfigError(f"{path}: model.dropout is {config.model.dropout}; it must be at least 0 and below 1")
    if not optimizer.learning_rate > 0:
        raise ConfigError(f"{path}: optimizer.learning_rate is {optimizer.learning_rate}; it must be above 0")
    if optimizer.warmup_steps < 0 or optimizer.weight_decay < 0 or (trained is not None and trained < 0):
        raise ConfigError(f"{path}: optimizer: warmup_steps, weight_decay and trained_layers must not be below 0")
    if optimizer.activations is not None and trained is None:
        raise ConfigError(f"{path}: optimizer.activations keeps what frozen layers give; set optimizer.trained_layers")
    if optimizer.batch_size % optimizer.accumulate:
        raise ConfigError(
            f"{path}: optimizer.batch_size is {optimizer.batch_size}, which accumulate = {optimizer.accumulate} "
            "does not divide"
        )


def _check_loss(path: Path, loss: LossConfig, trained: int | None) -> None:
    if loss.kind == "tokens" and not trained:
        raise ConfigError(f'{path}: loss.kind is "tokens": set optimizer.trained_layers to 1 or more')
    teachers = loss.teacher_layers
    if teachers is not None and (loss.kind != "tokens" or teachers > (trained or 0) + 1):
        raise ConfigError(
            f'{path}: loss.teacher_layers is {teachers}; it is for loss.kind = "tokens", and at most one more than '
            "optimizer.trained_layers"
        )
    for name in ("distillation_alpha", *_OF_NEGATIVES):
        if not getattr(loss, name) > 0:
            raise ConfigError(f"{path}: loss.{name} is {getattr(loss, name)}; it must be above 0")
    idle = {name: 'loss.kind = "tokens" has no scores of a teacher' for name in _OF_SCORES if loss.kind == "tokens"}
    if not loss.in_batch_negatives:
        idle |= dict.fromkeys(_OF_NEGATIVES, "loss.in_batch_negatives is false")
    for name, why in idle.items():
        if getattr(loss, name) != getattr(LossConfig, name):
            raise ConfigError(f"{path}: loss.{name} is {getattr(loss, name)} and would do nothing: {why}")


def _resolved(config: TrainingConfig, folder: Path) -> TrainingConfig:
    def path(name: str) -> str:
        return str(folder / name)

    data = dataclasses.replace(
        config.data,
        groups=[path(name) for name in config.data.groups],
        queries=[path(name) for name in config.data.queries],
        collection=[path(name) for name in config.data.collection],
    )
    local = folder / config.model.checkpoint
    model = dataclasses.replace(config.model, checkpoint=str(local)) if local.exists() else config.model
    run = dataclasses.replace(
        config.run,
        output=path(config.run.output),
        evaluation=None if config.run.evaluation is None else path(config.run.evaluation),
    )
    activations = config.optimizer.activations
    optimizer = dataclasses.replace(config.optimizer, activations=None if activations is None else path(activations))
    return dataclasses.replace(config, data=data, model=model, optimizer=optimizer, run=run)


def _key(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
