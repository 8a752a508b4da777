"""The short form of `python -m benchmarks.faults --only attacks`, and what it takes for a failure."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.faults.attacks")


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
@pytest.mark.parametrize("seed", [7, 8])
def test_hostile_inputs_harm_neither_server(faults: Any, tmp_path: Path, seed: int):
    assert faults.attacks(tmp_path, argparse.Namespace(inputs=400, seed=seed)) == []


@pytest.mark.slow
def test_hostile_bundles_encode_or_are_refused(faults: Any, tmp_path: Path):
    made = importlib.import_module("benchmarks.faults.bundles")
    assert made.bundles(tmp_path, argparse.Namespace(inputs=3_000, seed=7)) == []


def test_an_input_is_the_same_whenever_it_is_drawn(faults: Any):
    drawn = [faults.draw(3, number) for number in range(60)]
    assert drawn == [faults.draw(3, number) for number in range(60)]
    assert {given.kind for given in drawn} == {"conditions", "bodies", "framings", "MCP"}
    assert len({given.content for given in drawn}) > 50


@pytest.mark.parametrize(
    ("status", "content", "seconds", "failure"),
    [
        (200, b"{}", 0.1, None),
        (422, b'{"error": "there is no column"}', 0.1, None),
        (500, b"", 0.1, "status 500"),
        (-1, b"", 0.1, "no answer within"),
        (503, b"", 999.0, "no answer within"),
        (400, b"at /rustc/abc/library/core/src/option.rs:12", 0.1, "an answer has"),
        (400, b"Traceback (most recent call last)", 0.1, "an answer has"),
        (400, b"/home/somebody/db/docs.lance", 0.1, "an answer has"),
        (404, b"unknown tool " + b"x" * 100_000, 0.1, "an answer of"),
        (200, b"x" * 100_000, 0.1, None),
    ],
)
def test_a_failure_is_noticed(faults: Any, status: int, content: bytes, seconds: float, failure: str | None):
    found = list(faults._wrong(faults.Answer("bodies", status, content, seconds)))
    assert [message.startswith(failure or "") for message in found] == [True] * (failure is not None)


def test_the_longest_time_that_an_event_loop_was_held_is_noted(faults: Any, tmp_path: Path):
    heartbeat = importlib.import_module("benchmarks.faults.heartbeat")
    beats = tmp_path / "beats"

    async def holds_it() -> None:
        beating = asyncio.create_task(heartbeat._beat(beats))
        await asyncio.sleep(0)
        time.sleep(0.3)
        await asyncio.sleep(0.1)
        beating.cancel()

    assert heartbeat.held(beats) == ([], 0)
    asyncio.run(holds_it())
    times, end = heartbeat.held(beats)
    assert max(times)[0] > 0.2
    assert heartbeat.held(beats, end) == ([], end)
