"""Run as a script, in a process of its own: what works in a child of a process that has used LanceDB.

Usage: forks.py FOLDER. Prints {action: the name of the error that the child raised, "" for none, or how it ended}.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np

from tansaku import Encoder, Index, Reranker, Searcher, Settings, Source
from tansaku.plugin.hosts.lancedb import LanceDBSource
from tansaku.plugin.search.latest_searcher import LatestSearcher
from tansaku.plugin.service.service import Service

SECONDS = 60  # far more than any action takes


def in_child(action: Callable[[], object]) -> str:
    """What becomes of ``action`` in a forked process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            action()
            name = ""
        except BaseException as error:
            name = type(error).__name__
        os.write(write, name.encode())
        os._exit(0)
    os.close(write)
    end = time.monotonic() + SECONDS
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "it hangs"
        time.sleep(0.01)
    with os.fdopen(read) as answer:
        return answer.read()


def main(db: Path) -> None:
    """Fork once for each action."""
    encoder = Encoder.load(threads=2)
    encoder.encode_documents(["京都", "奈良の都"])
    vectors = encoder.encode_queries(["都"])[0]
    service = Service(Settings(), encoder=encoder)
    service.load()
    # Nothing has used LanceDB yet.
    results = {"first opened in the child": in_child(lambda: search(db, encoder))}

    searcher, index, connection = Searcher.open(db, "t", encoder=encoder), Index.open(db, "t"), lancedb.connect(db)
    searcher.search("都")
    latest = LatestSearcher(lambda: searcher)
    latest()
    plain = connection.open_table("plain")
    host = LanceDBSource(plain, text_columns=["text"])
    indexes = Service(Settings(), encoder=encoder, searchers={"t": searcher})
    indexes.load()
    asyncio.run(service.run(lambda: None))
    texts = ["都" * n for n in range(1, 60)]
    # Holds locks of the model at most of the forks.
    ended = threading.Event()
    busy = threading.Thread(target=lambda: [encoder.encode_documents(texts) for _ in iter(ended.is_set, True)])
    busy.start()
    expected = encoder.encode_queries(["古い都"])[0]

    def encode() -> None:
        assert np.array_equal(encoder.encode_queries(["古い都"])[0], expected)

    works = {
        "encode": encode,
        "rerank": lambda: Reranker(encoder).rerank("都", ["京都", "犬"]),
        "rank_vectors": lambda: searcher.rank_vectors(vectors),
        "ids": lambda: searcher.ids(np.array([0])),
        "service, texts": lambda: asyncio.run(service.run(lambda: service.rerank("都", ["京都"], score="mean"))),
    }
    fails = {
        "search": lambda: searcher.search("都"),
        "search_vectors": lambda: searcher.search_vectors(vectors),
        "search_many": lambda: searcher.search_many(["都", "犬"]),
        "score": lambda: searcher.score("都", ["1"]),
        "read": lambda: searcher.read(["1"]),
        "explain": lambda: searcher.explain("都", "1"),
        "refresh": searcher.refresh,
        "version": lambda: searcher.version,
        "where": lambda: searcher.rank_vectors(vectors, where="id = '1'"),
        "rerank by id": lambda: Reranker(searcher=searcher).rerank("都", ids=["1"]),
        "latest": latest,
        "open": lambda: search(db, encoder),
        "open a connection": lambda: Searcher.open(connection, "t", encoder=encoder),
        "index: open": lambda: Index.open(db, "t"),
        "index: create": lambda: Index.create(db, "other", [{"id": "1", "text": "都"}], encoder=encoder),
        "index: add": lambda: index.add([{"id": "new", "text": "都"}]),
        "index: delete": lambda: index.delete(["1"]),
        "index: len": lambda: len(index),
        "index: info": lambda: index.info(),
        "index: optimize": lambda: index.optimize(),
        "index: rebuild": lambda: index.rebuild(),
        "LanceDBSource": lambda: host.candidates("都", 1),
        "a Lance source": lambda: list(Source(db / "plain.lance")),
        "service, search": lambda: indexes.search("t", lambda searcher: searcher.search("都")),
    }
    for name, action in {**works, **fails}.items():
        results[name] = in_child(action)
    ended.set()
    busy.join()
    failed = {name: results.pop(name) for name in fails}
    sys.stdout.write(json.dumps({"works": results, "fails": failed}))


def search(db: Path, encoder: Encoder) -> None:
    """Open the index and search it."""
    assert Searcher.open(db, "t", encoder=encoder).search("都")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # LanceDB warns of every fork
    main(Path(sys.argv[1]))
