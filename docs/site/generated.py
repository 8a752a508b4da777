"""Parts of pages that are written from the code: the command line, the HTTP paths, the errors and a picture.

A page has a mark `<!-- generated: NAME -->` where such a part stands. `python docs/site/generated.py FOLDER` writes
those pages with their marks filled to a folder, for the checks of prose, and the API reference with its docstrings.
"""

from __future__ import annotations

import base64
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from griffe import Docstring, DocstringSectionKind

import tansaku
from tansaku.plugin.cli.main import app

ROOT = Path(__file__).parents[2]


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _values(kind: Any) -> str:
    """What an option takes."""
    options = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is Literal:
        return " ".join(f"`{value}`" for value in options)
    if get_origin(kind) is list:
        return f"{_values(options[0])}, may be repeated"
    if options:
        return _values(options[0])
    if issubclass(kind, Enum):
        return " ".join(f"`{value.value}`" for value in kind)
    return {bool: "", Path: "path", int: "integer", float: "number"}.get(kind, "text")


def _option_row(parameter: inspect.Parameter, annotation: Any) -> str | None:
    """An option's row of the table; None for a hidden one, and for what typer itself gives a command."""
    if annotation is typer.Context:
        return None
    kind, *rest = get_args(annotation)
    info = next(part for part in rest if hasattr(part, "param_decls"))
    if info.hidden:
        return None
    long = f"--{parameter.name.replace('_', '-')}"
    # In an annotation the first name stands where a default would.
    named = [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str) and name[:1] == "-"]
    names = named or ((f"{long}/--no-{long[2:]}" if kind is bool else long),)
    if isinstance(info, typer.models.ArgumentInfo):
        names = (parameter.name.upper(),)
    value = getattr(parameter.default, "value", parameter.default)
    default = ""
    if value in (inspect.Parameter.empty, ...):
        default = "required"
    elif isinstance(value, bool):
        yes, _, no = str(names[-1]).partition("/")
        default = f"`{(yes if value else no) or 'off'}`"
    elif isinstance(value, (int, float, str)):
        default = f"`{value}`"
    text = info.help or ""
    if info.envvar:
        text += f" Environment variable: `{info.envvar}`."
    shown = ", ".join(f"`{name}`" for name in names)
    values = _values(kind)
    if kind is Any:  # of several types, which the option shows
        values = " ".join(f"`{value}`" for value in (info.metavar or "").strip("[]").split("|"))
    return f"| {shown} | {_cell(values)} | {default} | {_cell(text)} |"


def _help(text: str) -> str:
    """A docstring as Markdown; its examples as blocks of commands."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        example = re.fullmatch(r"Examples?:?\s+`(.+?)`\.?", paragraph.strip(), flags=re.DOTALL)
        paragraphs.append(f"```sh\n{_cell(example[1])}\n```" if example else paragraph)
    return "\n\n".join(paragraphs)


def command_line() -> str:
    """Every command with its arguments and options."""
    lines = []
    for command in app.registered_commands:
        if command.hidden or command.callback is None:
            continue
        call = command.callback
        name = command.name or call.__name__.replace("_", "-")
        lines += [f"## tansaku {name}", "", _help(command.help or call.__doc__ or ""), ""]
        hints = get_type_hints(call, include_extras=True)
        rows = [_option_row(p, hints[p.name]) for p in inspect.signature(call).parameters.values()]
        if rows := [row for row in rows if row]:
            lines += ["| Option | Value | Default | Meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(option) for option in schema[key]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return schema.get("type", "any")


def _limits(schema: dict[str, Any]) -> str:
    words = {
        "minimum": "at least",
        "maximum": "at most",
        "exclusiveMinimum": "above",
        "maxLength": "characters at most",
    }
    found = {**schema, **next((o for o in schema.get("anyOf", []) if set(o) & set(words)), {})}
    parts = [f"{word} {found[key]}" for key, word in words.items() if key in found]
    return f" ({', '.join(parts)})" if parts else ""


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}"
    yield ""
    if text := operation.get("description") or operation.get("summary"):
        yield inspect.cleandoc(text)
        yield ""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield f"Request: {_type(content['schema'])}."
        yield ""
    answers = {status: _bodies(answer) for status, answer in operation["responses"].items()}
    good = [f"{status}: {body or 'no body'}" for status, body in answers.items() if status < "400"]
    bad = dict.fromkeys(body for status, body in answers.items() if status >= "400" and body)
    yield f"Answer: {'; '.join(good)}."
    yield ""
    if bad:
        yield f"Errors: {'; '.join(bad)}."
        yield ""


def _bodies(answer: dict[str, Any]) -> str:
    schemas = [content.get("schema") for content in answer.get("content", {}).values()]
    return " or ".join(dict.fromkeys(_type(schema) for schema in schemas if schema))


def _statuses(paths: dict[str, Any]) -> Iterator[str]:
    """What each status of an error means."""
    meanings: dict[str, dict[str, None]] = {}
    for operation in (operation for methods in paths.values() for operation in methods.values()):
        for status, answer in operation["responses"].items():
            if status >= "400":
                meanings.setdefault(status, {})[answer["description"]] = None
    yield from ("| Status | Meaning |", "|---|---|")
    for status, texts in sorted(meanings.items()):
        yield f"| {status} | {_cell('. '.join(texts))} |"
    yield ""


def http() -> str:
    """The paths of `tansaku serve` with their bodies, from its OpenAPI document."""
    document = tansaku.create_app().openapi()
    lines = [
        "## Errors",
        "",
        *_statuses(document["paths"]),
        "## Paths",
        "",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += _operation(path, method, operation)
    lines += ["## Bodies", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += [f"### {name}", ""]
        if text := schema.get("description"):
            lines += [inspect.cleandoc(text), ""]
        rows = []
        for field, value in schema.get("properties", {}).items():
            default = "required" if field in schema.get("required", ()) else ""
            if value.get("default") is not None:
                default = f"`{value['default']}`"
            kind = _cell(_type(value)) + _limits(value)
            rows.append(f"| `{field}` | {kind} | {default} | {_cell(value.get('description', ''))} |")
        if rows:
            lines += ["| Field | Type | Default | Meaning |", "|---|---|---|---|", *rows, ""]
        elif not schema.get("description"):
            lines += [f"{_type(schema)}.", ""]
    return "\n".join(lines)


def errors() -> str:
    """The tree of errors, and each with its meaning."""
    from tansaku import TansakuError

    for name in dir(tansaku):
        getattr(tansaku, name)  # a class is below its base only once its module is loaded
    public = {getattr(tansaku, name) for name in dir(tansaku)}

    def below(kind: type, depth: int) -> Iterator[tuple[int, type]]:
        yield depth, kind
        for child in sorted((c for c in kind.__subclasses__() if c in public), key=lambda c: c.__name__):
            yield from below(child, depth + 1)

    tree = list(below(TansakuError, 0))
    lines = [
        *(f"{'    ' * depth}- `{kind.__name__}`" for depth, kind in tree),
        "",
    ]
    for _, kind in tree:
        also = [base.__name__ for base in (ValueError, ImportError) if issubclass(kind, base)]
        note = f"This is also {'an' if also[0] == 'ImportError' else 'a'} `{also[0]}`." if also else ""
        lines += [f"::: tansaku.{kind.__name__}", "    options: {members: false, show_bases: false}", ""]
        if note:
            lines += [note, ""]
    return "\n".join(lines)


def latency_picture() -> str:
    """The picture of latency against recall, from the benchmarks' results."""
    image = base64.b64encode((ROOT / "benchmarks" / "results" / "search-6000.svg").read_bytes()).decode()
    return (
        f'<img alt="Search latency against recall, for tansaku and its peers" src="data:image/svg+xml;base64,{image}">'
    )


PARTS: dict[str, Callable[[], str]] = {
    "command line": command_line,
    "errors": errors,
    "http": http,
    "latency picture": latency_picture,
}
_MARK = re.compile(r"<!-- generated: (.+?) -->")
_REFERENCE = re.compile(r"^::: (tansaku[\w.]*)(?:\n    options: .*)?$", re.MULTILINE)


def fill(page: str) -> str:
    """A page with its marks filled."""
    return _MARK.sub(lambda mark: PARTS[mark[1]](), page)


def _prose(docstring: str) -> Iterator[str]:
    """A docstring in Markdown, without its examples."""
    for section in Docstring(docstring).parse("google", warnings=False):
        if section.kind is DocstringSectionKind.text:
            yield f"{section.value}\n"
        elif isinstance(section.value, list):
            yield "\n".join("- " + item.description.replace("\n", "\n  ") for item in section.value) + "\n"


def docstrings(path: str) -> str:
    """The docstrings of a public name and of its public members, in Markdown."""
    found = pkgutil.resolve_name(path)
    members = vars(found).items() if inspect.isclass(found) else ()
    documented = [(path, found), *((f"{path}.{name}", member) for name, member in members if not name.startswith("_"))]
    texts = [(name, inspect.getdoc(member)) for name, member in documented if not isinstance(member, (str, int, float))]
    return "\n".join(line for name, text in texts if text for line in (f"### `{name}`\n", *_prose(text)))


def main(folder: str) -> None:
    """Write the pages that have marks or show docstrings below a folder."""
    for path in sorted((ROOT / "docs").rglob("*.md")):
        page = path.read_text(encoding="utf-8")
        prose = _REFERENCE.sub(lambda mark: docstrings(mark[1]), fill(page))
        if prose != page:
            filled = Path(folder, path.relative_to(ROOT))
            filled.parent.mkdir(parents=True, exist_ok=True)
            filled.write_text(prose, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
