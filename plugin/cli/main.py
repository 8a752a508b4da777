"""The command `tansaku`: its sub-commands in their groups, and how errors end it.

Each command imports what it needs when it runs, so that `tansaku --help` loads no model, database or torch.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from ...onnx_export.errors import InputError, TansakuError
from . import display
from .beir import beir
from .codes import export_codes, import_codes
from .demo import demo
from .encode import encode
from .evaluate import evaluate
from .export import export
from .index import check, delete, index, info, optimize, rebuild
from .mcp import mcp
from .messages import choose_language, said, with_help
from .models import models
from .search import search
from .search_many import search_many
from .serve import serve
from .tables import copy, drop, dump, get, rename, restore, tables, versions
from .terminal import show_all_characters

_GROUPS = {
    "Search": (demo, search, search_many),
    "Index": (
        index,
        encode,
        tables,
        info,
        get,
        dump,
        delete,
        check,
        optimize,
        rebuild,
        copy,
        rename,
        versions,
        restore,
        drop,
        export_codes,
        import_codes,
    ),
    "Serve": (serve, mcp),
    "Model": (export, models),
    "Evaluate": (evaluate, beir),
}

app = typer.Typer(
    help="Japanese late-interaction search: token vectors compressed in LanceDB, ranked by MaxSim, on a CPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tansaku {version('tansaku')}")
        raise typer.Exit


@app.callback()
def tansaku(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options of `tansaku` itself."""


# What is kept when a command is interrupted that does not say so itself.
_KEPT = {
    "delete": "what was deleted before stays deleted, the same command deletes the rest",
    "optimize": "the index is whole, the same command continues",
    "copy": "there is no copy, the same command starts over",
    "rename": "the index is there under its old name, or under both",
    "evaluate": "no measures are kept, the same command starts over",
    "search_many": "what was searched is kept, the same command continues",
    "beir": "no measures are kept, the same command starts over",
    "export_codes": "the rows so far are kept, the same command continues",
    "import_codes": "the rows so far are there, the same command continues",
    "encode": "what was encoded is kept, the same command continues",
    "export": "no bundle was written, the same command starts over",
}


def _interruptible(command: Callable[..., Any]) -> Callable[..., Any]:
    """``command``, which at Ctrl-C says what is kept and ends with status 130."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except KeyboardInterrupt:
            display.show_stopped(_KEPT.get(command.__name__, "nothing was changed"))
            raise typer.Exit(130) from None
        finally:
            display.be_quiet(False)  # the next command of this process is asked again

    return run


_UsageError: Any = typer.BadParameter.__mro__[1]  # of click, or of typer's own copy of it


class _Command(TyperCommand):
    """A command whose errors of use are in the user's language, and name all that is missing, not only the first."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            missing = self._missing(ctx, given) if type(error).__name__ == "MissingParameter" else []
            text = f"Missing: {', '.join(missing)}." if len(missing) > 1 else error.format_message()
            raise _UsageError(said(text), ctx) from None

    def _missing(self, ctx: Any, args: list[str]) -> list[str]:
        values, _, _ = self.make_parser(ctx).parse_args(args)
        return [
            param.opts[0] if param.param_type_name == "option" else (param.name or "").upper()
            for param in self.get_params(ctx)
            if param.required and values.get(param.name or "") in (None, (), [])
        ]


for _group, _commands in _GROUPS.items():
    for _command in _commands:
        # Every option of a server can be a variable of its environment, as containers are set up.
        variables = {"auto_envvar_prefix": "TANSAKU_SERVE"} if _command is serve else None
        app.command(rich_help_panel=_group, cls=_Command, context_settings=variables)(_interruptible(_command))
for _point in sorted(entry_points(group="tansaku.commands"), key=lambda point: point.name):
    app.command(_point.name, rich_help_panel="Train", cls=_Command)(_point.load())


def main() -> None:
    """Entry point: errors that tansaku raises on purpose, and of files and output, end the command with status 2."""
    show_all_characters()
    choose_language()
    display.be_quiet(False)
    try:
        try:
            with_help(typer.main.get_command(app))()
        finally:
            if sys.stdout is not None:  # it is None where it was closed before
                sys.stdout.flush()  # here, where an error is one: at the end of the process Python only prints it
    except TansakuError as error:
        _end(error)
    except BrokenPipeError:  # whoever read the output has enough of it, as `head`
        _discard_output()
        sys.exit(1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        reason = error.strerror or str(error)
        _discard_output()
        _end(InputError(f"{place}cannot be read or written ({reason}); check the disk, the folder and its permissions"))


def _end(error: Exception) -> NoReturn:
    with contextlib.suppress(OSError):
        display.show_error(error)
    sys.exit(2)


def _discard_output() -> None:
    """Have nothing more written to standard output, which would fail again at the end of the process."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
