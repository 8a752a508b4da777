"""Layers as a teacher: a model's own upper layers, side by side, teach the token vectors of a smaller one.

MaxSim over the vectors of several layers at once ranks better than over those of any one layer, but they are too long
to store. `token_loss` trains a student's vectors to give the same similarities, token by token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch.nn import functional

from ...onnx_export.encode.tokenize import TokenizedText
from ...onnx_export.errors import InputError
from ..config import LossConfig
from .frozen import SplitBackbone
from .losses import in_batch
from .student import Inputs, Student, distinct_texts, maxsim, runs_of

_MASKED = -2.0  # less than any cosine
_AT_TEACHERS_TOKEN = 0.5  # weight of the similarity with that token, against 1 for the student's own largest


class TokenSimilarities(torch.nn.Module):
    """A student with its own layers as the teacher; calling it gives the loss of a batch, see `token_loss`.

    With in-batch negatives a cross-entropy is added: of each group's first passage among all passages of the batch.

    Args:
        student: a student cut by `Student.freeze_below`. Its layers as they are now are the teacher.
        sample: passages whose mean vectors centre the teacher's layers.
        config: the section [loss].

    Raises:
        InputError: the student is not cut.
    """

    def __init__(self, student: Student, sample: Sequence[str], config: LossConfig) -> None:
        super().__init__()
        if student.split is None:
            raise InputError(
                'loss.kind is "tokens", where the trained layers are their own teacher; set optimizer.trained_layers'
            )
        self.student, self._split, self._config = student, student.split, config
        self._teacher = LayersTeacher(student.split, config.teacher_layers)
        self._teacher.centre(self._lowered(student.tokenize_passages(list(sample))))

    def forward(self, queries: Sequence[TokenizedText], passages: Sequence[TokenizedText]) -> torch.Tensor:
        """The loss, a scalar, of one query for each group and nway passages for each, one group after the other."""
        distinct, numbers = distinct_texts(passages)
        asked, asked_taught = self.student.in_runs(queries, self._both)
        found, found_taught = self.student.in_runs(distinct, self._both)
        kept = self.student.kept(queries), self.student.kept(distinct)
        places = numbers.to(self.student.device).unflatten(0, (len(queries), -1))
        with torch.autocast(self.student.device.type, enabled=False):
            loss = token_loss((asked, asked_taught), (found, found_taught), *kept, places)
            if self._config.in_batch_negatives:
                scores = maxsim(asked[:, None], kept[0][:, None], found[None], kept[1][None])
                loss = loss + in_batch(self._config, scores, places[:, 0])
            return loss

    def _lowered(self, texts: Sequence[TokenizedText]) -> Iterator[tuple[torch.Tensor, Inputs, torch.Tensor]]:
        for numbers in runs_of(texts, self.student.tokens_at_once):
            run = [texts[i] for i in numbers]
            inputs = self.student.inputs(run)
            yield self._split.lower(run, inputs), inputs, self.student.kept(run)

    def _both(self, texts: Sequence[TokenizedText], inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors by the student and by the teacher, from the same lower layers."""
        lower = self._split.lower(texts, inputs)
        return self.student.project(self._split.upper(lower, inputs)), self._teacher.vectors(lower, inputs)


class LayersTeacher:
    """Token vectors from a copy of a model's upper layers and the layer below them, which training does not change.

    Args:
        split: the model, cut below the layers that will be trained.
        layers: number of layers that teach, from the top; None takes all.
    """

    def __init__(self, split: SplitBackbone, layers: int | None = None) -> None:
        self._untrained = split.with_copied_layers()
        self._layers = layers
        self._means: list[torch.Tensor] = []

    def centre(self, sample: Iterable[tuple[torch.Tensor, Inputs, torch.Tensor]]) -> None:
        """Compute each layer's mean over the kept tokens of a sample. Call it before `vectors`.

        Args:
            sample: hidden states at the first trained layer, as `SplitBackbone.lower` gives them; the texts, as the
                backbone takes them; and which tokens are kept, bool (texts, longest).
        """
        sums: list[torch.Tensor] | None = None
        count = 0
        for lower, inputs, keep in sample:
            found = [states[keep].sum(dim=0) for states in self._states(lower, inputs)]
            sums = found if sums is None else [total + part for total, part in zip(sums, found, strict=True)]
            count += int(keep.sum())
        self._means = [total / max(1, count) for total in sums or ()]

    def vectors(self, lower: torch.Tensor, inputs: Inputs) -> torch.Tensor:
        """Vectors of all layers side by side, each centred and scaled to the same length.

        Args:
            lower: hidden states at the first trained layer.
            inputs: the texts, as the backbone takes them.

        Returns:
            float32 (texts, longest, layers × hidden), of unit length.
        """
        states = self._states(lower, inputs)
        parts = [functional.normalize(one - mean, dim=-1) for one, mean in zip(states, self._means, strict=True)]
        return torch.cat(parts, dim=-1) / len(parts) ** 0.5

    @torch.no_grad()
    def _states(self, lower: torch.Tensor, inputs: Inputs) -> list[torch.Tensor]:
        reached = self._untrained.states(lower, inputs)
        return [states.float() for states in reached[-(self._layers or len(reached)) :]]


def token_loss(
    asked: tuple[torch.Tensor, torch.Tensor],
    found: tuple[torch.Tensor, torch.Tensor],
    asked_kept: torch.Tensor,
    found_kept: torch.Tensor,
    numbers: torch.Tensor,
) -> torch.Tensor:
    """How far the similarities of single query tokens are from the teacher's.

    Compared are each query token's MaxSim with each passage of the group, less the mean over the group, which does not
    change a ranking. The loss is the squared difference between student and teacher, plus half the squared difference
    for the student's similarity with the token that the teacher finds nearest.

    Args:
        asked: vectors of the queries by student and teacher, float32 (groups, query tokens, dim) each.
        found: vectors of the passages by student and teacher, float32 (passages, tokens, dim) each.
        asked_kept: tokens of the queries that count, bool (groups, query tokens).
        found_kept: tokens of the passages that count, bool (passages, tokens).
        numbers: passages of each group, int64 (groups, nway).

    Returns:
        A scalar, the mean over query tokens and passages.
    """
    total = asked[0].new_zeros(())
    count = 0
    for group, passages in enumerate(numbers):
        there, kept = asked_kept[group], found_kept[passages]
        students, teachers = (
            _similarities(queries[group][there], texts[passages], kept)
            for queries, texts in zip(asked, found, strict=True)
        )
        target, place = teachers.max(dim=-1)
        same_token = students.gather(-1, place[..., None])[..., 0]
        target = _centred(target)
        errors = (_centred(students.amax(dim=-1)) - target).square()
        errors = errors + _AT_TEACHERS_TOKEN * (_centred(same_token) - target).square()
        total = total + errors.sum()
        count += errors.numel()
    return total / max(1, count)


def _similarities(query: torch.Tensor, passages: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Cosines, float32 (query tokens, passages, tokens)."""
    products = (query @ passages.flatten(0, 1).T).unflatten(1, kept.shape)
    return products.masked_fill(~kept, _MASKED)


def _centred(values: torch.Tensor) -> torch.Tensor:
    return values - values.mean(dim=1, keepdim=True)
