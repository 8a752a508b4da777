"""The columns of an index table, and its schema metadata.

There is one row for each document or, in an index of passages, for each passage:

    id               string, unique
    title, text      string; the title may be empty
    parent_id        string, passage: int32; only in an index of passages
    fulltext         string, title and text in NFKC; only in an index with full text
    (the caller's columns)
    token_count      int32, token vectors of the row
    centroid_ids     binary: token_count little-endian uint16, or uint32 with more than 65,536 centroids
    residuals        binary: token_count · dim · nbits / 8 bytes
    centroid_cosine  float32, mean cosine of the row's token vectors with their centroids
    write_id         int64, one random number for all rows of one write; it changes whenever the codes do

Codes are in two columns: inverted lists need the centroid ids of all rows, but exact scoring needs the residuals of few
rows. `id` is the unenforced primary key by which LanceDB notices that two writers insert the same row. The last
column, `build_…`, is empty. Its name has the table's build_id, so that rows of a writer who opened another build do not
fit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa

from ...onnx_export.encode.bundle import Bundle
from ..errors import ModelMismatchError, NotAnIndexError, StorageError
from ..read.documents import PASSAGE_FIELDS, RESERVED_FIELDS
from .fulltext import FULLTEXT_FIELD

FORMAT_VERSION = 2

# Columns of codes, which hits do not show.
CODE_FIELDS = ("token_count", "centroid_ids", "residuals", "centroid_cosine", "write_id")

_FORMAT_KEY = b"tansaku.format"
_HEADER_KEY = b"tansaku.index"


@dataclass(frozen=True)
class IndexHeader:
    """The settings of an index, stored in the schema metadata of its table.

    Attributes:
        model: name of the model that made the vectors.
        fingerprint: `Bundle.fingerprint` of that model.
        codec_id: id of the codec that decodes the residuals.
        build_id: the write_id of the build that made the table; it differs in each build.
        pool: pooling factor of the token vectors; 1 means no pooling.
        passage_tokens: largest number of tokens of a passage; None if documents are not divided into passages.
        fulltext: whether there is a column for LanceDB's full text search.
    """

    model: str
    fingerprint: str
    codec_id: str
    build_id: int
    pool: int = 1
    passage_tokens: int | None = None
    fulltext: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a value that no index has."""
        numbers = (self.build_id, self.pool, *([] if self.passage_tokens is None else [self.passage_tokens]))
        texts = (self.model, self.fingerprint, self.codec_id)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.fulltext, bool):
            raise ValueError("a setting has a value of another type")
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            raise ValueError("a setting is not an integer")
        if min(numbers[1:]) < 1:
            raise ValueError("a setting is below 1")

    @property
    def document_id_field(self) -> str:
        """The column with the ids of documents, which differ from those of rows in an index of passages."""
        return "parent_id" if self.passage_tokens else "id"

    def check_model(self, bundle: Bundle, place: str, *, given: bool = True) -> None:
        """Check that a model is the one that the index was made with.

        Args:
            bundle: the model.
            place: what the message calls the index.
            given: whether the caller named the model; false: it was looked for, and ``bundle`` is the one inside.

        Raises:
            ModelMismatchError: it is another model.
        """
        if not bundle.made(self.fingerprint):
            found = "the model given is" if given else "that was not found: the model inside tansaku is"
            raise ModelMismatchError(
                f"{place} was made with the model {self.model!r} ({self.fingerprint}), but {found} "
                f"{bundle.name!r} ({bundle.fingerprint}); give the model of the index (--model, or a folder in "
                "TANSAKU_MODELS), or encode the index again with this model: tansaku rebuild --change-model"
            )


def document_schema(fields: list[pa.Field], header: IndexHeader) -> pa.Schema:
    """Make the schema of an index table.

    Args:
        fields: the caller's columns.
        header: the settings of the index.

    Returns:
        The schema, with the header in its metadata.
    """
    passages = [pa.field("parent_id", pa.string(), nullable=False), pa.field("passage", pa.int32(), nullable=False)]
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"}),
            pa.field("title", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            *(passages if header.passage_tokens else []),
            *([pa.field(FULLTEXT_FIELD, pa.string(), nullable=False)] if header.fulltext else []),
            *fields,
            pa.field("token_count", pa.int32(), nullable=False),
            pa.field("centroid_ids", pa.large_binary(), nullable=False),
            pa.field("residuals", pa.large_binary(), nullable=False),
            pa.field("centroid_cosine", pa.float32(), nullable=False),
            pa.field("write_id", pa.int64(), nullable=False),
            pa.field(build_column(header), pa.null()),
        ],
        metadata={_FORMAT_KEY: str(FORMAT_VERSION), _HEADER_KEY: json.dumps(header.__dict__)},
    )


def check_columns(schema: pa.Schema, header: IndexHeader, place: str) -> None:
    """Check that the columns of ours have the types that they are written with. `read_header` finds those missing.

    Args:
        schema: the table's schema.
        header: the settings of the index.
        place: what the message calls the table.

    Raises:
        StorageError: a column has another type.
    """
    for field in document_schema([], header):
        if pa.types.is_null(field.type):  # the column that marks the build: nothing reads its values
            continue
        found = schema.field(field.name).type
        if found not in (field.type, _SHORT.get(field.type)):
            raise StorageError(
                f"{place}: column {field.name!r} has the type {found}, not {field.type}; the table is damaged, restore "
                "it from a copy or create it again"
            )


_SHORT = {pa.large_binary(): pa.binary()}  # the same values


def internal_fields(header: IndexHeader) -> set[str]:
    """The columns in which tansaku keeps codes, the mark of the build, and the text for full text search."""
    return {*CODE_FIELDS, build_column(header), *([FULLTEXT_FIELD] if header.fulltext else [])}


def build_column(header: IndexHeader) -> str:
    """The name of the empty column that marks the build of a table."""
    return f"build_{header.build_id:x}"


def is_made_by_tansaku(schema: pa.Schema) -> bool:
    """Whether a table is an index, of whichever format version, or was one before its header was damaged."""
    return _FORMAT_KEY in (schema.metadata or {})


def read_header(schema: pa.Schema, place: str) -> IndexHeader:
    """Read the settings of an index from the schema of its table.

    Args:
        schema: the table's schema.
        place: what the message calls the table.

    Returns:
        The settings.

    Raises:
        NotAnIndexError: the table was not made by tansaku, has another format version, or is damaged.
    """
    metadata = schema.metadata or {}
    version = metadata.get(_FORMAT_KEY, b"").decode()
    if not version:
        raise NotAnIndexError(f"{place} was not made by tansaku; index its documents into a new table")
    if version != str(FORMAT_VERSION):
        raise NotAnIndexError(
            f"{place} has index format {version}, but this tansaku reads format {FORMAT_VERSION}; "
            "index the documents again (tansaku index FILES --mode overwrite) or use the release that made it"
        )
    try:
        header = IndexHeader(**json.loads(metadata[_HEADER_KEY]))
    except (KeyError, ValueError, TypeError) as error:
        raise NotAnIndexError(f"{place}: its schema metadata is damaged ({error}); index the documents again") from None
    missing = [name for name in document_schema([], header).names if name not in schema.names]
    if missing:
        raise NotAnIndexError(f"{place} lacks the columns {', '.join(missing)}; index the documents again")
    return header


def user_fields(schema: pa.Schema, header: IndexHeader) -> list[pa.Field]:
    """The caller's columns of an index table."""
    ours = reserved_fields(header)
    return [field for field in schema if field.name not in (*ours, build_column(header))]


def reserved_fields(header: IndexHeader) -> tuple[str, ...]:
    """Names of columns that tansaku fills itself."""
    passages = PASSAGE_FIELDS if header.passage_tokens else ()
    return (*RESERVED_FIELDS, *passages, *((FULLTEXT_FIELD,) if header.fulltext else ()))
