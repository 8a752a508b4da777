"""The hits of searches as text for people, and as JSON, JSONL and TSV for programs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import typer
from pydantic_core import to_jsonable_python
from rich.table import Table

from ...onnx_export.counts import counted
from ...onnx_export.errors import InputError
from . import display
from .display import shown
from .messages import said
from .terminal import as_json

if TYPE_CHECKING:
    from ..search.explain import Explanation
    from ..search.results import Hit, Hits
    from ..search.snippets import Snippet

HitFormat = Literal["text", "json", "jsonl", "tsv"]

_ALWAYS = ("id", "score")  # every hit has them, and they may be named too
_OWN = ("title", "text", "snippet")  # what `--fields` may name besides columns
_SNIPPET_CHARS = 80
_CONTEXT_CHARS = 12  # shown on either side of a token that matched
_PLACE = ("query_id", "rank", "id", "score")  # of a line of TSV, before the fields


@dataclasses.dataclass(frozen=True)
class Answer:
    """A query and what was found.

    Attributes:
        query_id: Its id in the file of queries; "1" of a query in the command.
        query: Its text.
        hits: The hits.
        snippets: The snippet of each hit; empty where none are shown.
        explanations: The explanation of each hit; empty unless they were asked for.
    """

    query_id: str
    query: str
    hits: Hits
    snippets: Sequence[Snippet] = ()
    explanations: Sequence[Explanation] = ()


def chosen_fields(given: Sequence[str] | None, columns: Iterable[str]) -> list[str] | None:
    """What `--fields` was given: names, between commas; None if nothing was. Without id and score, which all have.

    Args:
        given: The values of the option.
        columns: The columns of the index that hits have.

    Raises:
        InputError: A name that is neither a column nor id, score, title, text or snippet.
    """
    if not given:
        return None
    own = list(columns)
    known = [*_ALWAYS, *_OWN, *own]
    names = [name for value in given for name in ([value] if value in known else value.split(","))]
    for name in names:
        if name not in known:
            raise InputError(f"--fields: hits have no field {name!r}; use {', '.join(known)}")
    return [name for name in names if name in own or name not in _ALWAYS]


def show_answers(answers: Iterable[Answer], form: HitFormat, fields: Sequence[str] | None, *, several: bool) -> None:
    """Print what was found.

    Args:
        answers: The queries with their hits, which may be found as they are printed.
        form: The format.
        fields: Names of fields to show; None shows title, text, snippet and all columns, and in TSV title and text.
        several: Whether the queries come from a file; JSON is then an object with a list of them.
    """
    if form == "text":
        for answer in answers:
            columns = [name for name in fields or () if name not in ("title", "snippet")]
            show_hits(answer.query, answer.hits, answer.explanations, answer.snippets, columns)
    elif form == "json":
        answered = [{"query_id": answer.query_id, **_as_object(answer, fields)} for answer in answers]
        display.show_json(
            {"queries": answered} if several else {k: v for k, v in answered[0].items() if k != "query_id"}
        )
    elif form == "jsonl":
        for answer in answers:
            for hit in _as_object(answer, fields)["hits"]:
                typer.echo(as_json({"query_id": answer.query_id, "query": answer.query, **hit}, indent=None))
    else:
        named = list(("title", "text") if fields is None else fields)
        found = iter(answers)
        first = list(itertools.islice(found, 1))  # a search that is refused prints no header
        typer.echo("\t".join(map(_cell, (*_PLACE, *named))))
        for answer in itertools.chain(first, found):
            for rank, hit in enumerate(answer.hits, start=1):
                place = (answer.query_id, rank, hit.id, f"{hit.score:.6f}")
                values = (value_of(hit, name, answer.snippets, rank) for name in named)
                typer.echo("\t".join(map(_cell, (*place, *values))))


def value_of(hit: Hit, name: str, snippets: Sequence[Snippet], rank: int) -> Any:
    """A field of a hit by its name: title, text, snippet or a column."""
    if name == "snippet":
        return snippets[rank - 1].text
    return getattr(hit, name) if name in ("title", "text") else hit.fields[name]


def _as_object(answer: Answer, fields: Sequence[str] | None) -> dict[str, Any]:
    found = []
    for rank, hit in enumerate(answer.hits, start=1):
        content: dict[str, Any] = {"rank": rank, **dataclasses.asdict(hit)}
        if answer.snippets:
            content["snippet"] = dataclasses.asdict(answer.snippets[rank - 1])
        if fields is not None:
            content["fields"] = {name: hit.fields[name] for name in fields if name not in _OWN}
            for name in _OWN:
                if name not in fields:
                    content.pop(name, None)
        if answer.explanations:
            explanation = answer.explanations[rank - 1]
            content["matches"] = [dataclasses.asdict(match) for match in explanation.matches]
            content["cut"] = explanation.cut
        found.append(content)
    hits = answer.hits
    about = {name: getattr(hits, name) for name in ("scored", "recall", "truncated", "missing")}
    return {"query": answer.query, "hits": found, "stages_ms": hits.stages, **about}


def _cell(value: Any) -> str:
    """A value in one cell of TSV: its tabs and line ends, which would end it, as spaces."""
    if value is None:
        return ""
    plain = to_jsonable_python(value, inf_nan_mode="null", bytes_mode="base64", fallback=str)
    text = plain if isinstance(plain, str) else as_json(plain, indent=None)
    return " ".join(text.split("\t")).replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


def show_hits(
    query: str,
    hits: Hits,
    explanations: Sequence[Explanation] = (),
    snippets: Sequence[Snippet] = (),
    columns: Sequence[str] = (),
) -> None:
    """Print ranked hits with scores, snippets and columns; with explanations also matches and the time of each stage.

    What matches in a snippet is bold and yellow on a terminal, and elsewhere between « and ».
    """
    display.out.print(f"\n[bold]{shown(query)}[/bold]")
    if not hits:
        display.out.print(f"  {said('nothing found')}")
    for rank, hit in enumerate(hits, start=1):
        title = f"{shown(hit.title)}  " if hit.title else ""
        display.out.print(f"{rank:>3}  [green]{hit.score:7.3f}[/green]  [bold]{title}[/bold][dim]{shown(hit.id)}[/dim]")
        snippet = _marked(snippets[rank - 1], hit.text) if snippets else shown(_one_line(hit.text[:_SNIPPET_CHARS]))
        display.out.print(f"              {snippet}")
        for name in columns:
            value = hit.text if name == "text" else hit.fields[name]
            line = "" if value is None else _one_line(str(value))
            display.out.print(f"              [dim]{shown(name)}:[/dim] {shown(line)}")
        if explanations:
            display.out.print(_matches(explanations[rank - 1]))
    if hits.missing:
        display.out.print(f"[yellow]{said('not in the index:')}[/yellow] {shown(', '.join(hits.missing))}")
    if explanations:
        stages = ", ".join(f"{name} {value:.2f}" for name, value in hits.stages.items())
        line = said(f"{counted(hits.scored, 'document')} scored; milliseconds: {stages}")
        display.out.print(f"[dim]{line}[/dim]")


def _marked(snippet: Snippet, text: str) -> str:
    """A snippet on one line, with … where the text goes on before or after it."""
    before, after = ("[bold yellow]", "[/bold yellow]") if display.out.is_terminal else ("«", "»")
    line, done = _one_line(snippet.text), 0
    parts = ["…" if snippet.start else ""]
    for start, end in snippet.marks:
        parts += [shown(line[done:start]), before, shown(line[start:end]), after]
        done = end
    return "".join([*parts, shown(line[done:]), "…" if snippet.start + len(line) < len(text) else ""])


def _one_line(text: str) -> str:
    """``text`` with a space for each white space character."""
    return "".join(" " if character.isspace() else character for character in text)


def _matches(explanation: Explanation) -> Table:
    """What each query token matched, with the text around it; a bar shows their similarity."""
    table = Table(box=None, padding=(0, 1, 0, 2), show_header=False)
    for _ in range(4):
        table.add_column(overflow="fold")  # Japanese is cut off otherwise, see `display`
    for match in explanation.matches:
        around = f"[dim]{said('(no text)')}[/dim]"
        if match.document_span:
            start, end = match.document_span
            before = explanation.text[max(0, start - _CONTEXT_CHARS) : start].replace("\n", " ")
            after = explanation.text[end : end + _CONTEXT_CHARS].replace("\n", " ")
            around = f"{shown(before)}[bold yellow]{shown(match.document_text)}[/bold yellow]{shown(after)}"
        bar = "█" * round(8 * max(match.similarity, 0))
        similarity = f"{match.weight:4.2f} × {match.similarity:6.3f}"
        table.add_row(similarity, bar.ljust(8), shown(match.query_text) or "[dim]·[/dim]", around)
    return table
