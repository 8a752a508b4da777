"""The commands `tansaku train` and `tansaku average`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from .trainer import Progress as Step

Config = Annotated[Path, typer.Argument(help="Configuration, a TOML file; see `tansaku.training.config`.")]


def train(
    config: Config,
    resume: Annotated[bool, typer.Option(help="Go on where an interrupted training stopped, or begin anew.")] = True,
) -> None:
    """Train a model by the JaColBERTv2.5 recipe, as CONFIG says. Needs the extra `train`.

    On several GPUs: `torchrun --nproc-per-node 4 --no-python tansaku train train.toml`.

    Example: `tansaku train train.toml`
    """
    from .config import read_config  # what needs torch is imported only here, for the other commands' sake
    from .trainer import train as trained

    settings = read_config(config)
    console = Console(stderr=True)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=None, loss=0.0)

        def show(step: Step) -> None:
            bar.update(task, total=step.steps, completed=step.step, loss=step.loss)
            measured = "".join(f", {name} {value:.4f}" for name, value in (step.evaluation or {}).items())
            if measured or (not console.is_terminal and step.step % max(1, step.steps // 100) == 0):
                console.print(f"step {step.step:,} of {step.steps:,}: loss {step.loss:.4f}{measured}", highlight=False)

        folder = trained(settings, resume=resume, progress=show)
    typer.echo(folder)


def average(
    config: Config,
    out: Annotated[Path, typer.Argument(help="Folder for the averaged model.")],
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoint folders; one named twice counts twice.")],
    form: Annotated[str, typer.Option("--format", help="stanford or pylate.")] = "pylate",
) -> None:
    """Average checkpoints that `tansaku train CONFIG` has written, the last step of the recipe.

    Example: `tansaku average train.toml model run/checkpoint-2000 run/checkpoint-4000`
    """
    from .averaging import save_average
    from .config import read_config

    save_average(read_config(config), checkpoints, out, form)
    typer.echo(out)
