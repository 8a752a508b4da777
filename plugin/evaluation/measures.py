"""Standard measures of a run, by ir_measures. Needs the extra ``evaluate``."""

from __future__ import annotations

from collections.abc import Mapping

from ...onnx_export.extras import require_extra
from .judgements import Qrels, Run

MEASURES = {
    "ndcg@10": "nDCG@10",
    "mrr@10": "RR@10",
    "hit@1": "Success@1",
    "hit@3": "Success@3",
    "hit@5": "Success@5",
    "hit@10": "Success@10",
}


def measure(run: Run, qrels: Qrels, measures: Mapping[str, str] = MEASURES) -> dict[str, float]:
    """Measures of ``run``, each the mean over the judged queries.

    Args:
        run: query id → document id → score. A judged query that is not in it counts as one that found nothing.
        qrels: query id → document id → grade.
        measures: name → measure as ir_measures writes it; by default nDCG@10, MRR@10 and hit@1/3/5/10.

    Returns:
        Name → value, from 0 to 1.

    Raises:
        MissingExtraError: the extra ``evaluate`` is not installed.
    """
    require_extra("evaluate", "ir_measures")
    import ir_measures

    wanted = {name: ir_measures.parse_measure(text) for name, text in measures.items()}
    values = ir_measures.calc_aggregate(list(wanted.values()), qrels, run)
    return {name: float(values[parsed]) for name, parsed in wanted.items()}
