"""The part of search.py that runs once for each engine, in that engine's environment.

Reads a request as JSON from standard input: "engine", "do" ("build" or "search"), "folder", "tokens", "offsets",
"token_ids", "queries", "query_offsets" (.npy files), "nbits", "threads", "rounds", "recall" (tansaku's modes). A build
prints its seconds and bytes; a search prints, for each variant of the engine, milliseconds of every query of every
round for 10 hits, their document numbers and those of 100 hits, queries per second of one call for all queries, and
seconds to open, milliseconds of the first query and memory. Imports are not counted.
"""

import importlib
import json
import sys
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

Ranked = list[int]

ENOUGH_MS = 20_000  # of measuring one variant, though not less than one round


class FastPlaid:
    """fast-plaid, with its default of documents scored in full and with a quarter of that."""

    module = "fast_plaid.search"

    def __init__(self, request: dict) -> None:
        import torch
        from fast_plaid.search import FastPlaid as Engine  # pyright: ignore[reportMissingImports]

        torch.set_num_threads(request["threads"])
        self.name = f"fast-plaid {version('fast-plaid')}"
        self.tensor = torch.from_numpy
        self.request = request
        self.engine = Engine(index=request["folder"], device="cpu")
        self.variants = {"default": {}, "n_full_scores=1024": {"n_full_scores": 1024}}

    def build(self, documents: list[np.ndarray]) -> None:
        self.engine.create([self.tensor(d) for d in documents], nbits=self.request["nbits"])

    def search(self, queries: list[np.ndarray], k: int, options: dict) -> list[Ranked]:
        tensors = [self.tensor(query) for query in queries]
        found = self.engine.search(tensors, top_k=k, show_progress=False, **options)
        return [[document for document, _ in row] for row in found]

    @staticmethod
    def size(folder: Path) -> int:
        # Everything but the copy of the raw vectors that it keeps for later updates, if there is one.
        raw = ("embeddings.npy", "buffer.npy")
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name not in raw)


class XtrWarp:
    """xtr-warp-rs, with its defaults."""

    module = "xtr_warp.search"

    def __init__(self, request: dict) -> None:
        import torch
        from xtr_warp.search import XTRWarp as Engine  # pyright: ignore[reportMissingImports]

        torch.set_num_threads(request["threads"])
        self.name = f"xtr-warp-rs {version('xtr-warp-rs')}"
        self.tensor = torch.from_numpy
        self.request = request
        self.engine = Engine(index=request["folder"], device="cpu")
        if request["do"] == "search":
            self.engine.load("cpu")
        self.variants = {"default": {}}

    def build(self, documents: list[np.ndarray]) -> None:
        tensors = [self.tensor(d) for d in documents]
        self.engine.create(tensors, device="cpu", nbits=self.request["nbits"], show_progress=False)

    def search(self, queries: list[np.ndarray], k: int, options: dict) -> list[Ranked]:
        tensors = [self.tensor(query) for query in queries]
        found = self.engine.search(
            tensors, top_k=k, num_threads=self.request["threads"], show_progress=False, **options
        )
        return [[document for document, _ in row] for row in found]

    size = staticmethod(FastPlaid.size)


class LanceDB:
    """LanceDB's own multivector index: IVF_PQ over the raw vectors, which are kept."""

    module = "lancedb"

    def __init__(self, request: dict) -> None:
        import lancedb

        self.name = f"LanceDB {version('lancedb')} multivector"
        self.request = request
        self.database = lancedb.connect(request["folder"])
        if request["do"] == "search":
            self.table = self.database.open_table("t")
        self.variants = {"refine_factor=5": {"refine": 5}, "no refine": {"refine": None}}

    def build(self, documents: list[np.ndarray]) -> None:
        import pyarrow as pa

        dim = documents[0].shape[1]
        offsets = pa.array(np.cumsum([0, *map(len, documents)]), pa.int32())
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(documents).ravel()), dim)
        rows = pa.table({"number": np.arange(len(documents)), "vector": pa.ListArray.from_arrays(offsets, vectors)})
        self.table = self.database.create_table("t", rows)
        self.table.create_index(metric="cosine", vector_column_name="vector", index_type="IVF_PQ")

    def search(self, queries: list[np.ndarray], k: int, options: dict) -> list[Ranked]:
        found = []
        for query in queries:
            search: Any = self.table.search(query).select(["number"]).limit(k)
            if options["refine"]:
                search = search.refine_factor(options["refine"])
            found.append(search.to_arrow()["number"].to_pylist())
        return found

    size = staticmethod(FastPlaid.size)


class Tachiom:
    """TACHIOM, with its defaults and with wider searches. It clusters the vectors of each vocabulary id for itself."""

    module = "tachiom"

    def __init__(self, request: dict) -> None:
        import tachiom  # pyright: ignore[reportMissingImports]

        self.name = "TACHIOM 0.4.0"
        self.request = request
        self.kind = tachiom.Tachiom
        self.file = Path(request["folder"]) / "index.bin"
        if request["do"] == "search":
            self.engine = self.kind.load(str(self.file))
        self.variants = {
            "default": {},
            "64 centroids, 2,000 documents": {
                "k_centroids": 64,
                "ef_search": 96,
                "k_docs_to_score": 2000,
                "alpha": 0.6,
            },
            "100, 4,000, all": {"k_centroids": 100, "ef_search": 150, "k_docs_to_score": 4000, "alpha": None},
        }

    def build(self, documents: list[np.ndarray]) -> None:
        vectors = np.concatenate(documents).astype(np.float16).view(np.uint16)
        lengths = np.array([len(document) for document in documents], np.int32)
        ids = np.load(self.request["token_ids"]).astype(np.uint32)
        self.kind.build_from_arrays(vectors, ids, lengths).save(str(self.file))

    def search(self, queries: list[np.ndarray], k: int, options: dict) -> list[Ranked]:
        if len(queries) == 1:
            return [self.engine.search(queries[0], k, **options)[1].tolist()]
        offsets = np.cumsum([0, *map(len, queries)]).astype(np.uint64)
        threads = self.request["threads"]
        found = self.engine.batch_search(
            np.concatenate(queries), len(queries), k, offsets=offsets, num_threads=threads, **options
        )
        return found[1].tolist()

    size = staticmethod(FastPlaid.size)


class Tansaku:
    """tansaku; the index is built by search.py."""

    module = "tansaku.plugin.search.pipeline"

    def __init__(self, request: dict) -> None:
        from tansaku import Encoder, Searcher
        from tansaku.onnx_export.encode.bundle import read_bundle
        from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE

        class Model(Encoder):  # without its graph, which would count as memory
            def __init__(self) -> None:
                self.bundle = read_bundle(DEFAULT_BUNDLE)

        self.name = f"tansaku {request['nbits']} bits"
        self.request = request
        self.searcher = Searcher.open(request["folder"], "t", encoder=Model())
        # MaxSim alone, as the others have it.
        self.variants = {recall: {"recall": recall, "phrase_weight": 0.0} for recall in request["recall"]}
        everything = np.arange(len(self.searcher))
        self.numbers = np.array([int(doc_id) for doc_id in self.searcher.ids(everything)])

    def search(self, queries: list[np.ndarray], k: int, options: dict) -> list[Ranked]:
        def one(query: np.ndarray) -> Ranked:
            return self.numbers[self.searcher.rank_vectors(query, k, **options)[0]].tolist()

        if len(queries) == 1 or self.request["threads"] == 1:
            return [one(query) for query in queries]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self.request["threads"]) as pool:
            return list(pool.map(one, queries))


ENGINES: dict[str, type[Any]] = {
    "fast-plaid": FastPlaid,
    "xtr-warp": XtrWarp,
    "lancedb": LanceDB,
    "tachiom": Tachiom,
    "tansaku": Tansaku,
}


def split(tokens: str, offsets: str) -> list[np.ndarray]:
    vectors = np.load(tokens, mmap_mode="r")
    return [np.array(vectors[s:e], np.float32) for s, e in pairwise(np.load(offsets))]


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> None:
    request = json.load(sys.stdin)
    kind = ENGINES[request["engine"]]
    if request["do"] == "build":
        documents = split(request["tokens"], request["offsets"])
        engine = kind(request)
        started = time.perf_counter()
        engine.build(documents)
        seconds = time.perf_counter() - started
        print(json.dumps({"name": engine.name, "seconds": seconds, "bytes": kind.size(Path(request["folder"]))}))
        return
    queries = split(request["queries"], request["query_offsets"])
    importlib.import_module(kind.module)
    started = time.perf_counter()
    engine = kind(request)
    opening = time.perf_counter() - started
    started = time.perf_counter()
    engine.search(queries[:1], 10, next(iter(engine.variants.values())))
    first = 1000 * (time.perf_counter() - started)
    variants = []
    for name, options in engine.variants.items():
        engine.search(queries[:20], 10, options)  # warm
        times, ten = [], []
        for done in range(request["rounds"]):
            if done and sum(times) > ENOUGH_MS:
                break
            ten = []
            for query in queries:
                started = time.perf_counter()
                ten += engine.search([query], 10, options)
                times.append(1000 * (time.perf_counter() - started))
        some = queries[: max(20, int(ENOUGH_MS / np.mean(times)))]
        started = time.perf_counter()
        engine.search(some, 10, options)
        together = len(some) / (time.perf_counter() - started)
        hundred = engine.search(queries, 100, options)
        variants.append({"name": name, "times": times, "ten": ten, "hundred": hundred, "queries_per_second": together})
    print(
        json.dumps(
            {"name": engine.name, "open": opening, "first": first, "resident": resident_mb(), "variants": variants}
        )
    )


if __name__ == "__main__":
    main()
