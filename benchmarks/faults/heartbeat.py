"""A command of tansaku that serves, and a task in its event loop that notes how long nothing else could run there."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

from tansaku.plugin.cli.main import main

_BEAT_SECONDS = 0.02
_NOTED_SECONDS = 0.1


def serve(arguments: list[str], beats: str) -> None:
    """Run a command that serves over HTTP.

    Args:
        arguments: those of `tansaku`.
        beats: path of a file; each time that the event loop was held is a line of it, see `held`.
    """
    unwatched = uvicorn.Server.serve

    async def watched(self: uvicorn.Server, *given: Any, **named: Any) -> None:
        beating = asyncio.create_task(_beat(Path(beats)))
        try:
            await unwatched(self, *given, **named)
        finally:
            beating.cancel()

    uvicorn.Server.serve = watched  # type: ignore[method-assign]
    sys.argv = ["tansaku", *arguments]
    main()


def held(beats: Path, start: int = 0) -> tuple[list[tuple[float, float]], int]:
    """Read what `serve` has noted.

    Args:
        beats: the file.
        start: position in it to read from.

    Returns:
        Seconds that the event loop was held, and seconds of processor time of its thread meanwhile: on a busy machine
        the first are more. Then the position to read from next.
    """
    content = beats.read_bytes()[start:] if beats.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    pairs = [line.split() for line in whole.splitlines()]
    return [(float(wall), float(processor)) for wall, processor in pairs], start + len(whole)


async def _beat(path: Path) -> None:
    with path.open("a", encoding="ascii") as file:
        while True:
            wall, processor = time.perf_counter(), time.thread_time()
            await asyncio.sleep(_BEAT_SECONDS)
            late = time.perf_counter() - wall - _BEAT_SECONDS
            if late > _NOTED_SECONDS:
                file.write(f"{late:.3f} {time.thread_time() - processor:.3f}\n")
                file.flush()
