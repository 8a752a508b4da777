"""How well a model in training ranks: every passage of a BEIR folder scored for its questions, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ...onnx_export.extras import require_extra
from ...plugin.evaluation.judgements import (
    Qrels,
    beir_file,
    check_missing,
    judged_documents,
    judged_queries,
    qrels_file,
    read_passages,
    read_qrels,
    read_queries,
)
from ...plugin.evaluation.measures import measure
from ..model.student import Student
from .ranks import Ranks

_TEXTS_PER_BATCH = 32
_PASSAGES_PER_CHUNK = 2_048  # tokenized together, and whose scores are in memory
_RANKED = 10  # passages of a question: no measure looks at more
_MEASURES = {"hit@1": "Success@1", "hit@3": "Success@3", "mrr@10": "RR@10", "ndcg@10": "nDCG@10"}


@dataclass(frozen=True)
class Evaluation:
    """Judged questions and the passages that are ranked for them; make one with `Evaluation.read`.

    Attributes:
        queries: query id → text.
        passages: passage id → text.
        qrels: query id → passage id → grade, of ``queries``.
    """

    queries: dict[str, str]
    passages: dict[str, str]
    qrels: Qrels

    @classmethod
    def read(cls, folder: str | Path, split: str = "dev", questions: int | None = None) -> Evaluation:
        """Read a BEIR folder.

        Args:
            folder: with corpus, queries and judgements.
            split: of the judgements.
            questions: the first N judged questions only; None takes all.

        Raises:
            SourceError: a file cannot be read; names the file and the line.
            InputError: a judged question is not among the queries, or most judged passages are not in the corpus.
            MissingExtraError: the extra ``evaluate`` is not installed.
        """
        require_extra("evaluate", "ir_measures")
        folder = Path(folder)
        judged = read_qrels(qrels_file(folder, split))
        qrels = {query_id: judged[query_id] for query_id in list(judged)[:questions]}
        queries = judged_queries(read_queries(beir_file(folder, "queries")), qrels)
        corpus = beir_file(folder, "corpus")
        passages = read_passages(corpus)
        check_missing(qrels, [doc_id for doc_id in judged_documents(qrels) if doc_id not in passages], str(corpus))
        return cls(queries, passages, qrels)

    @torch.inference_mode()
    def measure(self, student: Student, ranks: Ranks | None = None) -> dict[str, float]:
        """Measure exhaustive MaxSim.

        Args:
            student: the model, in evaluation mode.
            ranks: the processes of the training, which divide the passages; all must call this. None is this one alone.

        Returns:
            hit@1, hit@3, MRR@10 and nDCG@10: name → value, rounded to four digits.
        """
        ranks = ranks or Ranks()
        queries = student.tokenize_queries(list(self.queries.values()))
        asked = [vectors for start in range(0, len(queries), _TEXTS_PER_BATCH)
                 for vectors in _kept(student, queries[start : start + _TEXTS_PER_BATCH])]  # fmt: skip
        ids = list(self.passages)
        best = torch.empty(len(asked), 0)
        numbers = torch.empty(len(asked), 0, dtype=torch.int64)
        own = range(ranks.number, len(ids), ranks.count)
        for start in range(0, len(own), _PASSAGES_PER_CHUNK):
            chunk = torch.tensor(own[start : start + _PASSAGES_PER_CHUNK])
            scores = _scores(student, asked, [self.passages[ids[i]] for i in chunk.tolist()])
            best, numbers = _best(torch.cat([best, scores], 1), torch.cat([numbers, chunk.expand(len(asked), -1)], 1))
        parts = ranks.gather((best, numbers))
        best, numbers = _best(torch.cat([b for b, _ in parts], 1), torch.cat([n for _, n in parts], 1))
        run = {
            query: {ids[i]: s for i, s in zip(row.tolist(), values.tolist(), strict=True)}
            for query, row, values in zip(self.queries, numbers, best, strict=True)
        }
        return {name: round(value, 4) for name, value in measure(run, self.qrels, _MEASURES).items()}


def _scores(student: Student, asked: list[torch.Tensor], passages: list[str]) -> torch.Tensor:
    """MaxSim of every question with every passage: float32 (questions, passages)."""
    tokenized = student.tokenize_passages(passages)
    order = sorted(range(len(tokenized)), key=lambda i: len(tokenized[i].ids))
    stacked = torch.cat(asked)
    owners = torch.repeat_interleave(torch.arange(len(asked)), torch.tensor([len(a) for a in asked]))
    scores = torch.empty(len(asked), len(passages))
    for start in range(0, len(order), _TEXTS_PER_BATCH):
        some = order[start : start + _TEXTS_PER_BATCH]
        for i, vectors in zip(some, _kept(student, [tokenized[i] for i in some]), strict=True):
            best = (stacked @ vectors.T).amax(dim=1).cpu()
            scores[:, i] = torch.zeros(len(asked)).index_add_(0, owners, best)
    return scores


def _best(scores: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The best ten of each row, best first, and their numbers."""
    best, places = scores.topk(min(_RANKED, scores.shape[1]), dim=1)
    return best, numbers.gather(1, places)


def _kept(student: Student, texts: list) -> list[torch.Tensor]:
    vectors, keep = student.vectors(texts)
    return [of_one[kept] for of_one, kept in zip(vectors, keep, strict=True)]
