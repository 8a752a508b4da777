"""The TOML file that says how a model is trained.

Every key of the recipe has the value of the JaColBERTv2.5 paper by default. Paths are relative to the folder of the
file.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from typing_extensions import Self

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

Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Paths = Annotated[list[str], Field(min_length=1)]


class _Section(BaseModel):
    """A section of the file: values are never converted, and an unknown key is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(_Section):
    """[model]: the model that training starts from, and how it reads texts.

    Attributes:
        checkpoint: folder or hub name of a ColBERT checkpoint, or with ``projection`` of a plain encoder, such as BERT.
        projection: length of the token vectors of a new projection, with random weights, on a plain encoder. None: the
            checkpoint has its own.
        markers: with ``projection``, two tokens of the vocabulary that no text has: the one before each query, and the
            one before each passage. None is [unused0] and [unused1]; an empty list is none.
        augmentation: mask tokens added to queries: "fixed" up to ``query_length``, as in the paper's training; "paper"
            up to the next multiple of it; or "none".
        query_length: length of a query in tokens.
        document_length: largest length of a passage in tokens; the rest is cut.
        dropout: dropout probability of the backbone in training, at least 0 and below 1. None takes the backbone's own.
            At 0.0 a CPU trains twice as fast.
    """

    checkpoint: str
    projection: Count | None = None
    markers: list[str] | None = None
    augmentation: Augmentation = "fixed"
    query_length: Count = 32
    document_length: Count = 300
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None


class DataConfig(_Section):
    """[data]: queries, passages, and the groups made of them.

    Attributes:
        groups: files of n-way groups: ours, PyLate's tables or triples, see `tansaku.training.data.groups`.
        queries: files of the queries: JSONL (``_id``, ``text``), JSON, CSV, Parquet, TSV (id, text), or the folder of a
            Hugging Face dataset. Without any, and without a collection, the groups hold texts in place of ids.
        collection: files of the passages, as those of the queries; TSV also with a title as third field.
        scores: files of scores, where groups have none or others: TREC runs, or the fields query, passage and score.
        nway: number of passages used from each group, from its first on; 2 or more.
        max_left_out: largest share of the queries, passages or groups that may be left out because they cannot be used,
            such as a passage without text or a group whose scores are all the same; 0 to 1. They are counted and named.
        block: number of consecutive groups that stay together. Where neighbouring groups share passages, as questions
            about one article do, a batch then encodes each passage once for all of them.
    """

    groups: Paths
    queries: list[str] = []
    collection: list[str] = []
    scores: list[str] = []
    max_left_out: Annotated[float, Field(ge=0, le=1)] = 0.01
    nway: Annotated[int, Field(ge=2)] = 32
    block: Count = 1


class LossConfig(_Section):
    """[loss]: the function that training minimizes.

    Attributes:
        kind: "kl", the divergence of the student's distribution over a group from the teacher's; "margin_mse"; or
            "tokens", which needs no teacher's scores: the similarities of single tokens follow those of the trained
            layers as they were before, and of the layer below, side by side (`tansaku.training.model.layer_teacher`).
        teacher_layers: for "tokens", number of those layers that teach, from the top; None takes all.
        normalize_student: scale the student's scores of each group to [0, 1] first.
        normalize_teacher: scale the teacher's scores of each group to [0, 1] first.
        distillation_alpha: factor of the teacher's scores, above 0. At 1, scaled scores make soft distributions; a
            student whose scores are not scaled can follow sharper ones.
        in_batch_negatives: add a cross-entropy of each group's first passage among those of all groups of the batch;
            with "tokens", among all passages of the batch.
        in_batch_weight: weight of that cross-entropy, above 0.
        in_batch_scale: factor of MaxSim in that cross-entropy, above 0: an inverse temperature.
    """

    kind: Loss = "kl"
    teacher_layers: Count | None = None
    normalize_student: bool = True
    normalize_teacher: bool = True
    distillation_alpha: Positive = 1.0
    in_batch_negatives: bool = False
    in_batch_weight: Positive = 1.0
    in_batch_scale: Positive = 1.0


class OptimizerConfig(_Section):
    """[optimizer]: AdamW.

    Attributes:
        schedule: "schedule_free" (Defazio et al., 2024), or "linear" decay to zero.
        learning_rate: highest learning rate, above 0.
        warmup_steps: number of steps in which the learning rate rises from zero. None is 5% of all steps, as in the
            paper, where it is 2,500 of 50,000; a training that is extended keeps the number it began with.
        weight_decay: weight decay of AdamW, 0 or more.
        batch_size: number of groups of one step, over all ranks and accumulated passes together.
        accumulate: number of passes of one step; it must divide ``batch_size``.
        trained_layers: number of upper layers of the backbone that are trained, besides the projection; None trains
            all. The layers below run without dropout.
        activations: folder where the results of the layers below are kept, so that each text goes through them once, in
            this training and in later ones. None computes them at every step. Needs ``trained_layers``.
    """

    schedule: Schedule = "schedule_free"
    learning_rate: Positive = 3e-5
    warmup_steps: NotNegative | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    batch_size: Count = 64
    accumulate: Count = 1
    trained_layers: NotNegative | None = None
    activations: str | None = None


class RunConfig(_Section):
    """[run]: how long training runs, and what it writes.

    Attributes:
        output: folder of the checkpoints and the log.
        formats: formats of the trained model beside its plain weights: "stanford", "pylate".
        steps: number of steps of the optimizer; None is one pass over the groups. A finished training goes on where it
            ended if the number is raised, unless the schedule is "linear".
        save_every: number of steps between checkpoints, from which an interrupted training continues; None saves at the
            end only.
        evaluate_every: number of steps between evaluations; None evaluates at the end only.
        evaluation: BEIR folder whose questions are asked, over its whole corpus, exactly. None evaluates nothing.
        split: split of its judgements.
        evaluation_questions: number of questions asked, from the first on.
        precision: number format of the backbone's forward and backward passes; weights, optimizer, MaxSim and loss stay
            float32. "float16" scales the loss, and needs a GPU.
        attention: "sdpa", torch's fused attention, whose memory grows with the length of texts and not with its square,
            where the backbone has it; or "eager".
        recompute: compute what a run of texts keeps for the backward pass again then: memory is that of one run,
            whatever the batch. A step takes about a third longer.
        tokens_at_once: largest number of tokens that go through the backbone together, with padding.
        compile: compile the backbone by `torch.compile`; not with optimizer.trained_layers.
        tensorboard: write loss and measures for TensorBoard too, to the folder ``tensorboard`` of the output; needs the
            extra ``tensorboard``.
        device: device of torch, such as "cpu" or "cuda"; None takes a GPU if there is one.
        seed: seed of the order of groups, of dropout and of new weights.
    """

    output: str
    formats: list[Format] = []
    steps: Count | None = None
    save_every: Count | None = None
    evaluate_every: Count | None = None
    evaluation: str | None = None
    split: str = "dev"
    evaluation_questions: Count = 500
    precision: Precision = "float32"
    attention: Literal["sdpa", "eager"] = "sdpa"
    recompute: bool = False
    tokens_at_once: Count = 16_384
    compile: bool = False
    tensorboard: bool = False
    device: str | None = None
    seed: int = 12345


class TrainingConfig(_Section):
    """A whole configuration.

    Attributes:
        model: the section [model].
        data: the section [data].
        run: the section [run].
        loss: the section [loss].
        optimizer: the section [optimizer].

    Raises:
        pydantic.ValidationError: a value that cannot be used, alone or beside another; a ValueError. `read_config`
            raises ConfigError instead.
    """

    model: ModelConfig
    data: DataConfig
    run: RunConfig
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        markers = self.model.markers
        if markers is not None and (self.model.projection is None or len(markers) not in (0, 2)):
            raise ValueError(
                f"model.markers is {markers}; it is for a new model.projection, and has two tokens or none"
            )
        if bool(self.data.queries) != bool(self.data.collection):
            raise ValueError(
                "data.queries and data.collection belong together; give both, or neither if the groups hold texts"
            )
        loss, optimizer, trained = self.loss, self.optimizer, self.optimizer.trained_layers
        if loss.kind == "tokens" and not trained:
            raise ValueError('loss.kind is "tokens"; set optimizer.trained_layers to 1 or more')
        if self.run.compile and trained is not None:
            raise ValueError("run.compile is true; leave out optimizer.trained_layers, which cuts the backbone in two")
        teachers = loss.teacher_layers
        if teachers is not None and (loss.kind != "tokens" or teachers > (trained or 0) + 1):
            raise ValueError(
                f'loss.teacher_layers is {teachers}; it is for loss.kind = "tokens", and at most one more than '
                "optimizer.trained_layers"
            )
        if optimizer.activations is not None and trained is None:
            raise ValueError("optimizer.activations keeps the results of frozen layers; set optimizer.trained_layers")
        if optimizer.batch_size % optimizer.accumulate:
            raise ValueError(
                f"optimizer.batch_size is {optimizer.batch_size}; it must be a multiple of optimizer.accumulate, "
                f"{optimizer.accumulate}"
            )
        unused: dict[str, str] = {}
        if loss.kind == "tokens":
            unused |= dict.fromkeys(_OF_SCORES, 'loss.kind = "tokens" takes no scores of a teacher')
        if not loss.in_batch_negatives:
            unused |= dict.fromkeys(_OF_NEGATIVES, "loss.in_batch_negatives is false")
        for name, why in unused.items():
            if getattr(loss, name) != LossConfig.model_fields[name].default:
                raise ValueError(f"loss.{name} is {getattr(loss, name)} but has no effect, as {why}; leave it out")
        return self


_OF_SCORES = ("normalize_student", "normalize_teacher", "distillation_alpha")
_OF_NEGATIVES = ("in_batch_weight", "in_batch_scale")
_EXPECTED = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "an integer",
    "list_type": "a list",
    "string_type": "a string",
}


def read_config(path: str | Path) -> TrainingConfig:
    """The configuration in a TOML file, its relative paths resolved.

    Args:
        path: the file.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or missing, or a value cannot be used.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    try:
        config = TrainingConfig.model_validate(content)
    except ValidationError as error:
        # An unknown key first: it may be what a missing one was meant to be.
        first = min(error.errors(), key=lambda details: details["type"] != "extra_forbidden")
        raise ConfigError(f"{path}: {_explained(first)}") from error
    return _resolved(config, path.resolve().parent)


def _explained(error: ErrorDetails) -> str:
    """What is wrong, with the key and the value."""
    names = [str(part) for part in error["loc"] if isinstance(part, str)]
    key, kind, limits = ".".join(names), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        section: Any = TrainingConfig
        for name in names[:-1]:
            section = section.model_fields[name].annotation
        near = difflib.get_close_matches(names[-1], section.model_fields, 1, 0.0)[0]
        return f"unknown key {key}; the nearest known key is {near!r}"
    if kind == "missing":
        return f"the key {key} is missing"
    if kind == "value_error":
        return str(limits["error"])
    expected = {
        "model_type": f"a section [{key}]",
        "literal_error": str(limits.get("expected")),
        "greater_than_equal": f"{limits.get('ge'):g} or more" if "ge" in limits else "",
        "greater_than": f"above {limits.get('gt'):g}" if "gt" in limits else "",
        "less_than": f"below {limits.get('lt'):g}" if "lt" in limits else "",
        "less_than_equal": f"{limits.get('le'):g} or less" if "le" in limits else "",
        "too_short": "a list that is not empty",
        **_EXPECTED,
    }
    return f"{key} is {error['input']!r}; it must be {expected.get(kind) or error['msg']}"


def _resolved(config: TrainingConfig, folder: Path) -> TrainingConfig:
    def path(name: str | None) -> str | None:
        return None if name is None else str(folder / name)

    def changed(section: Any, *names: str) -> Any:
        values = {name: getattr(section, name) for name in names}
        return section.model_copy(
            update={n: [path(item) for item in v] if isinstance(v, list) else path(v) for n, v in values.items()}
        )

    is_folder = (folder / config.model.checkpoint).exists()
    return config.model_copy(
        update={
            "data": changed(config.data, "groups", "queries", "collection", "scores"),
            "model": changed(config.model, "checkpoint") if is_folder else config.model,
            "run": changed(config.run, "output", "evaluation"),
            "optimizer": changed(config.optimizer, "activations"),
        }
    )
