"""The options of `tansaku index` that say where documents are encoded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra

if TYPE_CHECKING:
    from ...indexer.write.workers.choice import OnProcesses, OnRay

On = Annotated[
    Literal["local", "processes", "ray"],
    typer.Option("--on", help="Place of the work: this process, several processes, or actors of a Ray cluster."),
]
Processes = Annotated[
    int | None,
    typer.Option("--processes", help="Number of processes with --on processes; by default one for four cores."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", help="Address of the Ray cluster; by default that of RAY_ADDRESS, or a cluster started here."
    ),
]
Actors = Annotated[
    str | None,
    typer.Option(
        "--actors",
        metavar="N|MIN:MAX",
        help="Number of actors with --on ray, or the least to begin with and the most; by default as the CPUs allow.",
    ),
]
ActorCpus = Annotated[int, typer.Option("--actor-cpus", help="Number of CPUs of each actor with --on ray.")]


def chosen_workers(
    on: str, processes: int | None, address: str | None, actors: str | None, actor_cpus: int
) -> str | OnProcesses | OnRay:
    """The workers that the options ask for.

    Raises:
        InputError: an option belongs to another place, or cannot be read.
        MissingExtraError: the extra ``ray`` is not installed.
    """
    given = {"--processes": processes, "--address": address, "--actors": actors}
    for option, value in given.items():
        place = "processes" if option == "--processes" else "ray"
        if value is not None and on != place:
            raise InputError(f"{option} is for --on {place}; add that, or leave out {option}")
    if on == "ray":
        require_extra("ray")
    from ...indexer.write.workers.choice import OnProcesses, OnRay

    if on == "processes":
        return OnProcesses(processes)
    return OnRay(address, _range(actors), actor_cpus) if on == "ray" else on


def _range(actors: str | None) -> int | tuple[int, int] | None:
    if actors is None:
        return None
    found = re.fullmatch(r"(\d+)(?::(\d+))?", actors)
    if found is None:
        raise InputError(f"--actors is {actors!r}; give a number, such as 8, or the least and the most, such as 2:16")
    least, most = found.groups()
    return int(least) if most is None else (int(least), int(most))
