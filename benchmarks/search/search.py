"""Search beside other engines: the same real passages, the same vectors, the same questions, one run.

    python -m benchmarks.search.search --data ../shared/data --cache CACHE --passages 6000 --peer-python PYTHON

PYTHON has requirements-engines.txt. TACHIOM's wheel asks for a newer glibc than many systems have, and runs without:
where it cannot be installed, unzip it into a folder of PYTHONPATH. Every engine builds its index on all CPUs and then
answers each question alone, in a process of its own that is given `--threads` threads; an index is built once and kept
under CACHE. Reported are p50 and p95 of the search alone (vectors in, ten ranked ids out), questions per second when
all are given at once, recall@10 and @100 against exact MaxSim in float32, hit@1 and nDCG@10, bytes per token, memory,
seconds of the build, to open, and milliseconds of the first query. `--plot FILE.svg` draws latency against recall.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

from tansaku import Encoder

from ..index.index import Known, build
from ..support.machine import cpu_name
from ..support.vectors import Vectors, exhaustive, hit_at_1, passages, questions, recall, relevant

CHILD = Path(__file__).with_name("search_engine.py")
PEERS = ("fast-plaid", "xtr-warp", "lancedb", "tachiom")
K = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=6000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--nbits", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recall", nargs="+", default=["fast", "balanced", "exact"], help="tansaku's modes")
    parser.add_argument("--peers", nargs="*", default=PEERS)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--build-limit", type=float, default=3600, help="seconds after which a peer is left out")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    documents = passages(options.data, options.cache, options.passages)
    queries = questions(options.data, options.cache, options.questions)
    judged = relevant(options.data)
    exact = exact_ranking(options, documents, queries)
    print(f"{date.today()}, {cpu_name()}, {os.cpu_count()} CPUs")
    print(f"{len(documents):,} passages, {len(documents.tokens):,} vectors, {len(queries)} questions")
    print(f"exact float32: hit@1 {hit_at_1(exact, documents, queries, judged):.3f}, "
          f"nDCG@10 {ndcg_at_10(exact, documents, queries, judged):.4f}")  # fmt: skip
    engines = [("tansaku", nbits) for nbits in options.nbits]
    if options.peer_python:
        engines += [(name, 2) for name in options.peers]
    built = {engine: made for engine in engines if (made := built_index(options, documents, *engine))}
    points = []
    for threads in options.threads:
        print(f"\n{threads} thread{'s' if threads > 1 else ''}")
        print(f"{'':<44}{'p50 ms':>8}{'p95':>8}{'q/s':>8}{'r@10':>7}{'@100':>7}{'hit@1':>7}{'nDCG@10':>9}"
              f"{'B/token':>9}{'RSS MB':>8}{'build s':>9}{'open s':>8}{'first ms':>10}")  # fmt: skip
        for (engine, _), made in built.items():
            how = {"do": "search", "threads": threads, "rounds": options.rounds, "recall": options.recall}
            found = run(options, {**made["request"], **how})
            for variant in found["variants"]:
                ranked = variant["ten"]
                p50, p95 = np.percentile(variant["times"], [50, 95])
                at_10, at_100 = recall(ranked, exact, 10), recall(variant["hundred"], exact, 100)
                points.append((threads, engine, variant["name"], float(p50), at_10))
                print(
                    f"{found['name'] + ', ' + variant['name']:<44}{p50:>8.2f}{p95:>8.2f}"
                    f"{variant['queries_per_second']:>8.0f}{at_10:>7.3f}{at_100:>7.3f}"
                    f"{hit_at_1(ranked, documents, queries, judged):>7.3f}"
                    f"{ndcg_at_10(ranked, documents, queries, judged):>9.4f}"
                    f"{made['bytes'] / len(documents.tokens):>9.1f}{found['resident']:>8.0f}{made['seconds']:>9.0f}"
                    f"{found['open']:>8.2f}{found['first']:>10.1f}",
                    flush=True,
                )
    if options.plot:
        draw(options.plot, [point[1:] for point in points if point[0] == options.threads[0]], len(documents))


def exact_ranking(options: argparse.Namespace, documents: Vectors, queries: Vectors) -> np.ndarray:
    kept = options.cache / f"exact-{options.passages}-{options.questions}.npy"
    if not kept.exists():
        np.save(kept, exhaustive(documents.tokens, documents.offsets, queries, K))
    return np.load(kept)


def built_index(options: argparse.Namespace, documents: Vectors, engine: str, nbits: int) -> dict | None:
    """The engine's index, made unless it is there: its request, seconds and bytes; None if it took too long."""
    folder = options.cache / "engines" / f"{engine}-{nbits}-{options.passages}"
    about = folder.with_suffix(".json")
    texts, asked = options.cache / f"passages-{options.passages}", options.cache / f"questions-{options.questions}"
    request = {
        "engine": engine,
        "folder": str(folder.resolve()),
        "nbits": nbits,
        "tokens": str((texts / "tokens.npy").resolve()),
        "offsets": str((texts / "offsets.npy").resolve()),
        "token_ids": str((texts / "token_ids.npy").resolve()),
        "queries": str((asked / "tokens.npy").resolve()),
        "query_offsets": str((asked / "offsets.npy").resolve()),
    }
    if not about.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"building {engine}, {nbits} bits", flush=True)
        try:
            if engine == "tansaku":
                made = build_ours(folder, documents, nbits)
            else:
                limit = options.build_limit
                if engine == "tachiom":
                    keep_token_ids(Path(request["token_ids"]), documents)
                made = run(options, {**request, "do": "build", "threads": os.cpu_count()}, limit)
        except subprocess.TimeoutExpired:
            print(f"{engine}: left out, its build took longer than {options.build_limit:.0f} s")
            return None
        about.write_text(json.dumps(made))
    return json.loads(about.read_text()) | {"request": request}


def keep_token_ids(path: Path, documents: Vectors) -> None:
    """Write the vocabulary id of each vector's token."""
    if not path.exists():
        tokenized = Encoder.load().tokenize_documents(documents.texts)
        np.save(path, np.concatenate([text.ids[text.keep] for text in tokenized]))


def build_ours(folder: Path, documents: Vectors, nbits: int) -> dict:
    numbered = Vectors([str(n) for n in range(len(documents))], documents.texts, documents.tokens, documents.offsets)
    started = time.perf_counter()
    info = build(str(folder), numbered, Known(numbered), nbits, 1)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "bytes": info.searched_bytes_per_token * len(documents.tokens)}


def run(options: argparse.Namespace, request: dict, limit: float | None = None) -> dict:
    python = sys.executable if request["engine"] == "tansaku" else str(options.peer_python)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(request["threads"]))}
    done = subprocess.run(
        [python, str(CHILD)],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=limit,
        env=environment,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def ndcg_at_10(
    ranked: Sequence[Sequence[int]] | np.ndarray, documents: Vectors, queries: Vectors, judged: dict[str, set[str]]
) -> float:
    values = []
    for query_id, row in zip(queries.ids, ranked, strict=True):
        gains = [documents.ids[number] in judged[query_id] for number in row[:10]]
        ideal = sum(1 / np.log2(rank + 2) for rank in range(min(10, len(judged[query_id]))))
        values.append(sum(gain / np.log2(rank + 2) for rank, gain in enumerate(gains)) / ideal)
    return float(np.mean(values))


def draw(path: Path, points: list[tuple[str, str, float, float]], count: int) -> None:
    """Latency against recall, as an SVG file."""
    import matplotlib as mpl  # pyright: ignore[reportMissingImports]

    mpl.use("svg")
    import matplotlib.pyplot as plt  # pyright: ignore[reportMissingImports]

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for engine in dict.fromkeys(point[0] for point in points):
        own = sorted(point[1:] for point in points if point[0] == engine)
        axes.plot([p[1] for p in own], [p[2] for p in own], "o", label=engine)
        for name, latency, at_10 in own:
            axes.annotate(name, (latency, at_10), textcoords="offset points", xytext=(5, 4), fontsize=7)
    axes.set(xscale="log", xlabel="p50 of a search, ms (1 thread)", ylabel="recall@10 against exact float32 MaxSim")
    axes.set_title(f"{count:,} Japanese passages", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
