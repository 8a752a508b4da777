"""The command `tansaku beir`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...onnx_export.counts import counted
from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra
from ...onnx_export.files import check_output
from . import display
from .options import AllowMissing, AsJson, Quiet, RecallOption, Threads

if TYPE_CHECKING:
    from ...onnx_export.encode.encoder import Encoder
    from ..evaluation.beir import BeirResult, Way


def beir(
    folder: Annotated[Path, typer.Argument(help="BEIR folder: corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv.")],
    split: Annotated[str, typer.Option(help="Name of the judgements: SPLIT of qrels/SPLIT.tsv.")] = "dev",
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--model", help="Folder of an encoder bundle; may be repeated. By default the model inside tansaku."
        ),
    ] = None,
    questions: Annotated[
        int | None, typer.Option(help="Number of judged questions to ask, evenly spread; by default all.")
    ] = None,
    nbits: Annotated[int, typer.Option(help="Bits per dimension of the index: 1, 2 or 4.")] = 2,
    recall: RecallOption = "balanced",
    k: Annotated[int, typer.Option("-k", help="Number of documents ranked for each question.")] = 100,
    bm25: Annotated[bool, typer.Option("--bm25/--no-bm25", help="Ranking by BM25 over character bigrams.")] = True,
    exhaustive: Annotated[
        bool,
        typer.Option(
            "--exhaustive/--no-exhaustive", help="Ranking of all documents by MaxSim of uncompressed vectors."
        ),
    ] = True,
    index: Annotated[
        bool, typer.Option("--index/--no-index", help="Ranking through an index, as `tansaku search` does.")
    ] = True,
    mteb: Annotated[
        Path | None, typer.Option(help="Folder for result files in MTEB's format, WAY/TASK.json; by default none.")
    ] = None,
    allow_missing: AllowMissing = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    threads: Threads = None,
) -> None:
    """Measure how well models rank a BEIR folder: exhaustively, through an index, and BM25 for comparison.

    The corpus is encoded for each way of ranking, so large ones take hours. Needs the extra `evaluate`.

    Example: `tansaku beir ./jsquad --model ./jacolbert --questions 500`
    """
    from ..evaluation.beir import MTEB_MIN_K, evaluate_beir
    from ..search.cuts import queries_warning

    require_extra("evaluate", "ir_measures", *(["bm25s"] if bm25 else []))
    if mteb is not None:
        if k < MTEB_MIN_K:
            raise InputError(f"k is {k}; MTEB's main score is nDCG@10, so --mteb needs {MTEB_MIN_K} or more")
        check_output(_made(mteb) / ".tansaku")
    chosen: dict[Way, bool] = {"bm25": bm25, "exhaustive": exhaustive, "index": index}
    results: list[BeirResult] = []
    encoders = _load(models, threads) if exhaustive or index else {}
    with display.ProgressDisplay() as progress:
        measured = evaluate_beir(
            folder,
            split,
            models=encoders,
            ways=[way for way, wanted in chosen.items() if wanted],
            k=k,
            questions=questions,
            nbits=nbits,
            recall=recall,
            allow_missing=allow_missing,
            progress=progress,
        )
        for result in measured:
            if mteb is not None:
                _write(mteb, result)
            results.append(dataclasses.replace(result, run={}))  # the run takes more memory than all the rest
    for encoder in encoders.values():
        if warning := queries_warning(encoder, results[0].beir.queries.values()):
            display.show_warning(f"{encoder.bundle.name}: {warning}")
    if as_json:
        display.show_json(_as_json(results))
    else:
        _show(results)


def _load(paths: Sequence[Path] | None, threads: int | None) -> dict[str, Encoder]:
    """Encoders by the names of their bundles, or by their folders where two bundles share a name."""
    from ...onnx_export.encode.encoder import Encoder

    encoders = [(str(path), Encoder.load(path, threads=threads)) for path in dict.fromkeys(paths or ())]
    if not encoders:
        inside = Encoder.load(threads=threads)
        return {inside.bundle.name: inside}
    names = [encoder.bundle.name for _, encoder in encoders]
    return {
        path if names.count(name) > 1 else name: encoder for name, (path, encoder) in zip(names, encoders, strict=True)
    }


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created ({error}); choose another folder by --mteb") from error
    return folder


def _write(folder: Path, result: BeirResult) -> None:
    from ..evaluation.beir import mteb_result

    path = _made(folder / result.way.replace("/", "__").replace(" ", "_")) / f"{result.beir.name}.json"
    path.write_text(json.dumps(mteb_result(result), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _as_json(results: Sequence[BeirResult]) -> dict[str, Any]:
    beir, k = results[0].beir, results[0].k
    return {
        "name": beir.name,
        "split": beir.split,
        "revision": beir.revision,
        "questions": len(beir.queries),
        "documents": beir.n_documents,
        "empty": beir.empty,
        "missing": len(beir.missing),
        "k": k,
        "results": [{"way": r.way, "metrics": r.measures, "seconds": r.seconds} for r in results],
    }


def _show(results: Sequence[BeirResult]) -> None:
    beir = results[0].beir
    name = display.shown(f"{beir.name}, {beir.split}")
    display.out.print(f"{name}: {counted(len(beir.queries), 'question')}, {counted(beir.n_documents, 'document')}")
    display.show_left_out(beir.empty, beir.missing)
    display.show_ways([(result.way, result.measures, result.seconds) for result in results])
