"""The HTTP service under load, over loopback: saturation, half of it, and 60 seconds at four times as much.

    python -m benchmarks.service.serve --data ../shared/data --set jaquad

A service in a process of its own ranks documents of the set for its queries, by id over stored codes and by text.
Saturation is the most answers per second of clients that ask again as soon as they are answered. Half and four times
that are offered at fixed times, whether or not answers have come. Every 200 is compared with what `Reranker` says for
the same request; a service that holds up answers those rightly, refuses the rest with 429 or 503, keeps its memory,
and is still there afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import httpx
import numpy as np

from tansaku import Encoder, Index, Reranker, Searcher, Source
from tansaku.indexer.read.documents import DocumentReader
from tansaku.plugin.evaluation.judgements import read_queries

from ..support.machine import cpu_name

REQUESTS = 200  # different ones
PENDING = 512  # requests that the client has under way at most
TIMEOUT = 60.0
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Request:
    """A request and the right answer: indexes in their order, and their scores."""

    body: bytes
    order: list[int]
    scores: np.ndarray


@dataclass
class Outcome:
    """What came back."""

    statuses: Counter = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    wrong: int = 0
    offered: int = 0
    late: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.statuses[200] / self.seconds

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.milliseconds, share)) if self.milliseconds else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the BEIR folders")
    parser.add_argument("--set", dest="name", default="jaquad")
    parser.add_argument("--documents", type=int, default=2000, help="how many of the set are indexed")
    parser.add_argument("--candidates", type=int, nargs=2, default=[100, 10], help="by id and by text in one request")
    parser.add_argument("--seconds", type=float, default=60.0, help="at four times saturation; a sixth for the others")
    parser.add_argument("--clients", type=int, default=16, help="that look for saturation")
    options = parser.parse_args()

    encoder = Encoder.load()
    print(f"{date.today()}, {cpu_name()}, {os.cpu_count()} cores, model {encoder.bundle.name}")
    folder = options.data / options.name
    documents = list(DocumentReader(Source(folder / "corpus.jsonl")))[: options.documents]
    queries = list(read_queries(folder / "queries.jsonl").values())
    with tempfile.TemporaryDirectory() as db:
        Index.create(db, "t", documents, encoder=encoder)
        reranker = Reranker(searcher=Searcher.open(db, "t", encoder=encoder))
        by_id, by_text = options.candidates
        for name, count, ids in ((f"{by_id} by id", by_id, True), (f"{by_text} by text", by_text, False)):
            requests = make_requests(reranker, documents, queries, count, ids=ids)
            asyncio.run(measure(name, db, requests, options))


def make_requests(reranker: Reranker, documents: list, queries: list[str], count: int, *, ids: bool) -> list[Request]:
    chosen = random.Random(0)
    made = []
    for i in range(REQUESTS):
        query, some = queries[i % len(queries)], chosen.sample(documents, min(count, len(documents)))
        if ids:
            ranked = reranker.rerank(query, ids=[document.id for document in some])
        else:
            ranked = reranker.rerank(query, [document.text for document in some])
        sent = [{"id": document.id} if ids else document.text for document in some]
        body = json.dumps({"query": query, "documents": sent}).encode()
        made.append(Request(body, [r.index for r in ranked], np.array([r.score for r in ranked])))
    return made


async def measure(name: str, db: str, requests: list[Request], options: argparse.Namespace) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (
        "from typer import Typer\nfrom tansaku.plugin.cli.serve import serve\n"
        "app = Typer(); app.command()(serve); app()"
    )
    command = [sys.executable, "-c", script, "--db", db, "--table", "t", "--port", str(port)]
    service = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    limits = httpx.Limits(max_connections=PENDING, max_keepalive_connections=PENDING)
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=TIMEOUT) as client:
            await until_ready(client, service)
            short = options.seconds / 6
            await closed_loop(client, requests, options.clients, min(short, 3.0))  # warm
            saturation = await closed_loop(client, requests, options.clients, short)
            half = await open_loop(client, requests, saturation.rate / 2, short)
            before = resident(service.pid)
            hard = await open_loop(client, requests, 4 * saturation.rate, options.seconds)
            middle = resident(service.pid)
            again = await open_loop(client, requests, 4 * saturation.rate, short)
            after = resident(service.pid)
            calm = await open_loop(client, requests, saturation.rate / 2, min(short, 3.0))
        alive = service.poll() is None
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)
    print(f"\n{name}")
    print(f"  saturation         {saturation.rate:8.1f} answers/s, {options.clients} clients; {said(saturation)}")
    print(f"  half of it         p50 {half.percentile(50):.1f} ms, p95 {half.percentile(95):.1f} ms; {said(half)}")
    print(
        f"  4 times, {options.seconds:.0f} s      {hard.rate:8.1f} answers/s, p50 {hard.percentile(50):.1f} ms, "
        f"p95 {hard.percentile(95):.1f} ms; {said(hard)}"
    )
    print(f"  4 times once more  {said(again)}")
    print(f"  half afterwards    p50 {calm.percentile(50):.1f} ms, p95 {calm.percentile(95):.1f} ms; {said(calm)}")
    print(f"  resident memory    {before:.0f} MB before, {middle:.0f} and {after:.0f} MB after")
    print(f"  the service is     {'still there' if alive else 'GONE'}")


def said(outcome: Outcome) -> str:
    statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(outcome.statuses.items(), key=str))
    late = f", {outcome.late:,} not sent for {PENDING} were under way" if outcome.late else ""
    sent = f" of {outcome.offered:,} offered" if outcome.offered else ""
    return f"{statuses}{sent}; {outcome.wrong} wrong{late}"


async def until_ready(client: httpx.AsyncClient, service: subprocess.Popen) -> None:
    while service.poll() is None:
        try:
            if (await client.get("/ready")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise SystemExit("the service did not come up")


async def closed_loop(client: httpx.AsyncClient, requests: list[Request], clients: int, seconds: float) -> Outcome:
    outcome = Outcome()
    started = time.perf_counter()

    async def ask_on(number: int) -> None:
        i = number
        while time.perf_counter() - started < seconds:
            await ask(client, requests[i % len(requests)], outcome)
            i += clients

    await asyncio.gather(*(ask_on(number) for number in range(clients)))
    outcome.seconds = time.perf_counter() - started
    return outcome


async def open_loop(client: httpx.AsyncClient, requests: list[Request], rate: float, seconds: float) -> Outcome:
    outcome = Outcome()
    pending: set[asyncio.Task] = set()
    started = time.perf_counter()
    outcome.offered = int(rate * seconds)
    for i in range(outcome.offered):
        wait = started + i / rate - time.perf_counter()
        # Also where it is late already, so that answers are taken in.
        await asyncio.sleep(max(wait, 0))
        if time.perf_counter() - started > seconds:
            break
        if len(pending) >= PENDING:
            outcome.late += 1
            continue
        task = asyncio.create_task(ask(client, requests[i % len(requests)], outcome))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    outcome.seconds = time.perf_counter() - started
    return outcome


async def ask(client: httpx.AsyncClient, request: Request, outcome: Outcome) -> None:
    started = time.perf_counter()
    try:
        answer = await client.post("/v1/rerank", content=request.body, headers=JSON)
    except httpx.HTTPError as error:
        outcome.statuses[type(error).__name__] += 1
        return
    outcome.statuses[answer.status_code] += 1
    if answer.status_code != 200:
        return
    outcome.milliseconds.append(1000 * (time.perf_counter() - started))
    results = answer.json()["results"]
    order = [result["index"] for result in results]
    scores = np.array([result["relevance_score"] for result in results])
    outcome.wrong += order != request.order or not np.allclose(scores, request.scores, atol=1e-6)


def resident(pid: int) -> float:
    """MB of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
