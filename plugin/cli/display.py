"""What the command line shows people: progress, hits, reports and sizes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ...onnx_export.counts import counted, named
from .messages import said
from .terminal import as_json, visible

if TYPE_CHECKING:
    from ...indexer.derived.check import CheckReport
    from ...indexer.derived.drift import Drift
    from ...indexer.info import IndexInfo
    from ...indexer.read.rejects import Rejects
    from ...indexer.table.changes import DeleteReport, OptimizeReport
    from ...indexer.table.versions import IndexVersion
    from ...indexer.write.report import BuildReport
    from ...indexer.write.staging import LeftWork
    from ...onnx_export.encode.bundle import Bundle
    from ...onnx_export.encode.rules import TextRules

# Name of a stage -> what people read, and what is counted.
_STAGES = {
    "types": ("finding types", "records"),
    "types bytes": ("finding types", "MB"),
    "read": ("reading", "documents"),
    "read bytes": ("reading", "MB"),
    "sample": ("encoding a sample", "documents"),
    "row vectors": ("learning row vectors", "documents"),
    "encode": ("encoding", "documents"),
    "commit": ("storing", "documents"),
    "check files": ("checking files", "files"),
    "check rows": ("checking codes", "rows"),
    "copy": ("copying", "rows"),
    "search": ("searching", "queries"),
    "train": ("training", "steps"),
    "mine": ("mining", "queries"),
    "weigh": ("weighing", "passages"),
}
_MB = 1_000_000
_SECONDS_BETWEEN_LINES = 5.0  # where there is no terminal
_WIDE = 80  # columns of a terminal in which a bar has room for counts and rates
_LINES = "\n"  # messages may have several lines

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class ProgressDisplay:
    """A `tansaku.Progress` for people: bars on a terminal, elsewhere a plain line now and then; on standard error.

    Args:
        items: what is indexed: "documents" or "passages".

    Example:
        >>> with ProgressDisplay() as progress:
        ...     progress("train", 10, 100)
        ...     progress.note("loss 0.1234")
    """

    def __init__(self, items: str = "documents") -> None:
        columns: list[ProgressColumn] = [TextColumn("{task.description}")]
        if err.width >= _WIDE:
            columns += [BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rates]}"), TimeRemainingColumn()]
        else:  # what is left of a short line after the name of the stage
            columns += [BarColumn(bar_width=8), TaskProgressColumn(), TimeRemainingColumn(compact=True)]
        self._items = items
        self._bars = Progress(*columns, console=err) if err.is_terminal else None
        self._tasks: dict[str, TaskID] = {}
        self._stage = ""
        self._last_line = 0.0
        self._finished: tuple[str, int] | None = None  # the stage whose end is printed
        self._began: dict[str, tuple[float, int, int]] = {}  # time, items and tokens at a stage's first call

    def __enter__(self) -> ProgressDisplay:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def __call__(self, stage: str, done: int, total: int, tokens: int = 0, /) -> None:
        """Show how far a stage is; the arguments are those of `tansaku.Progress`."""
        group, _, name = stage.rpartition(": ")
        label, items = _STAGES.get(name, (name, "items"))
        items = self._items if items == "documents" else items
        label = said(label)
        label = shown(f"{group}: {label}" if group else label)
        if items == "MB":
            if not self._bars and done >= total:  # the number of documents follows
                return
            done, total = (-(-size // _MB) for size in (done, total))  # up, so that a small file has a size
        now = time.monotonic()
        rates = self._rates(stage, done, tokens, now, items)
        if self._bars:
            if label not in self._tasks:
                self._tasks[label] = self._bars.add_task(label, total=None, rates="")
            rates = rates or ("MB" if items == "MB" else "")
            self._bars.update(self._tasks[label], completed=done, total=total or None, rates=rates)
            return
        finished = 0 < total <= done
        if finished and (stage, done) == self._finished:
            return
        self._finished = (stage, done) if finished else None
        if stage != self._stage or finished or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._stage, self._last_line = stage, now
            line = f"{label}: {done:,}" + (f" {said('of')} {total:,}" if total else "")
            line += (" MB" if items == "MB" else "") + (f", {rates}" if rates else "")
            err.print(line + self._time_left(stage, done, total, now))

    def note(self, text: str) -> None:
        """Print a line between those of the progress, or above its bars."""
        err.print(shown(text))

    def _rates(self, stage: str, done: int, tokens: int, now: float, items: str) -> str:
        began, first, first_tokens = self._began.setdefault(stage, (now, done, tokens))
        if now - began < 1:
            return ""
        item_rate, token_rate = (done - first) / (now - began), (tokens - first_tokens) / (now - began)
        rates = f"{item_rate:,.0f} {items}/s"
        return said(f"{rates}, {token_rate:,.0f} tokens/s") if tokens else said(rates)

    def _time_left(self, stage: str, done: int, total: int, now: float) -> str:
        began, first, _ = self._began[stage]
        if done <= first or done >= total or now - began < 1:
            return ""
        minutes, seconds = divmod(round((now - began) * (total - done) / (done - first)), 60)
        return said(f", {minutes}:{seconds:02d} left")


def be_quiet(quiet: bool = True) -> None:
    """Print no progress, warnings and notes any more; errors and results are printed."""
    err.quiet = quiet


def show_error(error: Exception) -> None:
    """Print an error to standard error."""
    be_quiet(False)
    err.print(f"[red]{said('error:')}[/red] {escape(visible(said(str(error)), keep=_LINES))}")


def show_warning(text: str) -> None:
    """Print a warning to standard error."""
    err.print(f"[yellow]{said('warning:')}[/yellow] {escape(visible(said(text), keep=_LINES))}")


class LoggedWarnings(logging.Handler):
    """Prints what tansaku logs as warnings while it is entered."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        show_warning(record.getMessage())

    def __enter__(self) -> LoggedWarnings:
        logging.getLogger("tansaku").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("tansaku").removeHandler(self)


class NotesOfWaiting(logging.Handler):
    """Says, while it is entered, what a first search takes longer for: loops are compiled, and recall is measured."""

    _names = ("tansaku.plugin.kernels.compiling", "tansaku.plugin.search.calibrator")

    def emit(self, record: logging.LogRecord) -> None:
        """Print what was logged."""
        err.print(shown(said(record.getMessage())))

    def __enter__(self) -> NotesOfWaiting:
        self._levels = {logger: logger.level for logger in map(logging.getLogger, self._names)}
        for logger in self._levels:
            logger.setLevel(logging.INFO)
            logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        for logger, level in self._levels.items():
            logger.removeHandler(self)
            logger.setLevel(level)


def shown(text: object) -> str:
    """``text``, which may come from documents, as it is printed: no markup, and control characters as escapes."""
    return escape(visible(str(text)))


def show_json(content: dict[str, Any]) -> None:
    """Print as JSON, see `terminal.as_json`."""
    typer.echo(as_json(content))


def show_build(report: BuildReport, seconds: float) -> None:
    """Print what was indexed and how long it took."""
    rows = "passage" if report.passages else "document"
    written = counted(report.documents, "document") + (f" in {counted(report.rows, rows)}" if report.passages else "")
    out.print(
        said(
            f"{written}, {counted(report.tokens, 'token vector')} in {seconds:.1f} s "
            f"({report.rows / seconds:,.0f} {rows}s/s, {report.tokens / seconds:,.0f} tokens/s)"
        )
    )
    if report.resumed:
        out.print(said(f"{report.resumed:,} of them from before the interruption"))
    if report.updated:
        out.print(said(f"{report.updated:,} of them replaced older ones"))
    if report.column_types:
        types = ", ".join(f"{name} {kind}" for name, kind in report.column_types.items())
        out.print(shown(said(f"column types, found in the values: {types}; --column-type sets one")))
    if report.unread:
        show_warning(
            f"{counted(report.unread, rows)} with text that the model cannot read, in whole or in part: "
            f"{named(report.unread_ids, report.unread)}; correct such texts, or use a model with more characters"
        )
    if report.truncated:
        remedy = (
            "their titles leave no room for the text, shorten them"
            if report.passages
            else "--passage-tokens 256 divides documents into passages, in a new table (--mode overwrite)"
        )
        show_warning(
            f"{counted(report.truncated, rows)} with more text than the model reads, whose end is not searched: "
            f"{named(report.truncated_ids, report.truncated)}; {remedy}"
        )


def show_rejects(rejects: Rejects) -> None:
    """Print how many records were left out and where they are."""
    if len(rejects):
        line = said(f"{counted(len(rejects), 'record')} rejected and written to {rejects.path}")
        out.print(f"[yellow]{shown(line)}[/yellow]")


def show_tables(found: Sequence[IndexInfo]) -> None:
    """Print the indexes of a database."""
    table = Table(box=None)
    for heading in ("table", "documents", "passages", "version", "model"):
        table.add_column(said(heading), justify="left" if heading in ("table", "model") else "right", overflow="fold")
    for info in found:
        passages = f"{info.rows:,}" if info.passage_tokens else "–"
        table.add_row(shown(info.table), f"{info.documents:,}", passages, str(info.version), shown(info.model))
    out.print(table if found else said("no indexes here"))


def show_versions(found: Sequence[IndexVersion]) -> None:
    """Print the versions of an index, the latest last."""
    table = Table(box=None)
    for heading in ("version", "written", "rows"):
        table.add_column(said(heading), justify="left" if heading == "written" else "right", overflow="fold")
    for version in found:
        table.add_row(str(version.version), f"{version.time:%Y-%m-%d %H:%M:%S}", f"{version.rows:,}")
    out.print(table)


def show_delete(report: DeleteReport, *, dry_run: bool = False) -> None:
    """Print how many rows were deleted, or would be, and which ids the index does not have."""
    passages = f" ({counted(report.rows, 'passage')})" if report.rows != report.documents else ""
    out.print(said(f"{counted(report.documents, 'document')}{passages} {'would be deleted' if dry_run else 'deleted'}"))
    if report.missing:
        some = named(report.missing, len(report.missing))
        out.print(shown(said(f"{counted(len(report.missing), 'id')} not in the index: {some}")))


def show_interrupted(left: LeftWork | None) -> None:
    """Print, after an interruption, what is kept and how to go on."""
    if left is None:
        err.print(said("interrupted; there is nothing to continue from, the same command starts over"))
        return
    kept = f"about {left.documents:,} documents are encoded" if left.documents else "a part of the work is done"
    err.print(
        escape(
            said(
                f"interrupted; {kept}, and kept in {left.folder}. The same command continues from there, and with "
                "--no-resume starts over"
            )
        )
    )


def show_stopped(kept: str) -> None:
    """Print, after an interruption of any other command, what is kept."""
    err.print(shown(said(f"interrupted; {kept}")))


def show_check(report: CheckReport) -> None:
    """Print what was checked."""
    size = f"{report.bytes / 1e6:.2f} MB"
    out.print(said(f"{report.files:,} files, {size} and the codes of {report.rows:,} rows are undamaged"))
    if report.rebuilt:
        out.print(said("derived arrays were damaged and have been made again"))


def show_optimize(report: OptimizeReport) -> None:
    """Print what the optimization changed."""
    removed = f"{counted(report.versions_removed, 'old version')} and {counted(report.codecs_removed, 'codec')} removed"
    out.print(said(f"{counted(report.fragments_before, 'fragment')} became {report.fragments_after:,}; {removed}"))


def show_metrics(metrics: Mapping[str, float], n_queries: int) -> None:
    """Print measures averaged over queries."""
    out.print(said(counted(n_queries, "query")))
    for name, value in metrics.items():
        out.print(f"{name:<8} {value:.4f}")


def show_left_out(empty: int, missing: Sequence[str]) -> None:
    """Print what of a test collection is not ranked: empty documents, and judged ones that are not in the corpus."""
    if empty:
        out.print(f"[yellow]{counted(empty, 'empty document')}[/yellow] left out")
    if missing:
        out.print(
            f"[yellow]{len(missing):,} judged documents are not in the corpus[/yellow] and cannot be found, "
            f"such as {shown(repr(missing[0]))}"
        )


def show_ways(rows: Sequence[tuple[str, Mapping[str, float], float | None]]) -> None:
    """Print a table of ways to rank, their measures, and their seconds if all have them."""
    width = max(len(way) for way, _, _ in rows)
    timed = all(seconds is not None for _, _, seconds in rows)
    names = list(rows[0][1])
    head = "".join(f"{name:>12}" for name in names)
    out.print(f"[bold]{'':<{width}}{head}{'seconds' if timed else '':>10}[/bold]")
    for way, measures, seconds in rows:
        values = "".join(f"{measures[name]:>12.4f}" for name in names)
        out.print(f"{shown(f'{way:<{width}}')}{values}" + (f"{seconds:>10.1f}" if timed else ""))


def _named_values() -> Table:
    """A table of names and values, with values folded: rich cuts what it takes for a long word, as all Japanese is."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    return table


def show_info(info: IndexInfo) -> None:
    """Print the counts and sizes of an index."""
    table = _named_values()
    rows = {
        "table": f"{info.table}, version {info.version} ({info.versions} kept)",
        "model": f"{info.model} ({info.fingerprint})",
        "documents": f"{info.documents:,}"
        + (f" in {counted(info.rows, 'passage')} of up to {info.passage_tokens} tokens" if info.passage_tokens else ""),
        "token vectors": f"{info.tokens:,}" + (f", pooled by {info.pool}" if info.pool > 1 else ""),
        "codec": f"{info.dim} dimensions, {info.nbits}-bit residuals, {info.centroids:,} centroids",
        "columns": ", ".join(f"{name}: {kind}" for name, kind in info.columns.items()),
    }
    for name, value in rows.items():
        table.add_row(said(name), shown(said(value)))
    for part, size in info.bytes_by_part.items():
        per_token = size / max(info.tokens, 1)
        size_line = said(f"{size / 1e6:.2f} MB, {per_token:.2f} bytes/token")
        table.add_row(f"  {said(part.replace('_', ' '))}", size_line)
    if info.bytes_on_disk is not None:
        size_line = said(f"{info.bytes_on_disk / 1e6:.2f} MB, {info.bytes_per_token:.2f} bytes/token")
        table.add_row(said("all files on disk"), size_line)
    if info.derived_bytes:
        table.add_row(said("derived arrays"), f"{info.derived_bytes / 1e6:.2f} MB")
    table.add_row(said("searched from"), said(f"{info.searched_bytes_per_token:.2f} bytes/token"))
    table.add_row(said("drift"), said(_drift_line(info.drift)))
    table.add_row(said("rebuild"), said(info.advice))
    out.print(table)


def _drift_line(drift: Drift) -> str:
    line = f"cosine with centroids {drift.trained_cosine:.3f} at training"
    if drift.cosine is None or drift.strange is None:
        return f"{line}; no rows since"
    since = f"{drift.cosine:.3f} in {counted(drift.rows, 'row')} since"
    return f"{line}, {since}, {drift.strange:.0%} of them outliers"


def show_bundle(folder: Path, bundle: Bundle, size: int) -> None:
    """Print the properties of an exported bundle and how near its vectors are to the checkpoint's."""
    table = _named_values()
    rows = {
        "bundle": f"{folder}, {bundle.precision}, {size / 1e6:.1f} MB",
        "model": f"{bundle.name} ({', '.join(f'{name} {value}' for name, value in bundle.origin.items())})",
        "dimensions": str(bundle.dim),
        "queries": _rules_line(bundle.query),
        "documents": _rules_line(bundle.document),
        "parity": ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in bundle.parity.items()),
    }
    for name, value in rows.items():
        table.add_row(name, shown(value))
    out.print(table)


def _rules_line(rules: TextRules) -> str:
    parts = [f"at most {rules.max_length} tokens"]
    parts += [f"marker {rules.marker!r}"] if rules.marker else []
    parts += [f"prefix {rules.prefix!r}"] if rules.prefix else []
    if rules.expansion:
        attended = "attended" if rules.expansion.attend else "not attended"
        parts.append(
            f"{rules.expansion.token} by the {rules.expansion.rule} rule to {rules.expansion.length}, {attended}"
        )
    parts += [f"{len(rules.skiplist)} tokens skipped"] if rules.skiplist else []
    return ", ".join(parts)
