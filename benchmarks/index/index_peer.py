"""The part of index.py that runs in the peer's environment: fast-plaid on the CPU.

Reads {"tokens", "offsets" (.npy files), "nbits", "threads", "out"} as JSON from standard input, builds an index with
fast-plaid's defaults, writes its reconstruction of all vectors to "out" and prints seconds and bytes as JSON.
"""

import json
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from fast_plaid.search import FastPlaid  # pyright: ignore[reportMissingImports]


def main() -> None:
    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    tokens, offsets = np.load(request["tokens"]), np.load(request["offsets"])
    documents = [torch.from_numpy(tokens[s:e]) for s, e in pairwise(offsets)]
    with tempfile.TemporaryDirectory() as folder:
        index = FastPlaid(index=folder, device="cpu")
        started = time.perf_counter()
        index.create(documents_embeddings=documents, nbits=request["nbits"])
        seconds = time.perf_counter() - started
        # Everything but the copy of the raw vectors that it keeps for later updates, if there is one.
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file() and f.name not in KEPT_RAW)
        decoded = index.get_embeddings(list(range(len(documents))))
    np.save(request["out"], np.concatenate([matrix.float().cpu().numpy() for matrix in decoded]))
    print(json.dumps({"name": f"fast-plaid {version('fast-plaid')}", "seconds": seconds, "bytes": size}))


KEPT_RAW = ("embeddings.npy", "buffer.npy")

if __name__ == "__main__":
    main()
