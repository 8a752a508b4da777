"""The model that is trained: token vectors of texts, and MaxSim of queries with passages, differentiable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ..onnx_export import Expansion, InputError, TextRules, TokenizedText
from ..onnx_export.checkpoint import Checkpoint
from ..onnx_export.encoder import graph_inputs
from ..onnx_export.segment import load_segmenter
from ..onnx_export.tokenize import TextTokenizer
from .config import ModelConfig
from .frozen import HiddenStates, SplitBackbone
from .layers import LayersTeacher, token_loss

_MASKED = -1e4  # less than any cosine, and a number in 16 bits too
_RUN_TOKENS = 16_384  # that go through the backbone together


class Student(torch.nn.Module):
    """A checkpoint's backbone and projection; tokenizes as the exported bundle will."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.backbone = checkpoint.backbone
        self.projection = checkpoint.projection.requires_grad_(True)
        pooler = getattr(self.backbone, "pooler", None)
        if pooler is not None:  # not on the way to token vectors
            pooler.requires_grad_(False)
        segment = load_segmenter(checkpoint.segmenter, checkpoint.tokenizer)
        self.tokenize_queries = TextTokenizer(checkpoint.tokenizer, checkpoint.query, segment)
        self.tokenize_passages = TextTokenizer(checkpoint.tokenizer, checkpoint.document, segment)
        self.split: SplitBackbone | None = None
        self.layers: LayersTeacher | None = None

    def freeze_below(self, trained: int, kept: Path | None, precision: torch.dtype) -> None:
        """Train so many of the upper layers alone; what the others give is kept in the folder ``kept``, if any.

        Raises InputError for more layers than there are, and a backbone that cannot be cut at a layer.
        """
        self.split = SplitBackbone(self.backbone, trained, precision)
        self.split.check(self._inputs(self.tokenize_passages(["日本語の文です。", "短い文"])))
        if kept is not None:
            self.split.kept = HiddenStates(kept / self.split.fingerprint(), self.backbone.config.hidden_size)

    def learn_from_layers(self, passages: Sequence[str]) -> None:
        """Let the upper layers as they are now teach token similarities; ``passages`` are a sample to centre them by.

        Raises InputError unless `freeze_below` has cut the model.
        """
        if self.split is None:
            raise InputError("the layers that are trained teach by what they were: set optimizer.trained_layers")
        self.layers = LayersTeacher(self.split)
        texts = sorted(self.tokenize_passages(list(passages)), key=lambda text: len(text.ids))
        runs = (texts[run] for run in _runs([len(text.ids) for text in texts]))
        self.layers.centre((run, self._inputs(run), self._kept(run)) for run in runs)

    def drop_out(self, probability: float) -> None:
        """Drop out so much of the backbone's values in training."""
        for module in self.backbone.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = probability

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def vectors(self, texts: Sequence[TokenizedText]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token vectors of unit length, float32 (texts, longest, dim), and which are kept, bool (texts, longest).

        Texts run together with others of about their length; what lies behind a text's end is not kept.
        """
        return self._in_runs(texts, self._run), self._kept(texts)

    def _in_runs(
        self, texts: Sequence[TokenizedText], run: Callable[[Sequence[TokenizedText]], torch.Tensor]
    ) -> torch.Tensor:
        longest = max(len(text.ids) for text in texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
        parts = []
        for chosen in _runs([len(texts[i].ids) for i in order]):
            vectors = run([texts[i] for i in order[chosen]])
            parts.append(functional.pad(vectors, (0, 0, 0, longest - vectors.shape[1])))
        places = torch.empty(len(order), dtype=torch.int64)
        places[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts)[places.to(self.device)]

    def _kept(self, texts: Sequence[TokenizedText]) -> torch.Tensor:
        keep = np.zeros((len(texts), max(len(text.ids) for text in texts)), bool)
        for row, text in enumerate(texts):
            keep[row, : len(text.keep)] = text.keep
        return torch.from_numpy(keep).to(self.device)

    def _run(self, texts: Sequence[TokenizedText]) -> torch.Tensor:
        inputs = self._inputs(texts)
        if self.split is None:
            hidden = self.backbone(**inputs).last_hidden_state
        else:
            hidden = self.split.upper(self.split.lower(texts, inputs), inputs)
        return functional.normalize(self.projection(hidden).float(), dim=-1)

    def _taught(self, texts: Sequence[TokenizedText]) -> torch.Tensor:
        assert self.layers is not None  # noqa: S101
        return self.layers.vectors(texts, self._inputs(texts))

    def _inputs(self, texts: Sequence[TokenizedText]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array).to(self.device) for name, array in graph_inputs(texts).items()}

    def forward(
        self, queries: Sequence[TokenizedText], passages: Sequence[TokenizedText], *, all_pairs: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Scores of each query's passages, float32 (queries, nway); those of all pairs; the loss of token similarities.

        Args:
            queries: one for each group.
            passages: nway for each group, one group after the other.
            all_pairs: return the scores of every query with every group's first passage too, (queries, queries); -inf
                where that is the query's own first passage again, as of questions about one text. Otherwise None.

        The last is None unless the model's layers teach, see `learn_from_layers`.
        """
        asked, asked_kept = self.vectors(queries)
        distinct, numbers = _distinct(passages)
        all_found, all_kept = self.vectors(distinct)
        nway = len(passages) // len(queries)
        tokens = None
        if self.layers is not None:
            taught = self._in_runs(queries, self._taught), self._in_runs(distinct, self._taught)
            places = numbers.to(self.device).unflatten(0, (len(queries), nway))
            with torch.autocast(self.device.type, enabled=False):
                tokens = token_loss((asked, taught[0]), (all_found, taught[1]), asked_kept, all_kept, places)
        found, found_kept = (part[numbers.to(self.device)] for part in (all_found, all_kept))
        grouped = found.unflatten(0, (len(queries), nway))
        scores = maxsim(asked[:, None], asked_kept[:, None], grouped, found_kept.unflatten(0, (len(queries), nway)))
        if not all_pairs:
            return scores, None, tokens
        first, first_kept = grouped[:, 0], found_kept[::nway]
        pairs = maxsim(asked[:, None], asked_kept[:, None], first[None], first_kept[None])
        of_group = numbers[::nway].to(self.device)
        again = (of_group[:, None] == of_group) & ~torch.eye(len(queries), dtype=torch.bool, device=self.device)
        return scores, pairs.masked_fill(again, -torch.inf), tokens


def maxsim(
    queries: torch.Tensor, query_kept: torch.Tensor, passages: torch.Tensor, passage_kept: torch.Tensor
) -> torch.Tensor:
    """MaxSim: for each kept query token the largest cosine with a kept passage token, summed.

    Args:
        queries: float32 (…, query tokens, dim).
        query_kept: bool (…, query tokens).
        passages: float32 (…, passage tokens, dim); leading dimensions are broadcast.
        passage_kept: bool (…, passage tokens).
    """
    similarities = queries @ passages.transpose(-1, -2)
    similarities = similarities.masked_fill(~passage_kept[..., None, :], _MASKED)
    return (similarities.amax(dim=-1) * query_kept).sum(dim=-1)


def with_rules(checkpoint: Checkpoint, config: ModelConfig) -> Checkpoint:
    """The checkpoint with the lengths and the query augmentation of a configuration.

    Raises InputError if mask tokens are wanted and the vocabulary has none.
    """
    query = dataclasses.replace(checkpoint.query, max_length=config.query_length, expansion=None)
    if config.augmentation != "none":
        token = _mask_token(checkpoint)
        length = config.query_length
        expansion = Expansion(token, "fixed" if config.augmentation == "fixed" else "paper", length)
        longest = length if config.augmentation == "fixed" else checkpoint.query.max_length
        query = dataclasses.replace(query, max_length=longest, expansion=expansion)
    document: TextRules = dataclasses.replace(checkpoint.document, max_length=config.document_length)
    return dataclasses.replace(checkpoint, query=query, document=document)


def _mask_token(checkpoint: Checkpoint) -> str:
    if checkpoint.query.expansion is not None:
        return checkpoint.query.expansion.token
    for token in ("[MASK]", "<mask>"):
        if checkpoint.tokenizer.token_to_id(token) is not None:
            return token
    raise InputError(f"{checkpoint.name}: the vocabulary has no mask token; set model.augmentation to none")


def _runs(lengths: Sequence[int]) -> Iterator[slice]:
    """Consecutive texts that run together, of ascending lengths: at most `_RUN_TOKENS` when filled up, or one text."""
    start = 0
    for i, length in enumerate(lengths):
        if i > start and (i + 1 - start) * length > _RUN_TOKENS:
            yield slice(start, i)
            start = i
    yield slice(start, len(lengths))


def _distinct(texts: Sequence[TokenizedText]) -> tuple[list[TokenizedText], torch.Tensor]:
    """The texts without repetitions, and for each text its number among them: int64 (texts,)."""
    keys = [text.ids.tobytes() for text in texts]
    distinct = dict(zip(keys, texts, strict=True))
    numbers = {key: number for number, key in enumerate(distinct)}
    return list(distinct.values()), torch.tensor([numbers[key] for key in keys])
