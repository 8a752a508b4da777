"""`tansaku evaluate --benchmark`: models, BM25 and the index on a public benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...onnx_export.counts import counted
from ...onnx_export.extras import require_extra
from . import display

if TYPE_CHECKING:
    from ..evaluation.benchmarks.evaluate import TaskResult


def run_benchmark(
    name: str,
    data: Path,
    split: str | None,
    *,
    ways: Sequence[str] | None,
    questions: int | None,
    recall: Any,
    model: Path | None,
    threads: int | None,
    allow_missing: bool,
    as_json: bool,
) -> None:
    """Rank a benchmark and print its measures.

    Args:
        name: name of the benchmark.
        data: folder with its files.
        split: split of the data; None takes the one that is published.
        ways: ways to rank; None takes all.
        questions: number of judged questions of each task; None asks all.
        recall: thoroughness of the search in an index.
        model: folder of a bundle; None takes the model inside.
        threads: number of threads for encoding.
        allow_missing: whether most judged documents may be missing.
        as_json: whether JSON is printed.

    Raises:
        TansakuError: the data cannot be read, or an argument cannot be used.
    """
    from ...onnx_export.encode.encoder import Encoder
    from ..evaluation.beir import WAYS, Way
    from ..evaluation.benchmarks.evaluate import evaluate_benchmark, mean
    from ..evaluation.benchmarks.names import benchmark_named
    from ..search.cuts import queries_warning

    wanted = cast("tuple[Way, ...]", tuple(dict.fromkeys(ways)) if ways else WAYS)  # checked where it is used
    encoders: dict[str, Encoder] = {}
    # Both before a model is loaded.
    benchmark_named(name)
    require_extra("evaluate", "ir_measures", *(["bm25s"] if "bm25" in wanted else []))
    if set(wanted) != {"bm25"}:
        encoder = Encoder.load(threads=threads) if model is None else Encoder.load(model, threads=threads)
        encoders[encoder.bundle.name] = encoder
    results: list[TaskResult] = []
    with display.ProgressDisplay() as progress:
        measured = evaluate_benchmark(
            name,
            data,
            split,
            models=encoders,
            ways=wanted,
            questions=questions,
            recall=recall,
            allow_missing=allow_missing,
            progress=progress,
        )
        # The run takes more memory than all the rest.
        results.extend(dataclasses.replace(result, run={}) for result in measured)
    asked = [text for tasks in _by_task(results) for text in tasks[0].beir.queries.values()]
    for encoder_name, encoder in encoders.items():
        if warning := queries_warning(encoder, asked):
            display.show_warning(f"{encoder_name}: {warning}")
    means = mean(results)
    if as_json:
        display.show_json({"benchmark": name.lower(), "tasks": [_as_json(t) for t in _by_task(results)], "mean": means})
        return
    for of_task in _by_task(results):
        _show(of_task)
    if len(_by_task(results)) > 1:
        display.out.print(f"mean of {counted(len(_by_task(results)), 'task')}")
        display.show_ways([(way, measures, None) for way, measures in means.items()])


def _by_task(results: Sequence[TaskResult]) -> list[list[TaskResult]]:
    of_tasks: dict[str, list[TaskResult]] = {}
    for result in results:
        of_tasks.setdefault(result.task.name, []).append(result)
    return list(of_tasks.values())


def _as_json(of_task: Sequence[TaskResult]) -> dict[str, Any]:
    task, beir = of_task[0].task, of_task[0].beir
    return {
        "name": task.name,
        "split": task.split,
        "revision": beir.revision,
        "questions": len(beir.queries),
        "unjudged": of_task[0].unjudged,
        "documents": beir.n_documents,
        "ranked": "corpus" if task.candidates is None else "candidates",
        "empty": beir.empty,
        "missing": len(beir.missing),
        "results": [{"way": r.way, "metrics": r.measures, "seconds": r.seconds} for r in of_task],
    }


def _show(of_task: Sequence[TaskResult]) -> None:
    task, beir = of_task[0].task, of_task[0].beir
    ranked = "" if task.candidates is None else ", each question's candidates ranked"
    counts = f"{counted(len(beir.queries), 'question')}, {counted(beir.n_documents, 'document')}"
    display.out.print(f"{display.shown(f'{task.name}, {task.split}')}: {counts}{ranked}")
    display.show_left_out(beir.empty, beir.missing)
    if of_task[0].unjudged:
        display.out.print(f"[yellow]{counted(of_task[0].unjudged, 'query')}[/yellow] without judgements left out")
    display.show_ways([(result.way, result.measures, result.seconds) for result in of_task])
