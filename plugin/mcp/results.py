"""What the MCP server's tools return: typed, cut to a bounded size, and the same as text to read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from ...indexer.info import describe
from ...indexer.read.documents import Document
from ...indexer.table.database import storage_errors
from ...indexer.table.schema import user_fields
from ...indexer.table.table import IndexTable
from ...onnx_export.errors import InputError, MissingExtraError
from ..search.explain import Explanation
from ..search.results import Hit
from ..search.searcher import Searcher

try:
    from pydantic import BaseModel, Field
    from pydantic_core import to_jsonable_python
except ImportError as error:
    raise MissingExtraError("mcp", "mcp") from error

_EXCERPT = 400  # characters of a hit's text
_TITLE = 200
_FIELD, _FIELDS = 200, 600  # characters of one of the caller's columns beside a hit, and of all of them
_READ_FIELD, _READ_FIELDS = 1_000, 2_000  # the same beside a document that is read
_MOST_COLUMNS = 200
_EXAMPLE_ROWS = 100
_EXAMPLE = 40  # characters


class _WithFields(BaseModel):
    id: str
    title: str
    text: str
    fields: dict[str, Any] = Field(description="The other columns that have a value; long values are cut.")
    fields_left_out: int = Field(description="How many more there was no room for.")

    def lines(self, note: str = "") -> str:
        """Id and title, the columns, the text."""
        columns = [f"{name}: {value}" for name, value in self.fields.items()]
        if self.fields_left_out:
            columns.append(f"{self.fields_left_out} more left out")
        parts = (f"[{self.id}] {self.title}".rstrip() + note, f"({'; '.join(columns)})" if columns else "", self.text)
        return "\n".join(part for part in parts if part)


class FoundDocument(_WithFields):
    """One hit; ``text`` is the part that fits best, with … where it is cut."""

    score: float = Field(description="Mean cosine of the query's tokens with the best tokens of the document, up to 1.")
    passage: int | None = Field(description="Number of the passage found; null where documents are not divided.")


class SearchResult(BaseModel):
    """Hits, best first."""

    table: str
    hits: list[FoundDocument]

    def as_text(self) -> str:
        """One paragraph for each hit."""
        ranked = enumerate(self.hits, start=1)
        return "\n\n".join(f"{rank}. {hit.lines(f' (score {hit.score:.3f})')}" for rank, hit in ranked) or "no hits"


class ReadDocument(_WithFields):
    """A document, or the part of it that was asked for."""

    offset: int = Field(description="Where ``text`` begins in the whole text, in characters.")
    length: int = Field(description="Characters of the whole text.")
    next_offset: int | None = Field(description="Where to go on reading; null at the end of the document.")

    def as_text(self) -> str:
        """The text, and where to go on."""
        if self.next_offset is None:
            return self.lines()
        rest = f"(characters {self.offset} to {self.next_offset} of {self.length}; go on at offset {self.next_offset})"
        return f"{self.lines()}\n{rest}"


class ReadResult(BaseModel):
    """Documents in the order of their ids, and the ids that the table has not."""

    table: str
    documents: list[ReadDocument]
    unknown_ids: list[str]

    def as_text(self) -> str:
        """One paragraph for each document."""
        unknown = [f"{self.table} has no documents with these ids: {', '.join(self.unknown_ids)}"]
        return "\n\n".join([*(document.as_text() for document in self.documents), *(unknown * bool(self.unknown_ids))])


class Column(BaseModel):
    """A column that a condition may name."""

    name: str
    type: str
    examples: list[Any] = Field(description="A few of its values.")


class TableDescription(BaseModel):
    """What one table holds."""

    table: str
    documents: int
    passages: int | None = Field(description="Passages that the documents are divided into; null if they are not.")
    model: str
    columns: list[Column]
    columns_left_out: int

    def as_text(self) -> str:
        """One line for each column."""
        divided = "" if self.passages is None else f" in {self.passages:,} passages"
        lines = [f"table {self.table}: {self.documents:,} documents{divided}, model {self.model}"]
        for column in self.columns:
            examples = f", such as {', '.join(map(str, column.examples))}" if column.examples else ""
            lines.append(f"- {column.name}: {column.type}{examples}")
        return "\n".join([*lines, *([f"- {self.columns_left_out} more"] * bool(self.columns_left_out))])


class Description(BaseModel):
    """What is served."""

    tables: list[TableDescription]

    def as_text(self) -> str:
        """One paragraph for each table."""
        return "\n\n".join(table.as_text() for table in self.tables)


def found_document(hit: Hit, score: float, query: str, searcher: Searcher) -> FoundDocument:
    """A hit of ``query`` with its excerpt; ``score`` is its mean."""
    columns, doc_id, passage = dict(hit.fields), hit.id, None
    if hit.id == f"{columns.get('parent_id')}#{columns.get('passage')}":  # of a passage, but documents are what is read
        doc_id, passage = columns.pop("parent_id"), columns.pop("passage")
    fields, left_out = _bounded(columns, _FIELD, _FIELDS)
    return FoundDocument(
        id=doc_id,
        title=_cut(hit.title, _TITLE),
        text=_excerpt(hit, query, searcher),
        fields=fields,
        fields_left_out=left_out,
        score=round(score, 4),
        passage=passage,
    )


def read_document(document: Document, offset: int, room: int) -> ReadDocument:
    """At most ``room`` characters of a document's text. Raises InputError for an offset behind its end."""
    length = len(document.text)
    if offset > length:
        raise InputError(f"offset is {offset}, but the document {document.id!r} has {length} characters")
    end = min(length, offset + room)
    fields, left_out = _bounded(document.fields, _READ_FIELD, _READ_FIELDS)
    return ReadDocument(
        id=document.id,
        title=_cut(document.title, _TITLE),
        text=document.text[offset:end],
        fields=fields,
        fields_left_out=left_out,
        offset=offset,
        length=length,
        next_offset=end if end < length else None,
    )


def table_description(index: IndexTable) -> TableDescription:
    """What an index holds; reads some columns of all its rows."""
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
            for field in fields[:_MOST_COLUMNS]
        ],
        columns_left_out=max(0, len(fields) - _MOST_COLUMNS),
    )


def _excerpt(hit: Hit, query: str, searcher: Searcher) -> str:
    """The stretch of a hit's text in which most of the query is met; all of it if it is short."""
    length = len(hit.text)
    if length <= _EXCERPT:
        return hit.text
    try:
        first, last = _densest(searcher.explain(query, hit.id), hit.text)
    except InputError:  # it was deleted between the search and now
        first, last = 0, 0
    start = min(max(0, first - (_EXCERPT - (last - first)) // 2), length - _EXCERPT)
    end = start + _EXCERPT
    return "…" * (start > 0) + hit.text[start:end] + "…" * (end < length)


def _densest(explanation: Explanation, text: str) -> tuple[int, int]:
    """Where in ``text`` the matches begin and end that weigh most together, within an excerpt's length."""
    before = len(explanation.text) - len(text)  # the title
    spans = [
        (match.document_span[0] - before, match.document_span[1] - before, match.weight * match.similarity)
        for match in explanation.matches
        if match.query_text and match.document_span is not None and match.document_span[0] >= before
    ]
    heaviest, where = 0.0, (0, 0)
    for start, *_ in spans:
        inside = [span for span in spans if start <= span[0] and span[1] <= start + _EXCERPT]
        weight = sum(similarity for *_, similarity in inside)
        if weight > heaviest:
            heaviest, where = weight, (start, max(end for _, end, _ in inside))
    return where


def _bounded(columns: dict[str, Any], of_one: int, of_all: int) -> tuple[dict[str, Any], int]:
    """Columns that have a value, as JSON knows it, as far as there is room; and how many there was none for."""
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
    return [_cut(value, _EXAMPLE) if isinstance(value, str) else value for value in different[:3]]


def _holds_data(of: pa.DataType) -> bool:
    return pa.types.is_nested(of) or pa.types.is_binary(of) or pa.types.is_large_binary(of)


def _plain(value: Any) -> Any:
    return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="null", fallback=str)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"
