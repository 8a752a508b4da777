"""Encode in actors of a Ray cluster, which Ray places, starts and watches. They write fragments of the table."""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from lancedb.db import DBConnection

from ....onnx_export.encode.encoder import Encoder
from ....onnx_export.errors import TansakuError
from ....onnx_export.extras import require_extra
from ...errors import WorkerError
from ...table.conditional_writes import check_conditional_writes
from ...table.database import local_folder, location_of, storage_errors
from ..units import Chunk
from .choice import OnRay
from .jobs import Job
from .pool import Pool, Worker, first_line
from .ray_cluster import Kind, connect_ray

_START_SECONDS = 600  # for the first actors: a cluster that scales by itself may need minutes for a node


class RayPool(Pool):
    """Actors of a Ray cluster.

    Args:
        encoder: the model; None: the documents have vectors.
        dim: length of a token vector.
        database: where the rows are written.
        on: the cluster, and how many actors.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        InputError: other processes cannot load the model or open the database.
    """

    is_spread = True

    def __init__(self, encoder: Encoder | None, dim: int, database: DBConnection, on: OnRay) -> None:
        require_extra("ray")
        super().__init__(1, 1, dim)
        self._on = on
        self._database = database
        location_of(database)
        self._load = None if encoder is None else encoder.elsewhere(on.actor_cpus)
        self._ray: Any = None
        self._disconnects = False
        self._trial: Path | None = None
        self._jobs: list[tuple[Job, Any]] = []

    def __enter__(self) -> Pool:
        """Connect to the cluster, and check it and the store before any work.

        Raises:
            WorkerError: the cluster cannot be reached, an actor cannot be started or differs from this process, or it
                does not see the database's folder.
            StorageError: the store cannot be written to, or ignores conditional writes.
        """
        self._connect()
        try:
            check_conditional_writes(self._database)
            self._count_actors()
            folder = local_folder(self._database)
            if folder is not None:
                with storage_errors(f"database {folder}"):
                    folder.mkdir(parents=True, exist_ok=True)
                    self._trial = folder / f".tansaku-trial-{secrets.token_hex(8)}"
                    self._trial.touch()
        except BaseException:
            self.close()
            raise
        return super().__enter__()

    def _connect(self) -> None:
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError

        self._ray = ray
        # ObjectLostError: of a node that died before its rows came back.
        self.deaths = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError, ObjectLostError)
        if ray.is_initialized() and self._on.address is not None:
            raise WorkerError(
                "this process is connected to a Ray cluster already, so it cannot connect to "
                f"{self._on.address!r}; leave out the address, or call ray.shutdown() before"
            )
        self._disconnects = connect_ray(self._on.address)

    def _count_actors(self) -> None:
        """How many actors are wanted: as given, or as many as the cluster has CPUs for."""
        cpus = int(self._ray.cluster_resources().get("CPU", 1))
        given = self._on.actors or max(1, cpus // self._on.actor_cpus)
        self._least, self.count = (1, given) if isinstance(given, int) else given

    def close(self) -> None:
        """End all actors, and the connection if it was made here."""
        super().close()
        self._jobs = []
        if self._trial is not None:
            self._trial.unlink(missing_ok=True)
        if self._disconnects:
            self._disconnects = False
            self._ray.shutdown()

    def hire(self) -> Worker:
        """Start an actor; Ray starts it when it has a place for it."""
        return _ActorWorker(self)

    def stored(self, job: Job) -> Any:
        """The job in Ray's object store: its codec is sent once to each node."""
        if not self._jobs or self._jobs[-1][0] is not job:
            self._jobs.append((job, self._ray.put(job)))
        return self._jobs[-1][1]

    def _wait_for(self, count: int) -> None:
        """As for all workers, but not for ever."""
        until = time.monotonic() + _START_SECONDS
        self._take_on()
        while len(self._ready) < count:
            self._ray.wait([worker.ref for worker in self._starting.values()], timeout=5)  # pyright: ignore
            time.sleep(0.05)  # until the future knows it too
            self._take_on()
            if time.monotonic() > until and len(self._ready) < count:
                raise WorkerError(
                    f"after {_START_SECONDS} seconds the Ray cluster has started {len(self._ready)} of {count} actors "
                    f"with {self._on.actor_cpus} CPUs each (it has {self._ray.cluster_resources().get('CPU', 0):g} in "
                    "all); ask for fewer (--actors, --actor-cpus), or add nodes"
                )


class _ActorWorker(Worker):
    """An actor, as the driver sees it."""

    def __init__(self, pool: RayPool) -> None:
        self._pool = pool
        # Its death is ours to handle: what it did is given to another one, or is searched for a document that kills.
        made: Any = pool._ray.remote(_Actor).options(num_cpus=pool._on.actor_cpus, max_restarts=0, max_task_retries=0)
        self._actor: Any = made.remote()
        named = self._actor.start.options(name="load the model")
        self.ref = named.remote(Kind.here(), pool._load, None if pool._trial is None else str(pool._trial))
        self.started = self.ref.future()

    def check(self) -> None:
        try:
            super().check()
        except TansakuError:
            raise
        except self._pool.deaths:
            raise
        except Exception as error:  # such as a module that is missing there
            raise WorkerError(
                f"a worker of the Ray cluster cannot be started ({first_line(error)}); install this "
                "tansaku with its extra on all nodes: pip install 'tansaku[ray]'"
            ) from error

    def submit(self, job: Job, chunks: list[Chunk]) -> Future[Any]:
        """Begin a unit."""
        return self._actor.run.options(name=job.name).remote(self._pool.stored(job), chunks).future()

    def close(self) -> None:
        """Kill the actor."""
        self._pool._ray.kill(self._actor)


class _Actor:
    """An actor, as it runs on a node."""

    def __init__(self) -> None:
        self._encoder: Encoder | None = None

    def start(self, driver: Kind, load: Callable[[], Encoder] | None, trial: str | None) -> TansakuError | None:
        """Load the model, after a look at what must be the same as in the driver."""
        node = platform.node()
        if Kind.here() != driver:
            here = Kind.here()
            return WorkerError(
                f"node {node} has tansaku {here.tansaku} and Python {here.python}, and this process tansaku "
                f"{driver.tansaku} and Python {driver.python}; install the same on all nodes"
            )
        if trial is not None and not Path(trial).exists():
            return WorkerError(
                f"node {node} does not see the database's folder {Path(trial).parent}; use a folder that all nodes "
                "share, under the same path, or an object store (--db s3://...)"
            )
        try:
            self._encoder = None if load is None else load()
        except TansakuError as error:
            return type(error)(f"node {node}: {error}") if type(error).__init__ is Exception.__init__ else error
        return None

    def run(self, job: Job, chunks: list[Chunk]) -> Any:
        """Do a unit; an error of tansaku is returned, since Ray would make another of it."""
        try:
            return job.run(self._encoder, chunks)
        except TansakuError as error:
            return error
