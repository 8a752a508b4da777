"""How well a model in training ranks: every passage of a BEIR folder scored for its questions, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

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
from ...plugin.evaluation.measures import measure, require_ir_measures
from ..model.student import Student

_TEXTS_PER_BATCH = 32
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
        require_ir_measures()
        folder = Path(folder)
        judged = read_qrels(qrels_file(folder, split))
        qrels = {query_id: judged[query_id] for query_id in list(judged)[:questions]}
        queries = judged_queries(read_queries(beir_file(folder, "queries")), qrels)
        corpus = beir_file(folder, "corpus")
        passages = read_passages(corpus)
        check_missing(qrels, [doc_id for doc_id in judged_documents(qrels) if doc_id not in passages], str(corpus))
        return cls(queries, passages, qrels)

    @torch.inference_mode()
    def measure(self, student: Student) -> dict[str, float]:
        """hit@1, hit@3, MRR@10 and nDCG@10 of exhaustive MaxSim: name → value, rounded to four digits."""
        passages = list(self.passages)
        queries = student.tokenize_queries(list(self.queries.values()))
        asked = [vectors for start in range(0, len(queries), _TEXTS_PER_BATCH)
                 for vectors in _kept(student, queries[start : start + _TEXTS_PER_BATCH])]  # fmt: skip
        scores = torch.empty(len(asked), len(passages))
        tokenized = student.tokenize_passages(list(self.passages.values()))
        order = sorted(range(len(tokenized)), key=lambda i: len(tokenized[i].ids))
        stacked = torch.cat(asked)
        owners = torch.repeat_interleave(torch.arange(len(asked)), torch.tensor([len(a) for a in asked]))
        for start in range(0, len(order), _TEXTS_PER_BATCH):
            some = order[start : start + _TEXTS_PER_BATCH]
            for i, vectors in zip(some, _kept(student, [tokenized[i] for i in some]), strict=True):
                best = (stacked @ vectors.T).amax(dim=1).cpu()
                scores[:, i] = torch.zeros(len(asked)).index_add_(0, owners, best)
        best, found = scores.topk(min(10, len(passages)), dim=1)
        run = {
            query: {passages[i]: s for i, s in zip(row.tolist(), values.tolist(), strict=True)}
            for query, row, values in zip(self.queries, found, best, strict=True)
        }
        return {name: round(value, 4) for name, value in measure(run, self.qrels, _MEASURES).items()}


def _kept(student: Student, texts: list) -> list[torch.Tensor]:
    vectors, keep = student.vectors(texts)
    return [of_one[kept] for of_one, kept in zip(vectors, keep, strict=True)]
