"""Shards on a Ray cluster: a deployment of Ray Serve for each, with replicas that Ray starts, watches and scales."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Mapping
from typing import Any

from ...indexer.errors import WorkerError
from ...indexer.table.database import Database, connect
from ...indexer.table.model import Models
from ...indexer.table.shard import Shard
from ...indexer.table.table import open_index_table
from ...indexer.write.workers.pool import first_line
from ...indexer.write.workers.ray_cluster import Kind, connect_ray
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import TansakuError
from ...onnx_export.extras import require_extra
from ...onnx_export.kinds import check_whole
from .searcher import ShardedSearcher, ShardLostError, place_of
from .server import Place, ShardServer, StaleVersionError

_ANSWER_SECONDS = 30.0  # for an answer of a shard; opening a version may build its arrays, and has longer
_OPEN_SECONDS = 3600.0
_PAUSE_SECONDS = 0.5  # before a request is repeated whose replica died
_ONGOING = 16  # requests that a replica has at a time; Ray Serve makes others wait
_HEALTH_SECONDS = 5.0  # between two looks at a replica


def open_on_ray(
    db: Database,
    table: str,
    *,
    shards: int,
    replicas: int = 1,
    shard_cpus: float = 1.0,
    address: str | None = None,
    encoder: Encoder | Models | None = None,
    partial: bool = False,
    storage_options: Mapping[str, str] | None = None,
) -> ShardedSearcher:
    """Search an index in shards on a Ray cluster, which keeps ``replicas`` of each.

    The deployments are called ``tansaku-TABLE-DATABASE-NUMBER-of-SHARDS``, with a hash of the database's place. They
    stay until `ShardedSearcher.close`, and another process that calls this with the same numbers uses them too. Ray's
    reports of usage to its makers are off.

    Args:
        db: database folder that all nodes share, or URI of an object store.
        table: name of the table.
        shards: number of shards, 1 or more.
        replicas: number of replicas of each shard.
        shard_cpus: CPUs that a replica takes of the cluster.
        address: address of the cluster, such as ``ray://HOST:10001`` or ``auto``; None: ``RAY_ADDRESS``, or Ray is
            started on this machine.
        encoder: as in `Searcher.open`; queries are encoded here.
        partial: as in `ShardedSearcher`.
        storage_options: as in `Searcher.open`.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        WorkerError: the cluster cannot be reached, or has no place for the replicas.
        TansakuError: as `Searcher.open`.
    """
    require_extra("ray")
    check_whole("shards", shards)
    check_whole("replicas", replicas)
    database = connect(db, storage_options=storage_options)
    index = open_index_table(database, table)
    Models.of(encoder).find(index)  # so that replicas are not started for an index that has no model here
    place = place_of(database, table)
    _connect(address)
    of_database = hashlib.sha256(place.db.encode()).hexdigest()[:8]
    names = [f"tansaku-{table}-{of_database}-{Shard(number, shards)}" for number in range(shards)]
    clients = []
    for number, name in enumerate(names):
        handle = _deploy(name, place, Shard(number, shards), replicas, shard_cpus)
        clients.append(RayShard(name, handle, replicas))
    return ShardedSearcher(database, table, clients, encoder=encoder, partial=partial, on_close=lambda: _remove(names))


class RayShard:
    """Asks the replicas of one shard.

    Args:
        name: what error messages call it.
        handle: Ray Serve's handle of its deployment.
        replicas: number of replicas. A request whose replica dies is sent once more than there are.
    """

    def __init__(self, name: str, handle: Any, replicas: int) -> None:
        self._name, self._handle, self._replicas = name, handle, replicas

    def ask(self, verb: str, *given: Any) -> Any:
        """See `ShardClient.ask`."""
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        opens = verb == "open"
        seconds = _OPEN_SECONDS if opens or verb == "check" else _ANSWER_SECONDS
        # Ray gives a request to a replica that has few, so that of as many at once mostly each gets one. A replica that
        # got none opens the version with its first request.
        copies = self._replicas if opens else 1
        problem: Exception | None = None
        for attempt in range(self._replicas + 1):
            if attempt:
                time.sleep(_PAUSE_SECONDS)
            try:
                asked = [self._handle.ask.remote(verb, *given) for _ in range(copies)]
                answers = [response.result(timeout_s=seconds) for response in asked]
            except TimeoutError as error:
                raise ShardLostError(f"{self._name} does not answer within {seconds:g} s; try again") from error
            except (RayError, RayServeException) as error:
                problem = error
                continue
            for answer in answers:
                if isinstance(answer, TansakuError):
                    raise answer
            return answers[0]
        said = "" if problem is None else f" ({first_line(problem)})"
        raise ShardLostError(
            f"{self._name} does not answer on any replica{said}; Ray starts them again, so try again later"
        ) from problem


class ShardReplica:
    """A replica of a shard, as it runs on a node."""

    def __init__(self, driver: Kind, place: Place, shard: Shard) -> None:
        here = Kind.here()
        if here != driver:
            raise WorkerError(
                f"this node has tansaku {here.tansaku} and Python {here.python}, and the router tansaku "
                f"{driver.tansaku} and Python {driver.python}; install the same on all nodes"
            )
        self._about = driver, place, shard
        self._server = ShardServer(place, shard)

    def about(self) -> tuple[Any, ...]:
        """What it was made with."""
        return self._about

    def ask(self, verb: str, *given: Any) -> Any:
        """What the verb of `ShardServer` returns. An error of tansaku is returned, since Ray would make another of it.

        A replica that was started after the router opened a version opens it when it is first asked.
        """
        action = getattr(self._server, verb)
        try:
            try:
                return action(*given)
            except StaleVersionError:
                self._server.open(given[0])
                return action(*given)
        except TansakuError as error:
            return error


def _connect(address: str | None) -> None:
    connect_ray(address)
    from ray import serve

    try:
        serve.start(proxy_location="Disabled")  # requests come through our own service
    except Exception as error:  # Ray's own errors, gRPC's and those of sockets
        raise WorkerError(
            f"Ray Serve cannot be started on the cluster ({first_line(error)}); see the logs of Ray"
        ) from error


def _deploy(name: str, place: Place, shard: Shard, replicas: int, cpus: float) -> Any:
    from ray import serve

    about = Kind.here(), place, shard
    running = serve.status().applications.get(name)
    if running is not None and running.status == "RUNNING":
        handle = serve.get_app_handle(name)
        with contextlib.suppress(Exception):  # of another program by that name: it is replaced
            if handle.about.remote().result(timeout_s=_ANSWER_SECONDS) == about:
                return handle
    made: Any = serve.deployment(ShardReplica)
    deployment = made.options(
        name=name,
        num_replicas=replicas,
        max_ongoing_requests=_ONGOING,
        health_check_period_s=_HEALTH_SECONDS,
        ray_actor_options={"num_cpus": cpus},
    )
    try:
        return serve.run(deployment.bind(*about), name=name, route_prefix=None)
    except Exception as error:  # a replica that cannot be made, or has no place
        raise WorkerError(
            f"{name}: Ray cannot start {replicas} replicas with {cpus:g} CPUs each ({first_line(error)}); see `serve "
            "status`, ask for fewer, or add nodes"
        ) from error


def _remove(names: list[str]) -> None:
    from ray import serve

    for name in names:
        serve.delete(name, _blocking=False)
