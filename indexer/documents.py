"""Documents as they come in: mappings with an id, a text, perhaps a title, and the caller's own fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..onnx_export import InputError

# Columns of the table that tansaku fills itself.
RESERVED_FIELDS = ("id", "title", "text", "token_count", "centroid_ids", "residuals")


@dataclass(frozen=True)
class FieldNames:
    """Which fields of a record are its id, text and title; ``id=None`` takes ``_id`` or else ``id``."""

    id: str | None = None
    text: str = "text"
    title: str = "title"


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        id: unique in its index.
        text: what is searched, together with the title.
        title: may be empty.
        fields: the caller's other columns.
    """

    id: str
    text: str
    title: str = ""
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def encoded_text(self) -> str:
        """What the encoder sees: title and text, one space between."""
        return f"{self.title} {self.text}" if self.title else self.text


class DocumentReader:
    """Turns records into checked documents; iterate over it as often as needed.

    Args:
        records: mappings, or (place, mapping) pairs as `tansaku.indexer.sources` yields them, the place being
            what an error names ("data.jsonl:17").
        names: which fields are id, text and title.

    Iterating raises InputError, naming the place and the field, for a missing field, an id that is neither str
    nor int, a text or title that is not str, an empty id or text, a field whose name tansaku needs itself, or an
    id that occurred before.
    """

    def __init__(self, records: Iterable[Any], names: FieldNames | None = None) -> None:
        # An iterator can be read once only, and indexing reads twice.
        self._records = list(records) if isinstance(records, Iterator) else records
        self._names = names or FieldNames()

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents in order."""
        seen: set[str] = set()
        for position, record in enumerate(self._records):
            place, content = record if isinstance(record, tuple) else (f"document {position}", record)
            document = _as_document(content, place, self._names)
            if document.id in seen:
                raise InputError(f"{place}: id {document.id!r} occurs twice; ids must be unique")
            seen.add(document.id)
            yield document


def _as_document(record: Any, place: str, names: FieldNames) -> Document:
    if isinstance(record, Document):
        record = {"id": record.id, "title": record.title, "text": record.text, **record.fields}
    if not isinstance(record, Mapping):
        raise InputError(f"{place}: a document must be a mapping of field names to values, not {_kind(record)}")
    id_name = names.id or ("_id" if "_id" in record else "id")
    for name in (id_name, names.text):
        if name not in record:
            raise InputError(f"{place}: no field {name!r} here (fields: {', '.join(map(str, record))})")
    fields = {str(k): v for k, v in record.items() if k not in (id_name, names.text, names.title)}
    for name in fields:
        if name in RESERVED_FIELDS:
            raise InputError(f"{place}: the field name {name!r} is taken by the index itself; rename the field")
    doc_id, text, title = record[id_name], record[names.text], record.get(names.title)
    if isinstance(doc_id, bool) or not isinstance(doc_id, (str, int)) or doc_id == "":
        raise InputError(f"{place}: field {id_name!r} must be a non-empty string or an integer, not {_kind(doc_id)}")
    if not isinstance(text, str):
        raise InputError(f"{place}: field {names.text!r} of {doc_id!r} must be a string, not {_kind(text)}")
    if not text.strip():
        raise InputError(f"{place}: field {names.text!r} of {doc_id!r} is empty; leave the document out or fill it")
    if title is not None and not isinstance(title, str):
        raise InputError(f"{place}: field {names.title!r} of {doc_id!r} must be a string, not {_kind(title)}")
    return Document(str(doc_id), text, title or "", fields)


def _kind(value: Any) -> str:
    return "empty" if value == "" else "null" if value is None else type(value).__name__
