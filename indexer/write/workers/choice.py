"""Where the caller wants documents to be encoded."""

from __future__ import annotations

from dataclasses import dataclass

from ....onnx_export.errors import InputError
from ....onnx_export.kinds import check_whole


@dataclass(frozen=True)
class OnProcesses:
    """Encode in several processes of this machine: the ``on`` of `Index.create`, `Index.add` and `Index.upsert`.

    Each process loads the model, and takes its share of the cores.

    Attributes:
        processes: number of processes; None means one for each four cores, and two or more.

    Raises:
        InputError: ``processes`` is less than 1.

    Example:
        >>> from tansaku import Index, OnProcesses
        >>> documents = [{"id": "kinkaku", "text": "金閣寺は京都の北山にある寺院。"}]
        >>> len(Index.create(folder, "temples", documents, on=OnProcesses(1)))
        1
    """

    processes: int | None = None

    def __post_init__(self) -> None:
        if self.processes is not None:
            check_whole("processes", self.processes)


@dataclass(frozen=True)
class OnRay:
    """Encode in actors of a Ray cluster: the ``on`` of `Index.create`, `Index.add` and `Index.upsert`.

    Each actor loads the model once. It needs the extra ``ray``, here and on all nodes.

    Attributes:
        address: address of the cluster, such as "auto" or "ray://head:10001"; None takes the cluster that this process
            is connected to, or that of ``RAY_ADDRESS``, or starts one on this machine.
        actors: number of actors; or the least, with which the work begins, and the most. None means one for each
            ``actor_cpus`` of the cluster's CPUs.
        actor_cpus: number of CPUs of each actor.

    Raises:
        InputError: a number is less than 1, or the least is more than the most.
    """

    address: str | None = None
    actors: int | tuple[int, int] | None = None
    actor_cpus: int = 1

    def __post_init__(self) -> None:
        check_whole("actor_cpus", self.actor_cpus)
        for number in (self.actors,) if isinstance(self.actors, int) else self.actors or ():
            check_whole("actors", number)
        if isinstance(self.actors, tuple) and self.actors[0] > self.actors[1]:
            raise InputError(f"actors is {self.actors}; the least must not be more than the most")


On = str | OnProcesses | OnRay


def workers_of(on: On) -> OnProcesses | OnRay | None:
    """Where ``on`` says that documents are encoded.

    Args:
        on: "local", "processes", "ray", or one with its options.

    Returns:
        The workers; None: this process.

    Raises:
        InputError: it is something else.
    """
    known = {"local": None, "processes": OnProcesses(), "ray": OnRay()}
    if isinstance(on, (OnProcesses, OnRay)):
        return on
    if not isinstance(on, str) or on not in known:
        raise InputError(f"on is {on!r}; use 'local', 'processes', 'ray', OnProcesses(...) or OnRay(...)")
    return known[on]
