"""Workers that encode units of documents: those that die are replaced, and the document that kills them is found.

A unit whose worker dies is given to another worker. If that dies too, the unit is halved until one document is left. A
document that alone ends two more workers is left out, and the rest of its unit is done without it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ....onnx_export.errors import TansakuError
from ...errors import WorkerError
from ...read.documents import Document
from ..units import Chunk
from .jobs import Job, ProbeJob

_logger = logging.getLogger(__name__)

_TRIES = 2  # of a unit before it is halved, and of a document alone before it is left out
_PROBE = ProbeJob()
_FRUITLESS = 3  # searches in one chunk that find no document: its workers die of something else


@dataclass
class Unit:
    """Chunks that a worker gets at once.

    Attributes:
        chunks: the chunks.
        deaths: number of workers that have died of it.
        suspect: whether it is a part of a unit that was halved.
        search: the search that it is a part of; None: its result is wanted.
    """

    chunks: list[Chunk]
    deaths: int = 0
    suspect: bool = False
    search: Search | None = None


@dataclass
class Search:
    """The search for the documents of a chunk that kill their workers.

    Attributes:
        chunk: the chunk.
        parts: number of its parts that are not tried yet.
        found: the documents found.
    """

    chunk: Chunk
    parts: int = 1
    found: list[Document] = field(default_factory=list)


class Worker(ABC):
    """A process or actor with a model. It does one unit at a time.

    Attributes:
        started: done when the model is loaded; an error if it cannot be.
    """

    started: Future[Any]

    def check(self) -> None:
        """Check what has `started`.

        Raises:
            TansakuError: it cannot do the work of this process.
        """
        failed = self.started.result()
        if isinstance(failed, TansakuError):
            raise failed

    @abstractmethod
    def submit(self, job: Job, chunks: list[Chunk]) -> Future[Any]:
        """Begin a unit: the future has what the job returned, or the TansakuError that it raised."""

    @abstractmethod
    def close(self) -> None:
        """End the worker at once, whatever it does."""


class Pool(ABC):
    """A number of workers; use it as a context manager.

    Args:
        count: number of workers, at most.
        least: number of workers before any work is given.
        dim: length of a token vector.

    Attributes:
        count: number of workers, at most.
        dim: length of a token vector.
    """

    deaths: tuple[type[BaseException], ...]  # what a future raises if its worker died
    is_spread = False  # whether workers write fragments; otherwise rows come back

    def __init__(self, count: int, least: int, dim: int) -> None:
        self.count, self.dim = count, dim
        self._least = least
        self._starting: dict[Future[Any], Worker] = {}
        self._ready: list[Worker] = []
        self._running: dict[Future[Any], tuple[Worker, Unit]] = {}
        self._left_out: dict[str, str] = {}  # places of documents that killed workers, for later jobs
        self._fruitless: dict[int, int] = {}

    @abstractmethod
    def hire(self) -> Worker:
        """Start a worker."""

    def __enter__(self) -> Pool:
        """Start one worker, and wait until it is known that it can do the work.

        Raises:
            WorkerError: it cannot be started.
        """
        try:
            self._hire(1)
            self._wait_for(1)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        for worker in [*self._ready, *self._starting.values()]:
            worker.close()
        self._ready, self._starting = [], {}

    def run(self, job: Job, units: Iterable[Unit]) -> Iterator[tuple[Unit, Any]]:
        """Do all units.

        Args:
            job: what is done with each.
            units: the units; one is read ahead, so that no worker waits for it.

        Yields:
            Each unit, or the parts that it was divided into, and what the job made of it, in the order in which they
            end. Documents that killed workers are in `Chunk.left_out`.

        Raises:
            TansakuError: what a worker raised.
            WorkerError: workers cannot be started, or die of what is no document.
        """
        coming = iter(units)
        following = next(coming, None)
        again: deque[Unit] = deque()
        running = self._running = {}
        if following is not None:
            self._hire(self.count - len(self._ready) - len(self._starting))
            self._wait_for(self._least)
        try:
            while following is not None or again or running:
                self._take_on()
                while self._ready and (again or following is not None):
                    unit = again.popleft() if again else following
                    assert unit is not None  # noqa: S101
                    following = next(coming, None) if unit is following else following
                    for chunk in unit.chunks:
                        places = {document.place for document in chunk.documents} & self._left_out.keys()
                        chunk.left_out |= {place: self._left_out[place] for place in places}
                    worker = self._ready.pop()
                    try:
                        begun = worker.submit(_PROBE if unit.search else job, unit.chunks)
                    except self.deaths:  # while it had nothing to do
                        worker.close()
                        self._hire(1)
                        again.appendleft(unit)
                    else:
                        running[begun] = worker, unit
                ended, _ = wait([*running, *self._starting], return_when=FIRST_COMPLETED)
                for future in ended & running.keys():
                    worker, unit = running.pop(future)
                    try:
                        made = future.result()
                    except self.deaths as error:
                        worker.close()
                        self._hire(1)
                        again.extend(self._divided(unit, error))
                        continue
                    self._ready.append(worker)
                    if isinstance(made, TansakuError):
                        raise made
                    if unit.search is None:
                        yield unit, made
                    else:
                        again.extend(self._tried(unit.search))
        finally:
            for worker, _ in running.values():
                worker.close()
            running.clear()

    def _hire(self, count: int) -> None:
        for _ in range(count):
            worker = self.hire()
            self._starting[worker.started] = worker

    def _wait_for(self, count: int) -> None:
        self._take_on()
        while len(self._ready) < count:
            wait(list(self._starting), return_when=FIRST_COMPLETED)
            self._take_on()

    def _take_on(self) -> None:
        """Let the workers that have started begin. One that cannot work is left out if others can."""
        for future in [future for future in self._starting if future.done()]:
            worker = self._starting.pop(future)
            try:
                worker.check()
            except (TansakuError, *self.deaths) as error:
                worker.close()
                known = error if isinstance(error, TansakuError) else None
                failed = known or WorkerError(f"a worker ended while it was loading the model ({error}); see its log")
                if not (self._ready or self._starting or self._running):
                    raise failed from error
                self.count = max(1, self.count - 1)
                _logger.warning("one worker less: %s", failed)
            else:
                self._ready.append(worker)

    def _divided(self, unit: Unit, error: BaseException) -> list[Unit]:
        """What is tried after a worker has died of a unit."""
        unit.deaths += 1
        if unit.search is not None:
            return self._searched(unit, unit.search)
        if unit.deaths < _TRIES and not unit.suspect:
            _logger.warning("a worker ended while it encoded; its documents go to another one (%s)", first_line(error))
            return [unit]
        if len(unit.chunks) > 1:
            middle = len(unit.chunks) // 2
            return [Unit(part, suspect=True) for part in (unit.chunks[:middle], unit.chunks[middle:])]
        (chunk,) = unit.chunks
        rounds = self._fruitless[chunk.number] = self._fruitless.get(chunk.number, 0) + 1
        if rounds > _FRUITLESS:
            places = f"from {chunk.documents[0].place} to {chunk.documents[-1].place}"
            raise WorkerError(
                f"workers end again and again, and not because of one document: {places} ({first_line(error)}); see "
                "their logs, give them more memory, and repeat the call"
            ) from error
        return self._searched(Unit([chunk]), Search(chunk))

    def _searched(self, unit: Unit, search: Search) -> list[Unit]:
        """The next parts to be tried of a chunk that kills workers."""
        (part,) = unit.chunks
        documents = part.fresh
        if len(documents) > 1:
            middle = len(documents) // 2
            search.parts += 1
            halves = (documents[:middle], documents[middle:])
            return [Unit([Chunk(part.number, half)], search=search) for half in halves]
        if unit.deaths < _TRIES and documents:
            return [unit] if unit.search is not None else [Unit([Chunk(part.number, documents)], search=search)]
        search.found += documents
        return self._tried(search)

    def _tried(self, search: Search) -> list[Unit]:
        """Note that a part has been tried; after the last one, the chunk is done without the documents found."""
        search.parts -= 1
        if search.parts:
            return []
        for document in search.found:
            self._left_out[document.place] = (
                f"{document.place}: document {document.id!r} ended each of {_TRIES} workers that encoded it alone; "
                "correct it, or leave it out"
            )
        return [Unit([search.chunk], suspect=True)]


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its name if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
