"""What the command line shows people: progress, hits and sizes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..indexer import BuildReport, IndexInfo
from ..onnx_export import Bundle, TextRules
from .searcher import Hit

_STAGES = {"read": "reading", "sample": "encoding a sample", "encode": "encoding", "search": "searching"}
_PLAIN_SECONDS = 5.0  # between lines where there is no terminal
_SNIPPET = 80

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class ProgressDisplay:
    """A progress bar on a terminal, a plain line now and then elsewhere; both on standard error.

    Call it as a `tansaku.indexer.Progress`.
    """

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=err) if err.is_terminal else None
        self._tasks: dict[str, TaskID] = {}
        self._stage = ""
        self._last_line = 0.0

    def __enter__(self) -> ProgressDisplay:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` (0: not known) are done in ``stage``."""
        label = _STAGES.get(stage, stage)
        if self._bars:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(label)
            self._bars.update(self._tasks[stage], completed=done, total=total or None)
            return
        now = time.monotonic()
        finished = 0 < total <= done
        if stage != self._stage or finished or now - self._last_line >= _PLAIN_SECONDS:
            self._stage, self._last_line = stage, now
            err.print(f"{label}: {done:,}" + (f" of {total:,}" if total else ""))


def show_error(error: Exception) -> None:
    """Print what went wrong to standard error."""
    err.print(f"[red]error:[/red] {escape(str(error))}")


def show_hits(query: str, hits: Sequence[Hit]) -> None:
    """Print ranked hits with scores and snippets."""
    out.print(f"\n[bold]{escape(query)}[/bold]")
    if not hits:
        out.print("  nothing found")
    for rank, hit in enumerate(hits, start=1):
        snippet = " ".join(hit.text.split())
        snippet = snippet[:_SNIPPET] + ("…" if len(snippet) > _SNIPPET else "")
        title = f"{escape(hit.title)}  " if hit.title else ""
        out.print(f"{rank:>3}  [green]{hit.score:7.3f}[/green]  [bold]{title}[/bold][dim]{escape(hit.id)}[/dim]")
        out.print(f"              {escape(snippet)}")


def show_build(report: BuildReport, seconds: float) -> None:
    """Print what was indexed and how long it took."""
    out.print(
        f"{report.documents:,} documents, {report.tokens:,} token vectors in {seconds:.1f} s "
        f"({report.documents / seconds:.0f} documents/s, {report.tokens / seconds:,.0f} tokens/s)"
    )
    if report.truncated:
        out.print(f"{report.truncated:,} documents were longer than the model reads and were cut")


def show_info(info: IndexInfo) -> None:
    """Print the counts and sizes of an index."""
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "table": f"{info.table}, version {info.version}",
        "model": f"{info.model} ({info.fingerprint})",
        "documents": f"{info.documents:,}",
        "token vectors": f"{info.tokens:,}",
        "codec": f"{info.dim} dimensions, {info.nbits}-bit residuals, {info.centroids:,} centroids",
        "columns": ", ".join(f"{name}: {kind}" for name, kind in info.columns.items()),
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    for part, size in info.bytes_by_part.items():
        per_token = size / max(info.tokens, 1)
        table.add_row(f"  {part.replace('_', ' ')}", f"{size / 1e6:.2f} MB, {per_token:.2f} bytes/token")
    if info.bytes_on_disk is not None:
        table.add_row("all files on disk", f"{info.bytes_on_disk / 1e6:.2f} MB, {info.bytes_per_token:.2f} bytes/token")
    out.print(table)


def show_bundle(folder: Path, bundle: Bundle, size: int) -> None:
    """Print what an exported bundle is and how near its vectors are to the checkpoint's."""
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "bundle": f"{folder}, {bundle.precision}, {size / 1e6:.1f} MB",
        "model": f"{bundle.name} ({', '.join(f'{name} {value}' for name, value in bundle.origin.items())})",
        "dimensions": str(bundle.dim),
        "queries": _rules_line(bundle.query),
        "documents": _rules_line(bundle.document),
        "parity": ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in bundle.parity.items()),
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
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
