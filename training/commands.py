"""The commands `tansaku mine`, `tansaku train`, `tansaku average` and `tansaku weigh`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..onnx_export.errors import InputError

if TYPE_CHECKING:
    from .run.trainer import Progress as Step

Config = Annotated[Path, typer.Argument(help="Configuration, a TOML file; see `tansaku.training.config`.")]


def train(
    config: Config,
    resume: Annotated[bool, typer.Option(help="Go on where an interrupted training stopped, or begin anew.")] = True,
) -> None:
    """Train a model by the JaColBERTv2.5 recipe, as CONFIG says. Needs the extra `train`.

    On several GPUs: `torchrun --nproc-per-node 4 --no-python tansaku train train.toml`.

    Example: `tansaku train train.toml`
    """
    from .config import read_config  # what needs torch is imported only here, for the other commands' sake
    from .run.trainer import train as trained

    settings = read_config(config)
    console = Console(stderr=True)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=None, loss=0.0)

        def show(step: Step) -> None:
            bar.update(task, total=step.steps, completed=step.step, loss=step.loss)
            if step.evaluation or (not console.is_terminal and step.step % max(1, step.steps // 100) == 0):
                console.print(str(step), highlight=False)

        folder = trained(settings, resume=resume, progress=show)
    typer.echo(folder)


def mine(
    out: Annotated[Path, typer.Argument(help="JSONL file for the groups; one that was begun goes on.")],
    queries: Annotated[list[str], typer.Option("--queries", help="JSONL or TSV file of queries; may be repeated.")],
    collection: Annotated[list[str], typer.Option("--collection", help="Likewise, of passages.")],
    teacher: Annotated[
        list[str],
        typer.Option(
            "--teacher",
            help="Who scores: cross-encoder:MODEL, maxsim:BUNDLE, dense:BUNDLE, bm25 or labels (--qrels); "
            "WEIGHT*… weighs it; may be repeated.",
        ),
    ],
    run: Annotated[
        list[Path] | None,
        typer.Option("--run", help="TREC run file of candidates, as `tansaku evaluate --run` writes; repeatable."),
    ] = None,
    bm25: Annotated[bool, typer.Option("--bm25", help="Take candidates from BM25 over character bigrams too.")] = False,
    qrels: Annotated[Path | None, typer.Option("--qrels", help="BEIR judgements: what comes first in groups.")] = None,
    clusters: Annotated[
        str | None,
        typer.Option(
            "--clusters",
            help="Bundle: groups take their passages from the cluster, by its dense vectors, where the query belongs; "
            "training then encodes far fewer.",
        ),
    ] = None,
    nway: Annotated[int, typer.Option(help="Passages of a group.")] = 32,
    depth: Annotated[int, typer.Option(help="Candidates of each engine from which negatives are drawn.")] = 100,
    skip: Annotated[int, typer.Option(help="The first so many candidates are not drawn.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 12345,
) -> None:
    """Make groups for distillation: hard negatives from engines, scores from teachers. Needs the extra `train`.

    Example: `tansaku mine groups.jsonl --queries q.jsonl --collection c.jsonl --bm25 --teacher bm25`
    """
    from ..plugin.evaluation.bm25 import Bm25
    from ..plugin.evaluation.judgements import read_passages, read_qrels, read_queries, read_run
    from .data.clusters import cluster_passages, shared_candidates
    from .data.mining import MiningPlan
    from .data.mining import mine as mined
    from .data.teachers import dense_vectors, teacher_named

    plan = MiningPlan(nway, depth, skip, seed)
    asked, passages = read_queries(queries), read_passages(collection)
    candidates = [{q: list(found) for q, found in read_run(path).items()} for path in run or ()]
    collected = Bm25(passages.items()) if bm25 or any(name.endswith("bm25") for name in teacher) else None
    if bm25 and collected is not None:
        candidates.append({query_id: list(collected.best(text, depth)) for query_id, text in asked.items()})
    if not candidates and not (clusters and qrels):
        raise InputError("there are no candidates; give --run, --bm25 or both")
    judged = read_qrels(qrels) if qrels else {}
    positives = {q: [p for p, grade in found.items() if grade > 0] for q, found in judged.items() if q in asked}
    positives = {q: found for q, found in positives.items() if found}
    by_text: dict[str, set[str]] = {}
    for query_id, found in positives.items():
        by_text.setdefault(asked[query_id], set()).update(found)
    teachers, weights = zip(*(teacher_named(name, collected, by_text) for name in teacher), strict=True)
    if clusters is not None:
        numbers = cluster_passages(dense_vectors(clusters, list(passages.values())), nway, seed)
        shared = shared_candidates(list(asked), list(passages), numbers, candidates, positives)
        asked = {q: asked[q] for q in dict.fromkeys([*shared, *asked])}
        candidates = [shared]
    with _counting("mining", "queries", len(asked)) as show:
        report = mined(
            out, asked, passages, candidates, teachers, weights=weights, positives=positives, plan=plan, progress=show
        )
    typer.echo(f"{out}: {report.written:,} groups")
    for ids, why in ((report.too_few, "too few candidates"), (report.constant, "all scores the same")):
        if ids:
            typer.echo(f"left out {len(ids):,} groups, {why}: {', '.join(ids[:5])}{', …' if len(ids) > 5 else ''}")


def average(
    config: Config,
    out: Annotated[Path, typer.Argument(help="Folder for the averaged model.")],
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoint folders; one named twice counts twice.")],
    form: Annotated[str, typer.Option("--format", help="stanford or pylate.")] = "pylate",
) -> None:
    """Average checkpoints that `tansaku train CONFIG` has written, the last step of the recipe.

    Example: `tansaku average train.toml model run/checkpoint-2000 run/checkpoint-4000`
    """
    from .config import read_config
    from .run.averaging import save_average

    save_average(read_config(config), checkpoints, out, form)
    typer.echo(out)


def weigh(
    bundle: Annotated[Path, typer.Argument(help="Bundle that `tansaku export` wrote; it is given the weights.")],
    queries: Annotated[list[str], typer.Option("--queries", help="JSONL or TSV file of queries; may be repeated.")],
    collection: Annotated[list[str], typer.Option("--collection", help="Likewise, of passages.")],
    qrels: Annotated[Path, typer.Option("--qrels", help="BEIR judgements of the queries.")],
    questions: Annotated[int, typer.Option(min=1, help="Learn from at most so many judged queries.")] = 9_600,
    strength: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="How much of it is applied; less suits other kinds of queries."),
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 12345,
) -> None:
    """Learn from judgements how much each token of a query should count. Needs the extra `train`.

    Vectors stay as they are: what is indexed with BUNDLE stays so, and is asked with weighted queries from now on.

    Example: `tansaku weigh ./bundle --queries q.jsonl --collection c.jsonl --qrels train.tsv`
    """
    from ..onnx_export.convert.query_weights_graph import add_query_weights
    from ..onnx_export.encode.encoder import Encoder
    from ..plugin.evaluation.judgements import read_passages, read_qrels, read_queries
    from .query_weights import WeightsPlan, fit_query_weights

    with _counting("weighing", "passages") as show:
        fitted = fit_query_weights(
            Encoder.load(bundle),
            read_queries(queries),
            read_passages(collection),
            read_qrels(qrels),
            plan=WeightsPlan(questions=questions, strength=strength, seed=seed),
            progress=show,
            say=lambda done: typer.echo(done, err=True),
        )
    add_query_weights(bundle, *fitted.arrays())
    typer.echo(
        f"{bundle}: weights from {fitted.questions:,} queries; hit@1 of {fitted.held_out:,} others "
        f"{fitted.before:.4f} without and {fitted.after:.4f} with them"
    )


@contextlib.contextmanager
def _counting(doing: str, what: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, about a hundred plain lines otherwise; told how many are done, and of how many."""
    console = Console(stderr=True)
    columns = TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(doing, total=total)

        def show(done: int, total: int) -> None:
            bar.update(task, total=total, completed=done)
            if not console.is_terminal and (done == total or done % max(1, total // 100) == 0):
                console.print(f"{doing}: {done:,} of {total:,} {what}", highlight=False)

        yield show
