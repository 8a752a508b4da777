"""The model that is trained: token vectors of texts, and MaxSim of queries with passages, differentiable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as recomputed

from ...onnx_export.convert.checkpoint import Checkpoint
from ...onnx_export.convert.formats.backbone import positions
from ...onnx_export.encode.encoder import graph_inputs
from ...onnx_export.encode.rules import Expansion, TextRules
from ...onnx_export.encode.segmenter import load_segmenter
from ...onnx_export.encode.tokenize import TextTokenizer, TokenizedText
from ...onnx_export.errors import InputError
from ..config import ModelConfig
from .frozen import HiddenStates, SplitBackbone

Inputs = dict[str, torch.Tensor]
Encode = Callable[[Sequence[TokenizedText], Inputs], tuple[torch.Tensor, ...]]
_MASKED = -1e4  # less than any cosine
MAX_TOKENS_PER_RUN = 16_384  # that go through the backbone together
_ENOUGH_TOKENS = 1_024  # for a run of their own
_MAX_LENGTH_RATIO = 1.25  # of the longest text of a run to its shortest


class Student(torch.nn.Module):
    """The model in training: a checkpoint's backbone and projection. It tokenizes as the exported bundle will.

    Args:
        checkpoint: the model to start from; its weights are trained in place.

    Attributes:
        recompute: whether what a run of texts keeps for the backward pass is computed again then, run by run. Memory is
            that of one run, however many texts a step has; a step takes about a third longer.
        tokens_at_once: largest number of tokens of a run, with padding.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.recompute, self.tokens_at_once = False, MAX_TOKENS_PER_RUN
        self.backbone = checkpoint.backbone
        self.projection = checkpoint.projection.requires_grad_(True)
        pooler = getattr(self.backbone, "pooler", None)
        if pooler is not None:  # token vectors do not go through it
            pooler.requires_grad_(False)
        segmenter = load_segmenter(checkpoint.segmenter, checkpoint.tokenizer)
        self.tokenize_queries = TextTokenizer(checkpoint.tokenizer, checkpoint.query, segmenter)
        self.tokenize_passages = TextTokenizer(checkpoint.tokenizer, checkpoint.document, segmenter)
        self.split: SplitBackbone | None = None

    def freeze_below(self, trained: int, kept: Path | None, precision: torch.dtype) -> None:
        """Train the upper layers and the projection only.

        Args:
            trained: number of upper layers to train.
            kept: folder where the results of the other layers are kept; None keeps nothing.
            precision: number format of the other layers.

        Raises:
            InputError: the backbone has fewer layers or cannot be cut at a layer.
        """
        self.split = SplitBackbone(self.backbone, trained, precision)
        self.split.check(self.inputs(self.tokenize_passages(["日本語の文です。", "短い文"])))
        if kept is not None:
            self.split.kept = HiddenStates(kept / self.split.fingerprint(), self.backbone.config.hidden_size)

    def drop_out(self, probability: float) -> None:
        """Set the dropout probability of the backbone."""
        for module in self.backbone.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = probability

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return next(self.parameters()).device

    def vectors(self, texts: Sequence[TokenizedText]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token vectors of texts.

        Returns:
            Vectors of unit length, float32 (texts, longest, dim), and which of them count, bool (texts, longest).
        """
        (vectors,) = self.in_runs(texts, lambda run, inputs: (self.project(self._hidden(run, inputs)),))
        return vectors, self.kept(texts)

    def in_runs(self, texts: Sequence[TokenizedText], encode: Encode) -> tuple[torch.Tensor, ...]:
        """Results of a function for texts, called with texts of about the same length together.

        Args:
            texts: texts in any order.
            encode: function of some of the texts, and of the same as the backbone takes them.

        Returns:
            The results of ``encode``, (texts, longest, …) each.
        """
        longest = max(len(text.ids) for text in texts)
        order, parts = [], []
        for numbers in runs_of(texts, self.tokens_at_once):
            run = [texts[i] for i in numbers]
            given = self._encoded(encode, run)
            parts.append([functional.pad(part, (0, 0, 0, longest - part.shape[1])) for part in given])
            order += numbers
        places = torch.empty(len(order), dtype=torch.int64)
        places[torch.tensor(order)] = torch.arange(len(order))
        return tuple(torch.cat(part)[places.to(self.device)] for part in zip(*parts, strict=True))

    def _encoded(self, encode: Encode, run: Sequence[TokenizedText]) -> tuple[torch.Tensor, ...]:
        if self.recompute and torch.is_grad_enabled():
            # The loss needs the vectors of all texts at once, their backward pass only those of one run at a time.
            return recomputed(encode, run, self.inputs(run), use_reentrant=False)
        return encode(run, self.inputs(run))

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """Vectors of unit length, float32 (texts, longest, dim), from the backbone's last hidden states.

        In float32 whatever the precision of the backbone: near passages differ in digits that 16 bits do not have.
        """
        with torch.autocast(self.device.type, enabled=False):
            return functional.normalize(self.projection(hidden.float()), dim=-1)

    def kept(self, texts: Sequence[TokenizedText]) -> torch.Tensor:
        """The tokens that count in MaxSim: bool (texts, longest)."""
        keep = np.zeros((len(texts), max(len(text.ids) for text in texts)), bool)
        for row, text in enumerate(texts):
            keep[row, : len(text.keep)] = text.keep
        return torch.from_numpy(keep).to(self.device)

    def _hidden(self, texts: Sequence[TokenizedText], inputs: Inputs) -> torch.Tensor:
        if self.split is None:
            return self.backbone(**inputs).last_hidden_state
        return self.split.upper(self.split.lower(texts, inputs), inputs)

    def inputs(self, texts: Sequence[TokenizedText]) -> Inputs:
        """The texts as the backbone takes them."""
        return {name: torch.from_numpy(array).to(self.device) for name, array in graph_inputs(texts).items()}

    def forward(
        self, queries: Sequence[TokenizedText], passages: Sequence[TokenizedText], *, all_pairs: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """MaxSim of queries with the passages of their groups.

        Args:
            queries: one query for each group.
            passages: nway passages for each group, one group after the other.
            all_pairs: also score every query with the first passage of every group.

        Returns:
            float32 (queries, nway), and float32 (queries, queries) or None without ``all_pairs``. In the latter, -inf
            stands where another group has the query's own first passage, as with questions about one text.
        """
        asked, asked_kept = self.vectors(queries)
        distinct, numbers = distinct_texts(passages)
        all_found, all_kept = self.vectors(distinct)
        nway = len(passages) // len(queries)
        found, found_kept = (part[numbers.to(self.device)] for part in (all_found, all_kept))
        grouped = found.unflatten(0, (len(queries), nway))
        scores = maxsim(asked[:, None], asked_kept[:, None], grouped, found_kept.unflatten(0, (len(queries), nway)))
        if not all_pairs:
            return scores, None
        first, first_kept = grouped[:, 0], found_kept[::nway]
        pairs = maxsim(asked[:, None], asked_kept[:, None], first[None], first_kept[None])
        of_group = numbers[::nway].to(self.device)
        again = (of_group[:, None] == of_group) & ~torch.eye(len(queries), dtype=torch.bool, device=self.device)
        return scores, pairs.masked_fill(again, -torch.inf)


def maxsim(
    queries: torch.Tensor, query_kept: torch.Tensor, passages: torch.Tensor, passage_kept: torch.Tensor
) -> torch.Tensor:
    """MaxSim: for each kept query token the largest cosine with a kept passage token, summed.

    In float32 also where autocast is on, which would round cosines to 8 bits in bfloat16.

    Args:
        queries: float32 (…, query tokens, dim).
        query_kept: bool (…, query tokens).
        passages: float32 (…, passage tokens, dim); leading dimensions are broadcast.
        passage_kept: bool (…, passage tokens).

    Returns:
        float32 (…).
    """
    with torch.autocast(queries.device.type, enabled=False):
        similarities = queries.float() @ passages.float().transpose(-1, -2)
        similarities = similarities.masked_fill(~passage_kept[..., None, :], _MASKED)
        return (similarities.amax(dim=-1) * query_kept).sum(dim=-1)


def with_rules(checkpoint: Checkpoint, config: ModelConfig) -> Checkpoint:
    """The checkpoint with the lengths and the query augmentation of a configuration, as it is trained.

    Raises:
        InputError: mask tokens are wanted, but the vocabulary has none; or a length is more than the backbone reads.
    """
    most = positions(checkpoint.backbone.config)
    for name in ("query_length", "document_length"):
        if getattr(config, name) > most:
            raise InputError(
                f"{checkpoint.name}: model.{name} is {getattr(config, name)}; the backbone has {most} positions"
            )
    query = dataclasses.replace(checkpoint.query, max_length=config.query_length, expansion=None)
    if config.augmentation != "none":
        before = checkpoint.query.expansion
        attend = before is not None and before.attend
        expansion = Expansion(_mask_token(checkpoint), config.augmentation, config.query_length, attend)
        longest = config.query_length if config.augmentation == "fixed" else most
        query = dataclasses.replace(query, max_length=longest, expansion=expansion)
    document: TextRules = dataclasses.replace(checkpoint.document, max_length=config.document_length)
    return dataclasses.replace(checkpoint, query=query, document=document)


def for_search(trained: Checkpoint, start: Checkpoint) -> Checkpoint:
    """A model as it is written: with the dynamic query length of the checkpoint that its training began with.

    The paper trains with queries of a fixed length and searches with a dynamic one (JaColBERTv2.5, section 4). So where
    training has filled queries to a fixed length, and ``start`` has a dynamic rule, the model gets that rule.

    Args:
        trained: the model with the rules of its training, from `with_rules`.
        start: the checkpoint before `with_rules`.

    Returns:
        ``trained`` with other rules, or as it is; the weights are shared.
    """
    fixed, dynamic = trained.query.expansion, start.query.expansion
    if fixed is None or fixed.rule != "fixed" or dynamic is None or dynamic.rule not in ("paper", "shipped"):
        return trained
    query = dataclasses.replace(
        trained.query,
        max_length=positions(trained.backbone.config),
        expansion=dataclasses.replace(fixed, rule=dynamic.rule),
    )
    return dataclasses.replace(trained, query=query)


def _mask_token(checkpoint: Checkpoint) -> str:
    if checkpoint.query.expansion is not None:
        return checkpoint.query.expansion.token
    for token in ("[MASK]", "<mask>"):
        if checkpoint.tokenizer.token_to_id(token) is not None:
            return token
    raise InputError(f"{checkpoint.name}: the vocabulary has no mask token; set model.augmentation to none")


def runs_of(texts: Sequence[TokenizedText], most: int = MAX_TOKENS_PER_RUN) -> Iterator[list[int]]:
    """Numbers of the texts that run together, shorter texts first.

    A run has at most ``most`` tokens with padding, or one text. Once it has `_ENOUGH_TOKENS`, it takes no
    text that is over a quarter longer than its shortest, as padding costs as much as real tokens.
    """
    lengths = [len(text.ids) for text in texts]
    order = sorted(range(len(texts)), key=lengths.__getitem__)
    start = 0
    for end, number in enumerate(order):
        filled = (end - start) * lengths[order[end - 1]]
        uneven = filled >= _ENOUGH_TOKENS and lengths[number] > _MAX_LENGTH_RATIO * lengths[order[start]]
        if end > start and (uneven or (end + 1 - start) * lengths[number] > most):
            yield order[start:end]
            start = end
    yield order[start:]


def distinct_texts(texts: Sequence[TokenizedText]) -> tuple[list[TokenizedText], torch.Tensor]:
    """The texts without repetitions, and for each text its number among them: int64 (texts,)."""
    keys = [text.ids.tobytes() for text in texts]
    distinct = dict(zip(keys, texts, strict=True))
    numbers = {key: number for number, key in enumerate(distinct)}
    return list(distinct.values()), torch.tensor([numbers[key] for key in keys])
