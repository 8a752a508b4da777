"""Models, BM25 and the index on public benchmarks: the table of docs/reference/results.md.

    python -m benchmarks.quality.public --data PUBLIC --model ./jacolbert

PUBLIC has one folder for each benchmark, named as `tansaku evaluate --benchmark` names it (jqara, jacwir, ...); those
that are there are run. What is in each, and where it comes from, is in docs/how-to/evaluation.md. Nothing is
downloaded. The model inside is ranked exhaustively and through an index, the models of `--model` exhaustively alone.
Each row is printed when it is done: the main measure first, then the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from tansaku import Encoder
from tansaku.plugin.evaluation.beir import Way
from tansaku.plugin.evaluation.benchmarks.evaluate import TaskResult, evaluate_benchmark, mean
from tansaku.plugin.evaluation.benchmarks.names import BENCHMARKS

from ..support.machine import cpu_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with one folder for each benchmark")
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="a benchmark; all that are there")
    parser.add_argument("--model", type=Path, action="append", default=[], help="folder of another model's bundle")
    parser.add_argument("--questions", type=int, help="judged questions of each task; all")
    arguments = parser.parse_args()
    there = [name for name in arguments.only or BENCHMARKS if (arguments.data / name).is_dir()]
    if not there:
        parser.error(f"{arguments.data}: no folder named as a benchmark: {', '.join(arguments.only or BENCHMARKS)}")
    inside = Encoder.load()
    others = {path.name: Encoder.load(path) for path in arguments.model}
    print(f"{cpu_name()}, {date.today()}")
    for name in there:
        print(f"\n{name}")
        for row in rows(name, arguments.data / name, inside, others, arguments.questions):
            print(row, flush=True)


def rows(name: str, folder: Path, inside: Encoder, others: dict[str, Encoder], questions: int | None) -> Iterator[str]:
    """One row for each task and way, and one for each way's mean over several tasks."""
    found: list[TaskResult] = []
    of_inside: tuple[Way, ...] = ("bm25", "exhaustive", "index")
    of_others: tuple[Way, ...] = ("exhaustive",)
    for models, ways in (({inside.bundle.name: inside}, of_inside), (others, of_others)):
        if not models:
            continue
        for result in evaluate_benchmark(name, folder, models=models, ways=ways, questions=questions):
            found.append(result)
            yield row(f"{result.task.name}, {result.way}", result.measures) + f" {result.seconds:.0f} s |"
    if len({result.task.name for result in found}) > 1:
        for way, measures in mean(found).items():
            yield row(f"mean, {way}", measures)


def row(label: str, measures: dict[str, float]) -> str:
    """A row of a Markdown table."""
    return f"| {label} | " + " | ".join(f"{name} {value:.4f}" for name, value in measures.items()) + " |"


if __name__ == "__main__":
    main()
