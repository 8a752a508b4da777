"""A service that is killed while it writes: what it has acknowledged is there, and what it has taken is done later."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from ...support.engines import free_port

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SEEDS = [{"id": f"s{i}", "text": f"京都の寺院は{i}番目の札所である。"} for i in range(8)]


@contextmanager
def serving(folder) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
    """Run the service there, until it is ready; it is killed at the end."""
    port = free_port()
    command = [sys.executable, "-m", "tansaku", "serve", "--db", str(folder / "db"), "--port", str(port)]
    command += ["--write", "--allow-write-without-token"]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                ends = time.monotonic() + 120
                while not is_ready(client):
                    assert process.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < ends, (folder / "log").read_text()
                    time.sleep(0.1)
                yield process, client
        finally:
            process.kill()
            process.wait(60)


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_what_was_acknowledged_survives_and_what_was_taken_is_done_once(tmp_path):
    with serving(tmp_path) as (process, client):
        assert client.post("/indexes", json={"name": "docs", "documents": SEEDS}).status_code == 201
        acknowledged = [doc["id"] for doc in SEEDS]
        for n in range(6):
            new = [{"id": f"a{n}-{i}", "text": f"{n}の{i}番目の文書"} for i in range(3)]
            if client.post("/indexes/docs/documents", json=new).status_code == 200:
                acknowledged += [doc["id"] for doc in new]
        taken = [{"id": f"t{i}", "text": f"海の水は塩辛い。{i}"} for i in range(700)]
        lines = "".join(json.dumps(doc) + "\n" for doc in taken)
        headers = {"Content-Type": "application/x-ndjson"}
        job = client.post("/indexes/docs/documents?wait=false", content=lines, headers=headers).json()
        while client.get(f"/jobs/{job['id']}").json()["stage"] != "encode":
            time.sleep(0.01)
        process.kill()
        process.wait(60)
    with serving(tmp_path) as (process, client):
        got = client.post("/indexes/docs/get", json={"ids": acknowledged, "fields": []}).json()
        assert got["missing"] == []
        with client.stream("GET", f"/jobs/{job['id']}/events") as events:
            last = [line for line in events.iter_lines() if line.startswith("data: ")][-1]
        assert json.loads(last.removeprefix("data: "))["state"] == "done"
        assert client.post("/indexes/docs/count", json={}).json()["rows"] == len(acknowledged) + len(taken)
        process.terminate()
        process.wait(60)
