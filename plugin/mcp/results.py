"""What the MCP server's tools return: typed results of bounded size, and the same as text.

In the text, what others wrote cannot pass for ours: ids, titles, names and values are JSON on one line, and each line
of a document's text begins with ``| ``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from ...indexer.info import describe
from ...indexer.read.documents import Document
from ...indexer.table.database import storage_errors
from ...indexer.table.schema import user_fields
from ...indexer.table.table import IndexTable
from ...onnx_export.counts import counted
from ...onnx_export.errors import InputError, MissingExtraError
from ..search.cuts import documents_cut, documents_warning, query_warning
from ..search.results import Hit, Hits
from ..search.searcher import Searcher
from ..search.snippets import Snippet
from .budget import tokens_of

try:
    from pydantic import BaseModel, Field
    from pydantic_core import to_jsonable_python
except ImportError as error:
    raise MissingExtraError("mcp", "mcp") from error

# Characters of a hit's text, of a title, of one column's value beside a hit and of all of them, of the same beside a
# document that is read, and of an example of a column's values.
_EXCERPT_CHARS = 400
_TITLE_CHARS = 200
_FIELD_CHARS, _FIELDS_CHARS = 200, 600
_READ_FIELD_CHARS, _READ_FIELDS_CHARS = 1_000, 2_000
_EXAMPLE_CHARS = 40
_MAX_COLUMNS = 200  # columns described
_EXAMPLE_ROWS = 100  # rows that examples are taken from

_UNSHOWN = re.compile(
    "[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


class _WithFields(BaseModel):
    id: str
    title: str
    text: str
    fields: dict[str, Any] = Field(description="Other columns that have a value; long values are cut.")
    fields_left_out: int = Field(description="Number of columns left out for lack of space.")

    def lines(self, note: str = "") -> str:
        """Id, title, columns and text."""
        title = f", title {shown(self.title)}" if self.title else ""
        columns = [f"{_name(name)}: {shown(value)}" for name, value in self.fields.items()]
        if self.fields_left_out:
            columns.append(f"{self.fields_left_out} more left out")
        parts = (f"id {shown(self.id)}{note}{title}", f"({'; '.join(columns)})" if columns else "", _quoted(self.text))
        return "\n".join(part for part in parts if part)


class FoundDocument(_WithFields):
    """One hit; ``text`` is the best excerpt, with … where it is cut."""

    score: float = Field(description="Mean cosine of each query token with its best token of the document, at most 1.")
    passage: int | None = Field(description="Number of the passage found; null if documents are not divided.")


class SearchResult(BaseModel):
    """Hits, best first."""

    table: str
    hits: list[FoundDocument]
    hits_left_out: int = Field(description="Number of hits left out because of max_tokens.")
    unknown_ids: list[str] = Field(description="Given ids that the table does not have.")
    recall: float | None = Field(
        None, description="Expected share of the best documents that is among the hits; null if it was not measured."
    )
    warning: str | None = Field(
        None, description="Set if the end of the query or of a hit was ignored because the model reads no more."
    )

    def as_text(self) -> str:
        """One paragraph for each hit."""
        ranked = [f"{i}. {hit.lines(f', score {hit.score:.3f}')}" for i, hit in enumerate(self.hits, start=1)]
        more = f"({counted(self.hits_left_out, 'more hit')} left out because of max_tokens)"
        notes = [
            *[more] * bool(self.hits_left_out),
            *_unknown(self.table, self.unknown_ids),
            *([] if self.warning is None else [self.warning]),
        ]
        return "\n\n".join([*(ranked or ["no hits"]), *notes])


class ReadDocument(_WithFields):
    """A document, or the part of it that was requested."""

    offset: int = Field(description="Position of ``text`` in the whole text, in characters.")
    length: int = Field(description="Number of characters of the whole text.")
    next_offset: int | None = Field(description="Offset of the rest; null at the end of the document.")

    def as_text(self) -> str:
        """The text, and the offset of the rest."""
        if self.next_offset is None:
            return self.lines()
        rest = (
            f"(characters {self.offset} to {self.next_offset} of {self.length}; continue at offset {self.next_offset})"
        )
        return f"{self.lines()}\n{rest}"


class ReadResult(BaseModel):
    """Documents in the order of their ids, and the ids that the table does not have."""

    table: str
    documents: list[ReadDocument]
    unknown_ids: list[str]

    def as_text(self) -> str:
        """One paragraph for each document."""
        documents = [document.as_text() for document in self.documents]
        return "\n\n".join([*documents, *_unknown(self.table, self.unknown_ids)])


class Column(BaseModel):
    """A column that a condition may name."""

    name: str
    type: str
    examples: list[Any] = Field(description="Up to three of its values.")


class TableDescription(BaseModel):
    """The contents of one table."""

    table: str
    documents: int
    passages: int | None = Field(
        description="Number of passages that the documents are divided into; null if they are not."
    )
    model: str
    columns: list[Column]
    columns_left_out: int

    def as_text(self) -> str:
        """One line for each column."""
        divided = "" if self.passages is None else f" in {counted(self.passages, 'passage')}"
        documents = counted(self.documents, "document")
        lines = [f"table {_name(self.table)}: {documents}{divided}, model {shown(self.model)}"]
        for column in self.columns:
            examples = f", such as {', '.join(map(shown, column.examples))}" if column.examples else ""
            lines.append(f"- {_name(column.name)}: {on_one_line(column.type)}{examples}")
        return "\n".join([*lines, *([f"- {self.columns_left_out} more"] * bool(self.columns_left_out))])


class Description(BaseModel):
    """What is served."""

    tables: list[TableDescription]

    def as_text(self) -> str:
        """One paragraph for each table."""
        return "\n\n".join(table.as_text() for table in self.tables)


def _unknown(table: str, ids: list[str]) -> list[str]:
    return [f"{_name(table)} has no documents with these ids: {', '.join(map(shown, ids))}"] if ids else []


def shown(value: Any) -> str:
    """A value as JSON, on one line."""
    return on_one_line(json.dumps(value, ensure_ascii=False))


def _name(name: str) -> str:
    """A name as it is if it is a plain word, otherwise as JSON."""
    return name if name.isidentifier() else shown(name)


def _quoted(text: str) -> str:
    return "\n".join(f"| {on_one_line(line)}" for line in text.splitlines())


def on_one_line(text: str) -> str:
    """The text with its line ends, control characters and signs that turn the direction of writing as escapes."""
    return _UNSHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def found_document(hit: Hit, score: float, query: str, searcher: Searcher) -> FoundDocument:
    """A hit of ``query`` with its excerpt; ``score`` is the mean score."""
    columns, passage = dict(hit.fields), None
    if searcher.has_passages:
        columns.pop("parent_id", None)
        passage = columns.pop("passage", None)
    fields, left_out = _bounded(columns, _FIELD_CHARS, _FIELDS_CHARS)
    return FoundDocument(
        id=hit.id,
        title=_cut(hit.title, _TITLE_CHARS),
        text=_excerpt(hit, query, searcher),
        fields=fields,
        fields_left_out=left_out,
        score=round(score, 4),
        passage=passage,
    )


def within(hits: Sequence[FoundDocument], max_tokens: int) -> list[FoundDocument]:
    """The first hits that take at most ``max_tokens`` of an agent's context together, and the first one in any case.

    Args:
        hits: the hits, best first.
        max_tokens: largest number of tokens of their texts.
    """
    kept: list[FoundDocument] = []
    for hit in hits:
        max_tokens -= tokens_of(hit.lines())
        if kept and max_tokens < 0:
            break
        kept.append(hit)
    return kept


def what_was_cut(hits: Hits, searcher: Searcher) -> str | None:
    """What is said of a query or of hits that are longer than the model reads; None if there are none."""
    warnings = [query_warning(searcher.encoder)] if hits.truncated else []
    if cut := documents_cut(searcher.encoder, hits):
        warnings.append(documents_warning(searcher.encoder, [shown(doc_id) for doc_id in cut], len(hits)))
    return "; ".join(warnings) or None


def read_document(document: Document, offset: int, room: int) -> ReadDocument:
    """At most ``room`` characters of a document's text. Raises InputError for an offset beyond its end."""
    length = len(document.text)
    if offset > length:
        raise InputError(f"offset is {offset}, but the document {document.id!r} has {length} characters")
    end = min(length, offset + room)
    fields, left_out = _bounded(document.fields, _READ_FIELD_CHARS, _READ_FIELDS_CHARS)
    return ReadDocument(
        id=document.id,
        title=_cut(document.title, _TITLE_CHARS),
        text=document.text[offset:end],
        fields=fields,
        fields_left_out=left_out,
        offset=offset,
        length=length,
        next_offset=end if end < length else None,
    )


def table_description(index: IndexTable) -> TableDescription:
    """The contents of an index; reads some columns of all its rows."""
    info = describe(index)
    schema, own = index.table.schema, user_fields(index.table.schema, index.header)
    names = ["id", "title", "text", *(["parent_id", "passage"] if info.passage_tokens else [])]
    fields = [*(schema.field(name) for name in names), *own]
    plain = [field.name for field in own if not _holds_data(field.type)]
    examples: dict[str, list[Any]] = {}
    if plain:
        with storage_errors(index.place()):
            rows = index.table.search().select(plain).limit(_EXAMPLE_ROWS).to_arrow()
        examples = {name: _examples(rows[name].to_pylist()) for name in plain}
    return TableDescription(
        table=index.name,
        documents=info.documents,
        passages=info.rows if info.passage_tokens else None,
        model=info.model,
        columns=[
            Column(name=field.name, type=str(field.type), examples=examples.get(field.name, []))
            for field in fields[:_MAX_COLUMNS]
        ],
        columns_left_out=max(0, len(fields) - _MAX_COLUMNS),
    )


def _excerpt(hit: Hit, query: str, searcher: Searcher) -> str:
    """The part of a hit's text that matches most of the query; all of the text if it is short."""
    length = len(hit.text)
    if length <= _EXCERPT_CHARS:
        return hit.text
    try:
        found = searcher.snippets(query, [hit.id], chars=_EXCERPT_CHARS)[0]
    except InputError:  # deleted since the search
        found = Snippet(hit.text[:_EXCERPT_CHARS], 0)
    return "…" * (found.start > 0) + found.text + "…" * (found.start + len(found.text) < length)


def _bounded(columns: dict[str, Any], of_one: int, of_all: int) -> tuple[dict[str, Any], int]:
    """Columns that have a value, as JSON has it, up to the room there is; and the number of columns left out."""
    kept: dict[str, Any] = {}
    left_out = 0
    for name, value in columns.items():
        plain = _plain(value)
        if plain is None:
            continue
        text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
        size = len(name) + min(len(text), of_one)
        if size > of_all:
            left_out += 1
            continue
        of_all -= size
        kept[name] = plain if len(text) <= of_one else _cut(text, of_one)
    return kept, left_out


def _examples(values: Iterable[Any]) -> list[Any]:
    different = [value for value in dict.fromkeys(map(_plain, values)) if value is not None]
    return [_cut(value, _EXAMPLE_CHARS) if isinstance(value, str) else value for value in different[:3]]


def _holds_data(of: pa.DataType) -> bool:
    return pa.types.is_nested(of) or pa.types.is_binary(of) or pa.types.is_large_binary(of)


def _plain(value: Any) -> Any:
    return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="null", fallback=str)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"
