"""How well a model in training ranks: every passage of a BEIR folder scored for its questions, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ...onnx_export.errors import MissingExtraError
from ..data.groups import read_judgements, read_texts
from ..errors import TrainingDataError
from ..model.student import Student

try:
    import ir_measures
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "ir-measures", "train") from error

_TOGETHER = 32  # texts that are encoded together
_MEASURES = {"hit@1": "Success@1", "hit@3": "Success@3", "mrr@10": "RR@10", "ndcg@10": "nDCG@10"}


@dataclass(frozen=True)
class Evaluation:
    """Judged questions and the passages they are asked of; read one with `Evaluation.read`."""

    queries: dict[str, str]
    passages: dict[str, str]
    qrels: dict[str, dict[str, int]]

    @classmethod
    def read(cls, folder: str | Path, split: str = "dev", questions: int | None = None) -> Evaluation:
        """The first ``questions`` judged ones of a BEIR folder; all if None.

        Raises TrainingDataError for files that cannot be read and judgements of unknown questions.
        """
        folder = Path(folder)
        path = folder / "qrels" / f"{split}.tsv"
        qrels = read_judgements(path)
        texts = read_texts([folder / "queries.jsonl"])
        chosen = list(qrels)[:questions]
        unknown = [query for query in chosen if query not in texts]
        if unknown:
            raise TrainingDataError(f"{path}: the query {unknown[0]!r} is not in queries.jsonl")
        return cls(
            {query: texts[query] for query in chosen},
            read_texts([folder / "corpus.jsonl"]),
            {query: qrels[query] for query in chosen},
        )

    @torch.inference_mode()
    def measure(self, student: Student) -> dict[str, float]:
        """hit@1, hit@3, MRR@10 and nDCG@10 of exhaustive MaxSim."""
        passages = list(self.passages)
        queries = student.tokenize_queries(list(self.queries.values()))
        asked = [vectors for start in range(0, len(queries), _TOGETHER)
                 for vectors in _kept(student, queries[start : start + _TOGETHER])]  # fmt: skip
        scores = torch.empty(len(asked), len(passages))
        tokenized = student.tokenize_passages(list(self.passages.values()))
        order = sorted(range(len(tokenized)), key=lambda i: len(tokenized[i].ids))
        stacked = torch.cat(asked)
        owners = torch.repeat_interleave(torch.arange(len(asked)), torch.tensor([len(a) for a in asked]))
        for start in range(0, len(order), _TOGETHER):
            some = order[start : start + _TOGETHER]
            for i, vectors in zip(some, _kept(student, [tokenized[i] for i in some]), strict=True):
                best = (stacked @ vectors.T).amax(dim=1).cpu()
                scores[:, i] = torch.zeros(len(asked)).index_add_(0, owners, best)
        best, found = scores.topk(min(10, len(passages)), dim=1)
        run = {
            query: {passages[i]: s for i, s in zip(row.tolist(), values.tolist(), strict=True)}
            for query, row, values in zip(self.queries, found, best, strict=True)
        }
        wanted = {name: ir_measures.parse_measure(text) for name, text in _MEASURES.items()}
        values = ir_measures.calc_aggregate(list(wanted.values()), self.qrels, run)
        return {name: round(float(values[parsed]), 4) for name, parsed in wanted.items()}


def _kept(student: Student, texts: list) -> list[torch.Tensor]:
    vectors, keep = student.vectors(texts)
    return [of_one[kept] for of_one, kept in zip(vectors, keep, strict=True)]
