"""The commands `tansaku mine`, `tansaku train`, `tansaku average` and `tansaku weigh`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..onnx_export.counts import counted, named
from ..onnx_export.errors import InputError
from ..onnx_export.extras import require_extra
from ..onnx_export.files import check_output, check_output_folder, finished_lines
from ..plugin.cli import display
from ..plugin.cli.options import Resume, Threads

if TYPE_CHECKING:
    from .run.trainer import StepReport

Config = Annotated[
    Path, typer.Argument(help="Configuration of the training: a TOML file, see `tansaku.training.config`.")
]
Queries = Annotated[
    list[str], typer.Option("--queries", help="File of queries: JSONL, JSON, CSV, TSV or Parquet; may be repeated.")
]
Collection = Annotated[
    list[str], typer.Option("--collection", help="File of passages, of the same kinds; may be repeated.")
]
Seed = Annotated[int, typer.Option(help="Seed of all random draws.")]

_LINES = 100  # about as many lines with a loss are printed


def train(config: Config, resume: Resume = True) -> None:
    """Train a model by the JaColBERTv2.5 recipe, as CONFIG says. Needs the extra `train`.

    On several GPUs: `torchrun --nproc-per-node 4 --no-python tansaku train train.toml`.

    Example: `tansaku train train.toml`
    """
    require_extra("train")
    from .config import read_config  # torch is imported here only, so that the other commands start quickly
    from .run.state import STATE_FILE, saved_step
    from .run.trainer import train as run_training

    settings = read_config(config)
    if settings.run.tensorboard:
        require_extra("tensorboard")

    def kept() -> str:
        step = saved_step(Path(settings.run.output) / STATE_FILE)
        return f"step {step:,} is saved in {settings.run.output}" if step else ""

    with _interruptible(kept), display.ProgressDisplay() as progress:

        def show(step: StepReport) -> None:
            if step.evaluation or step.step == step.steps or step.step % max(1, step.steps // _LINES) == 0:
                progress.note(str(step))

        folder = run_training(settings, resume=resume, progress=progress, on_step=show, note=progress.note)
    typer.echo(folder)


def mine(
    out: Annotated[Path, typer.Argument(help="JSONL file for the groups.")],
    queries: Queries,
    collection: Collection,
    teacher: Annotated[
        list[str],
        typer.Option(
            "--teacher",
            help="Teacher that scores the passages: cross-encoder:MODEL, maxsim:BUNDLE, dense:BUNDLE, bm25, or labels "
            "(from --qrels); may be repeated. A number before it is its weight, as in 0.5*bm25.",
        ),
    ],
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run", help="TREC run file with candidates, as `tansaku evaluate --run` writes it; may be repeated."
        ),
    ] = None,
    bm25: Annotated[bool, typer.Option("--bm25", help="Candidates from BM25 over character bigrams.")] = False,
    qrels: Annotated[
        Path | None,
        typer.Option("--qrels", help="Judgements, BEIR's or TREC's: a group begins with a relevant passage."),
    ] = None,
    clusters: Annotated[
        str | None,
        typer.Option(
            "--clusters",
            help="Bundle whose dense vectors divide the passages into clusters. The groups of a query take their "
            "passages from its cluster; training then encodes far fewer.",
        ),
    ] = None,
    nway: Annotated[int, typer.Option(help="Number of passages of a group.")] = 32,
    depth: Annotated[
        int, typer.Option(help="Number of candidates of each engine that negatives are drawn from.")
    ] = 100,
    skip: Annotated[int, typer.Option(help="Number of first candidates that are not drawn.")] = 0,
    max_left_out: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Largest share of queries or passages that may be left out, for want of a text or an id of their own.",
        ),
    ] = 0.01,
    seed: Seed = 12345,
    threads: Threads = None,
    resume: Resume = True,
) -> None:
    """Make groups for distillation: hard negatives from engines, scores from teachers. Needs the extra `train`.

    Example: `tansaku mine groups.jsonl --queries q.jsonl --collection c.jsonl --bm25 --teacher bm25`
    """
    kinds = {name.rpartition("*")[2].partition(":")[0] for name in teacher}
    if bm25 or "bm25" in kinds:
        require_extra("train", "bm25s")
    if "cross-encoder" in kinds:
        require_extra("train", "sentence_transformers")
    from ..plugin.evaluation.bm25 import Bm25
    from ..plugin.evaluation.judgements import read_qrels, read_run
    from .data.clusters import cluster_passages, shared_candidates
    from .data.mining import MiningPlan
    from .data.mining import mine as mine_groups
    from .data.teachers import dense_vectors, teacher_named
    from .data.texts import open_texts

    check_output_folder(out)
    if out.parent.exists():
        check_output(out)
    plan = MiningPlan(nway, depth, skip, seed)

    def kept() -> str:
        groups = len(finished_lines(out)) if out.exists() else 0
        return f"{counted(groups, 'group')} in {out}" if groups else ""

    out.parent.mkdir(parents=True, exist_ok=True)
    with _interruptible(kept), tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        query_texts = open_texts(Path(folder), "queries", queries, max_left_out, display.show_warning)
        passages = open_texts(Path(folder), "collection", collection, max_left_out, display.show_warning)
        candidates = [{query_id: list(found) for query_id, found in read_run(path).items()} for path in run or ()]
        index = Bm25(passages.items()) if bm25 or "bm25" in kinds else None
        if bm25 and index is not None:
            candidates.append({query_id: list(index.best(text, depth)) for query_id, text in query_texts.items()})
        if not candidates and not (clusters and qrels):
            raise InputError("there are no candidates; give --run, --bm25 or both")
        judgements = read_qrels(qrels) if qrels else {}
        _warn_of_missing(judgements, query_texts, passages)
        positives = _relevant(judgements, query_texts, passages)
        by_text: dict[str, set[str]] = {}
        if "labels" in kinds:
            for query_id, found in positives.items():
                by_text.setdefault(query_texts[query_id], set()).update(found)
        asked: Mapping[str, str] = query_texts
        teachers = [teacher_named(name, index, by_text, threads=threads) for name in teacher]
        if clusters is not None:
            vectors = dense_vectors(clusters, passages.values(), threads=threads)
            numbers = cluster_passages(vectors, nway, seed)
            shared = shared_candidates(query_texts, passages, numbers, candidates, positives)
            asked = {query_id: query_texts[query_id] for query_id in dict.fromkeys([*shared, *query_texts])}
            candidates = [shared]
        with display.ProgressDisplay() as progress:
            report = mine_groups(
                out,
                asked,
                passages,
                candidates,
                [teacher for teacher, _ in teachers],
                weights=[weight for _, weight in teachers],
                positives=positives,
                plan=plan,
                resume=resume,
                progress=progress,
            )
    typer.echo(f"{out}: {counted(report.written, 'group')}")
    for ids, why in ((report.too_few, "with too few candidates"), (report.constant, "whose scores are all the same")):
        if ids:
            some = named(ids, len(ids))
            total = report.written + len(report.too_few) + len(report.constant)
            left = f"left out {len(ids):,} of {counted(total, 'group')} {why}: {some}"
            display.out.print(display.shown(left))


def average(
    config: Config,
    out: Annotated[Path, typer.Argument(help="Folder for the averaged model.")],
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Checkpoint folders; one that is given twice counts twice.")
    ],
    form: Annotated[str, typer.Option("--format", help="Format of the model: stanford or pylate.")] = "pylate",
) -> None:
    """Average checkpoints that `tansaku train CONFIG` has written: the last step of the recipe.

    Needs the extra `train`.

    Example: `tansaku average train.toml model run/checkpoint-2000 run/checkpoint-4000`
    """
    require_extra("train")
    check_output_folder(out)
    from .config import read_config
    from .run.averaging import save_average

    save_average(read_config(config), checkpoints, out, form)
    typer.echo(out)


def weigh(
    bundle: Annotated[Path, typer.Argument(help="Bundle that `tansaku export` wrote; the weights are added to it.")],
    queries: Queries,
    collection: Collection,
    qrels: Annotated[Path, typer.Option("--qrels", help="BEIR judgements of the queries.")],
    questions: Annotated[int, typer.Option(min=1, help="Largest number of judged queries to learn from.")] = 9_600,
    strength: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the learned weights that is applied (0 = none); less is safer for queries of other kinds.",
        ),
    ] = 0.5,
    seed: Seed = 12345,
    threads: Threads = None,
) -> None:
    """Learn from judgements how much each token of a query should count. Needs the extra `train`.

    Vectors stay as they are. An index made with BUNDLE stays valid, and queries are weighted from now on.

    Example: `tansaku weigh ./bundle --queries q.jsonl --collection c.jsonl --qrels train.tsv`
    """
    require_extra("train", "torch", "onnx", "onnxscript")
    from ..onnx_export.convert.query_weights_graph import add_query_weights
    from ..onnx_export.encode.encoder import Encoder
    from ..plugin.evaluation.judgements import read_passages, read_qrels, read_queries
    from .query_weights import WeightsPlan, fit_query_weights

    query_texts, passages, judgements = read_queries(queries), read_passages(collection), read_qrels(qrels)
    _warn_of_missing(judgements, query_texts, passages)
    with display.ProgressDisplay() as progress:
        fitted = fit_query_weights(
            Encoder.load(bundle, threads=threads),
            query_texts,
            passages,
            judgements,
            plan=WeightsPlan(questions=questions, strength=strength, seed=seed),
            progress=progress,
            note=progress.note,
        )
    add_query_weights(bundle, *fitted.arrays())
    typer.echo(
        f"{bundle}: weights from {fitted.questions:,} queries; hit@1 of {fitted.held_out:,} held-out queries is "
        f"{fitted.before:.4f} without and {fitted.after:.4f} with them"
    )


@contextlib.contextmanager
def _interruptible(kept: Callable[[], str]) -> Iterator[None]:
    """At Ctrl-C, say what is kept and how to go on, and end with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        if said := kept():
            display.err.print(
                f"interrupted; {display.shown(said)}. The same command continues from there, and with --no-resume "
                "starts over"
            )
        else:
            display.err.print("interrupted; there is nothing to continue from, the same command starts over")
        raise typer.Exit(130) from None


def _warn_of_missing(qrels: dict[str, dict[str, int]], queries: Mapping[str, str], passages: Mapping[str, str]) -> None:
    """Say which judgements cannot be used, for want of their queries or passages."""
    from ..plugin.evaluation.judgements import check_missing, judged_documents

    unasked = [query_id for query_id in qrels if query_id not in queries]
    if unasked:
        display.show_warning(
            f"{len(unasked):,} of {len(qrels):,} judged queries are not among the queries and are left out, such as "
            f"{unasked[0]!r}"
        )
    missing = [doc_id for doc_id in judged_documents(qrels) if doc_id not in passages]
    if said := check_missing(qrels, missing, "the collection", allow_missing=True):
        display.show_warning(said)


def _relevant(
    qrels: Mapping[str, Mapping[str, int]], queries: Mapping[str, str], passages: Mapping[str, str]
) -> dict[str, list[str]]:
    """Query id → ids of its relevant passages that are there, of the queries that have any."""
    positives = {
        query_id: [passage for passage, grade in grades.items() if grade > 0 and passage in passages]
        for query_id, grades in qrels.items()
        if query_id in queries
    }
    return {query_id: found for query_id, found in positives.items() if found}
