"""Read documents: mappings with an id, a text, optionally a title, and the caller's own fields."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa

from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_kind
from ...onnx_export.progress import Progress
from ..errors import SourceError
from .cells import CellRecord, MixedColumns, cell_text
from .given import ArrowRows, PandasRows, as_records
from .line_formats import BOM, NOT_ISO_2022_JP, OTHER_HEADER, BadRecord, is_iso_2022_jp
from .names import field_name
from .rejects import Rejects
from .sources import Source
from .typed_text import TextRecord, TextTypes, column_type
from .vectors import GivenVectors

_logger = logging.getLogger(__name__)

# Columns of the table that tansaku fills itself; PASSAGE_FIELDS only in an index of passages.
RESERVED_FIELDS = (
    "id",
    "title",
    "text",
    "token_count",
    "centroid_ids",
    "residuals",
    "centroid_cosine",
    "write_id",
)
_RECORDS_BETWEEN_REPORTS = 4096
PASSAGE_FIELDS = ("parent_id", "passage")


@dataclass(frozen=True)
class FieldNames:
    """Which fields of a record hold its id, text and title, and which of the others become columns.

    Attributes:
        id: name of the field with the id; None takes ``_id`` if the record has it, otherwise ``id``.
        text: name of the field with the text. Of several names, the texts are joined by line ends, without empty ones.
        title: name of the field with the title, which records need not have.
        generate_ids: make the ids from the records' titles and texts: equal documents get the same id in each call, and
            within one call "-2" and so on are appended.
        keep: names of the other fields that become columns; None keeps all.
        drop: names of fields that are left out.
        rename: names of fields, and the names that their columns get.
        types: names of columns, and their types: "string", "integer", "number", "boolean", "date", "timestamp",
            "timestamp(ZONE)", such as "timestamp(Asia/Tokyo)", or "decimal(P,S)". For other columns of CSV and TSV,
            whose values are all text, all values decide; for those of other sources, the values have types, and a
            column of a spreadsheet that mixes them becomes text. A column "string" takes numbers, truth values, dates
            and times as text. JSON has no dates, times and decimals: for columns of these types its texts are read like
            those of CSV, and its numbers as decimals. In a column with a time zone, a time without one is a time there.

    Raises:
        InputError: a type is unknown, ``text`` has no name, or a value is of a wrong kind.

    Example:
        >>> from tansaku import FieldNames, Index
        >>> records = [{"url": "a.example", "body": "金閣寺は京都の北山にある寺院。"}]
        >>> len(Index.create(folder, "pages", records, names=FieldNames(id="url", text="body")))
        1
    """

    id: str | None = None
    text: str | Sequence[str] = "text"
    title: str = "title"
    generate_ids: bool = False
    keep: Sequence[str] | None = None
    drop: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("keep", "drop"):
            if isinstance(value := getattr(self, name), str):  # whose characters would be taken for names
                raise InputError(f"FieldNames.{name} is one string; give a list of names, such as [{value!r}]")
        for name in ("rename", "types"):
            example = "a dict of names" if name == "rename" else 'a dict, such as {"year": "integer"}'
            check_kind(f"FieldNames.{name}", getattr(self, name), Mapping, f"give {example}")
        if not self.texts:
            raise InputError("FieldNames.text has no name; name the field with the text")
        # Names are the same in all forms that look the same, see `field_name`.
        for name in ("id", "title", "text"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, field_name(value) if isinstance(value, str) else _field_names(value))
        object.__setattr__(self, "keep", None if self.keep is None else _field_names(self.keep))
        object.__setattr__(self, "drop", _field_names(self.drop))
        for name in ("rename", "types"):
            renamed = {field_name(old): new for old, new in getattr(self, name).items()}
            object.__setattr__(self, name, renamed)
        self.arrow_types()

    @property
    def texts(self) -> tuple[str, ...]:
        """The names of the fields with text."""
        return (self.text,) if isinstance(self.text, str) else tuple(self.text)

    def arrow_types(self) -> dict[str, pa.DataType]:
        """The types of columns that are given.

        Raises:
            InputError: a type is unknown.
        """
        return {name: column_type(kind) for name, kind in self.types.items()}

    def id_of(self, record: Container[str]) -> str:
        """The name of the field with the id, in a record."""
        return self.id or ("_id" if "_id" in record else "id")

    def columns_of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The values that become columns, by the names of the columns.

        Raises:
            InputError: ``rename`` gives two fields one column.
        """
        taken = {self.title, *self.texts, *self.drop}
        if not self.generate_ids:
            taken.add(self.id_of(record))
            if self.id is None and record.get("_id") == record.get("id"):
                taken.add("id")
        kept = [name for name in record if name not in taken and (self.keep is None or name in self.keep)]
        columns = {self.rename.get(name, name): record[name] for name in kept}
        if len(columns) < len(kept):
            raise InputError(f"two of the fields {', '.join(map(repr, kept))} become one column; rename them apart")
        return columns


@dataclass(frozen=True)
class Document:
    """A document, or a passage of one while it is indexed.

    Attributes:
        id: id, unique in its index.
        text: the text that is searched, together with the title.
        title: title; may be empty.
        fields: values of the caller's other columns by their names.
        parent_id: in a passage, the id of the document that it is a part of; otherwise None.
        passage: in a passage, its number in that document, from 0.
        place: where it was read ("data.jsonl:17").
        whole_text: in a passage, the text of that document.
        vectors: token vectors that the caller made, float32 (tokens, dim), unit length; None: the model makes them.
    """

    id: str
    text: str
    title: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    parent_id: str | None = None
    passage: int = 0
    place: str = field(default="", compare=False, repr=False)
    whole_text: str = field(default="", compare=False, repr=False)
    vectors: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def encoded_text(self) -> str:
        """The text that the encoder gets: title, a space, and text."""
        return f"{self.title} {self.text}" if self.title else self.text

    @property
    def size(self) -> int:
        """The size by which its number of token vectors is estimated: their number if given, otherwise characters."""
        return len(self.encoded_text) if self.vectors is None else len(self.vectors)


class DocumentReader:
    """Turns records into checked documents. May be iterated over several times.

    Iterating refuses a record for these faults: a field is missing; the id is neither str nor int; the text or title is
    not a str; the id or text is empty; a string has a lone surrogate; a field name is reserved, or cannot be the name
    of a column; the id occurred before. A refused record raises InputError, or is
    noted in ``rejects``; the message names the place and the field. Records that were rejected in one pass are left out
    of later ones, so that all passes give the same documents.

    Memory: about 100 bytes for each id.

    Args:
        records: what `as_records` takes. The place ("data.jsonl:17") of a record is used in messages.
        names: names of the fields with id, text and title.
        rejects: collects records that cannot be used; None raises an error for the first of them.
        reserved: field names that the index needs for itself.
        vectors: token vectors of each record; a text may then be missing or empty.
        types: types of columns that are there already, for the values of CSV and TSV.

    Attributes:
        total: number of records; 0 if that is not known before they are read.
    """

    def __init__(
        self,
        records: Iterable[Any],
        names: FieldNames | None = None,
        rejects: Rejects | None = None,
        reserved: Sequence[str] = RESERVED_FIELDS,
        vectors: GivenVectors | None = None,
        types: Mapping[str, pa.DataType] | None = None,
    ) -> None:
        self._records = as_records(records)
        self.total = len(self._records) if isinstance(self._records, Sized) else 0
        self._names = names or FieldNames()
        if isinstance(self._records, PandasRows):
            id_field = None if self._names.generate_ids else self._names.id_of(self._records.names)
            self._records.check_fields(id_field, (*self._names.texts, self._names.title))
        self._types = TextTypes(self._names.arrow_types(), types)
        self._mixed: dict[str, str] = {}
        self._reserved = reserved
        self._vectors = vectors
        self._rejects = rejects
        self._left_out: set[str] = set()
        if rejects is not None:
            rejects.begin()

    def bytes_read(self) -> tuple[int, int]:
        """Bytes that the latest iteration has read, and those of all files; both 0 if that is not known."""
        return self._records.bytes_read if isinstance(self._records, Source) else (0, 0)

    def infer_types(self, progress: Progress) -> dict[str, str]:
        """Find the types of the columns of CSV, TSV and spreadsheets by reading all records once.

        A column of a spreadsheet that has cells of several kinds becomes text; a warning is logged.

        Args:
            progress: called now and then, with the stage "types" or "types bytes", see `report`.

        Returns:
            Name and type, see `FieldNames`, of each column of CSV and TSV and of those that become text; empty if there
            are none.

        Raises:
            SourceError: a file cannot be read.
        """
        cells = MixedColumns()
        if isinstance(self._records, Source) and self._records.is_untyped:
            for number, (place, record) in enumerate(self._records, start=1):
                self.total = number
                if number % _RECORDS_BETWEEN_REPORTS == 0:
                    report(progress, "types", number, 0, self.bytes_read())
                if isinstance(record, TextRecord):
                    self._types.see(self._names.columns_of(record))
                elif isinstance(record, CellRecord):
                    cells.see(self._names.columns_of(record), place)
        self._mixed = {name: said for name, said in cells.found() if not self._types.is_given(name)}
        for said in self._mixed.values():
            _logger.warning("%s", said)
        return self._types.found() | dict.fromkeys(self._mixed, "string")

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents in order.

        Raises:
            InputError: a record is refused, and there are no ``rejects``.
            SourceError: the numbers of documents and of matrices of vectors differ.
        """
        seen: set[str] = set()
        made: Counter[str] = Counter()
        position = -1
        for position, record in enumerate(self._read()):
            has_place = isinstance(record, tuple) and len(record) == 2
            place, content = record if has_place else (f"document {position}", record)
            if place in self._left_out:
                continue
            matrix = None
            try:
                if self._vectors is not None:
                    content, matrix = self._vectors.take(position, place, content)
                document = self._document(content, place)
                if self._names.generate_ids:
                    made[document.id] += 1
                    if made[document.id] > 1:
                        document = replace(document, id=f"{document.id}-{made[document.id]}")
                if self._vectors is not None:
                    document = replace(document, vectors=self._vectors.checked(matrix, place, document.id))
                if document.id in seen:
                    raise InputError(f"{place}: id {document.id!r} occurs twice; ids must be unique")
            except SourceError:
                raise
            except InputError as error:
                self._note(place, error, content)
                self._left_out.add(place)
                continue
            seen.add(document.id)
            yield document
        count = None if self._vectors is None else self._vectors.count
        if count is not None and position + 1 < count:
            raise SourceError(
                f"there are {position + 1} documents and {count} matrices of vectors; give one for each document"
            )

    def leave_out(self, document: Document, error: InputError) -> None:
        """Reject a document, and leave it out of later passes.

        Args:
            document: the document.
            error: the reason.

        Raises:
            InputError: there are no ``rejects``; this is ``error``.
        """
        self.reject(document, error)
        self._left_out.add(document.place)

    def reject(self, document: Document, error: InputError) -> None:
        """Reject a document, but keep it in later passes, so that the positions of the others do not change.

        Args:
            document: the document.
            error: the reason.

        Raises:
            InputError: there are no ``rejects``; this is ``error``.
        """
        text = document.whole_text or document.text
        record = {"id": document.parent_id or document.id, "title": document.title, "text": text}
        self._note(document.place, error, {**record, **document.fields})

    def _read(self) -> Iterable[Any]:
        """The records; a field with token vectors is in arrays where its source has columns."""
        field = None if self._vectors is None else self._vectors.field
        columnar = field is not None and isinstance(self._records, (Source, ArrowRows))
        return self._records.with_matrices(field) if columnar else self._records  # pyright: ignore

    def _document(self, content: Any, place: str) -> Document:
        if isinstance(content, CellRecord):
            content = _with_texts(content, self._names)
            document = _as_document(content, place, self._names, self._reserved, self._vectors is None)
            return replace(document, fields=self._types.read_cells(document.fields, self._mixed, place))
        document = _as_document(content, place, self._names, self._reserved, self._vectors is None)
        if isinstance(content, TextRecord):
            return replace(document, fields=self._types.read(document.fields, place))
        return replace(document, fields=self._types.read_json(document.fields, place)) if document.fields else document

    def _note(self, place: str, error: InputError, record: Any) -> None:
        if self._rejects is None:
            raise error
        self._rejects.note(place, str(error), record)


def report(progress: Progress, stage: str, done: int, total: int, bytes_read: tuple[int, int]) -> None:
    """Report how far the documents are read: in documents, or in bytes where only their number is known.

    Args:
        progress: gets the report.
        stage: name of the stage; that of bytes has " bytes" behind it.
        done: number of documents that are read.
        total: number of all; 0 if that is not known.
        bytes_read: as `DocumentReader.bytes_read` gives them.
    """
    if total or not bytes_read[1]:
        progress(stage, done, total, 0)
    else:
        progress(f"{stage} bytes", *bytes_read, 0)


def _with_texts(cells: CellRecord, names: FieldNames) -> CellRecord:
    """The row with texts in the fields of id, title and text, which may be numbers or dates."""
    ids = ("_id", "id") if names.id is None else (names.id,)
    texts = {*ids, names.title, *names.texts}
    return CellRecord({name: cell_text(value) if name in texts else value for name, value in cells.items()})


def _as_document(
    record: Any, place: str, names: FieldNames, reserved: Sequence[str], needs_text: bool = True
) -> Document:
    if isinstance(record, BadRecord):
        raise InputError(f"{place}: {record.reason}")
    if isinstance(record, Document):
        names, fields = FieldNames("id"), record.fields
        values: Mapping[str, Any] = {"id": record.id, "title": record.title, "text": record.text}
    elif isinstance(record, Mapping):
        values = {field_name(str(name)): value for name, value in record.items()}
        if len(values) < len(record):
            raise InputError(
                f"{place}: two fields have the same name in different forms (NFC, NFD, spaces at an end); rename one"
            )
        fields = names.columns_of(values)
    else:
        raise InputError(f"{place}: a document must be a mapping of field names to values, not {_kind(record)}")
    is_row = isinstance(record, (TextRecord, CellRecord))
    _check_named(values, names, place, needs_text, OTHER_HEADER if is_row and len(values) == 1 else "")
    doc_id = "" if names.generate_ids else _id(values, names, place)
    owner = f" of {doc_id!r}" if doc_id else ""
    has_text = needs_text or any(values.get(name) is not None for name in names.texts)
    text = _text(values, names, place, owner, may_be_empty=not needs_text) if has_text else ""
    has_title = values.get(names.title) is not None
    title = _text_value(values, names.title, place, owner, may_be_empty=True) if has_title else ""
    if names.generate_ids:
        doc_id = hashlib.blake2b(f"{title}\0{text}".encode(), digest_size=8).hexdigest()
    for name in fields:
        if name in reserved:
            raise InputError(
                f"{place}: the field name {name!r} is taken by the index itself; give its column another name "
                f"(--rename-field {name}=OTHER), or leave it out (--drop-field {name}), in Python names=FieldNames(...)"
            )
        # LanceDB reads a period as a path into a struct, and reserves names that begin with "_row".
        if name in ("", "*") or set(".`\0") & set(name) or name.startswith("_row") or not _is_utf8(name):
            raise InputError(
                f"{place}: a column cannot have the field name {name!r}; give it another (--rename-field, in Python "
                "names=FieldNames(rename=...))"
            )
    return Document(doc_id, text, title, fields, place=place)


def _check_named(values: Mapping[str, Any], names: FieldNames, place: str, needs_text: bool, hint: str) -> None:
    """Name both fields if those of id and text are missing; each alone is named where it is read."""
    if names.generate_ids or not needs_text or names.id_of(values) in values or set(names.texts) & set(values):
        return
    raise InputError(
        f"{place}: neither a field {names.id_of(values)!r} nor a field {names.texts[0]!r} here (fields: "
        f"{', '.join(map(str, values)) or 'none'}); name the fields that hold them: --id-field (or --generate-ids) and "
        f"--text-field, in Python names=FieldNames(id=..., text=...){hint}"
    )


def _id(values: Mapping[str, Any], names: FieldNames, place: str) -> str:
    if names.id is None and "_id" in values and values.get("id", values["_id"]) != values["_id"]:
        raise InputError(
            f"{place}: both _id ({values['_id']!r}) and id ({values['id']!r}) are here; name the field with the id: "
            "--id-field, in Python names=FieldNames(id=...)"
        )
    name = names.id_of(values)
    doc_id = _text_value(values, name, place, part="id", integers=True)
    doc_id = doc_id.removeprefix(BOM) or doc_id  # files that were joined have it there
    if "\0" in doc_id:
        raise InputError(f"{place}: field {name!r} is {doc_id!r}, an id with a null character; correct the id")
    return doc_id


def _text(values: Mapping[str, Any], names: FieldNames, place: str, owner: str, *, may_be_empty: bool) -> str:
    """The text, of one field or joined."""
    if len(names.texts) == 1:
        return _text_value(values, names.texts[0], place, owner, may_be_empty=may_be_empty)
    parts = [
        _text_value(values, name, place, owner, may_be_empty=True)
        for name in names.texts
        if values.get(name) is not None or name not in values
    ]
    text = "\n".join(part for part in parts if part.strip())
    if not text and not may_be_empty:
        raise InputError(
            f"{place}: the fields {', '.join(map(repr, names.texts))}{owner} are empty; fill one or leave the document "
            "out"
        )
    return text


def _text_value(
    values: Mapping[str, Any],
    name: str,
    place: str,
    owner: str = "",
    *,
    part: str = "text",
    integers: bool = False,
    may_be_empty: bool = False,
) -> str:
    if name not in values:
        raise InputError(
            f"{place}: no field {name!r} here (fields: {', '.join(map(str, values)) or 'none'}); add it, or name the "
            f"field that holds the {part}: --{part}-field, in Python names=FieldNames({part}=...)"
        )
    value = values[name]
    if integers and isinstance(value, Integral) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        expected = "a string or an integer" if integers else "a string"
        number = f" ({value!r}); write it without a decimal point or as a string (pandas: astype('Int64'))"
        hint = number if integers and isinstance(value, float) else ""
        raise InputError(f"{place}: field {name!r}{owner} must be {expected}, not {_kind(value)}{hint}")
    if not value.strip() and not may_be_empty:
        raise InputError(f"{place}: field {name!r}{owner} is empty; fill it or leave the document out")
    if "\x1b" in value and is_iso_2022_jp(value.encode("utf-8", "surrogatepass")):
        raise InputError(f"{place}: field {name!r}{owner} was read with another encoding: {NOT_ISO_2022_JP}")
    if not _is_utf8(value):
        raise InputError(f"{place}: field {name!r}{owner} has a lone surrogate (half a character); correct the text")
    return value


def _field_names(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(field_name, names))


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
