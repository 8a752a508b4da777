"""The columns of an index table, and what its schema metadata says.

One row per document, or per passage where long documents are divided:

    id               string, unique
    title, text      string; the title may be empty
    parent_id        string, passage: int32; only in an index of passages
    fulltext         string, title and text in NFKC; only in an index with full text
    (the caller's columns)
    token_count      int32, token vectors of the row
    centroid_ids     binary: token_count little-endian uint16, or uint32 beyond 65,536 centroids
    residuals        binary: token_count · dim · nbits / 8 bytes
    centroid_cosine  float32, mean cosine of the row's token vectors with their centroids
    write_id         int64, one random number for all rows of one write; it changes whenever the codes do

Codes lie in two columns because inverted lists need the centroid ids of all rows, and refining the residuals of few.
`id` is the unenforced primary key by which LanceDB sees that two writers insert the same document. The last column,
`build_…`, holds nothing; its name has the table's build_id: rows of a writer who knows another build do not fit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa

from ...onnx_export.encode.bundle import Bundle
from ..errors import ModelMismatchError, NotAnIndexError
from ..read.documents import PASSAGE_FIELDS, RESERVED_FIELDS
from .fulltext import FULLTEXT_FIELD

FORMAT_VERSION = 2

# Columns that hold codes: of no use to a reader of hits.
CODE_FIELDS = ("token_count", "centroid_ids", "residuals", "centroid_cosine", "write_id")

_FORMAT_KEY = b"tansaku.format"
_HEADER_KEY = b"tansaku.index"


@dataclass(frozen=True)
class IndexHeader:
    """What the table's schema metadata says.

    Attributes:
        model: name of the model the vectors come from.
        fingerprint: `Bundle.fingerprint` of that model.
        codec_id: which row of the codec table decodes the residuals.
        build_id: the write_id of the build that made the table; tables made one after the other differ in it.
        pool: token vectors were pooled by this factor; 1 is none.
        passage_tokens: documents were divided into passages of at most so many tokens; None if not.
        fulltext: there is a column for LanceDB's full text search.
    """

    model: str
    fingerprint: str
    codec_id: str
    build_id: int
    pool: int = 1
    passage_tokens: int | None = None
    fulltext: bool = False

    @property
    def document_id_field(self) -> str:
        """The column with the ids that callers give: of documents, also where rows are passages of them."""
        return "parent_id" if self.passage_tokens else "id"

    def check_model(self, bundle: Bundle, place: str) -> None:
        """Raise ModelMismatchError unless ``bundle`` is the model that the index was made with."""
        if bundle.fingerprint != self.fingerprint:
            raise ModelMismatchError(
                f"{place} was made with the model {self.model!r} ({self.fingerprint}), but the model given is "
                f"{bundle.name!r} ({bundle.fingerprint}); give the index's own model, or index the documents again"
            )


def document_schema(fields: list[pa.Field], header: IndexHeader) -> pa.Schema:
    """Schema of an index table with the caller's ``fields``."""
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


def build_column(header: IndexHeader) -> str:
    """Name of the empty column that tells one build of a table from another."""
    return f"build_{header.build_id:x}"


def read_header(schema: pa.Schema, place: str) -> IndexHeader:
    """What a table's schema says.

    Raises NotAnIndexError if the table was not made by tansaku or has another format version.
    """
    metadata = schema.metadata or {}
    version = metadata.get(_FORMAT_KEY, b"").decode()
    if not version:
        raise NotAnIndexError(f"{place} was not made by tansaku; index its documents into a table of their own")
    if version != str(FORMAT_VERSION):
        raise NotAnIndexError(
            f"{place} has index format {version}, but this tansaku reads format {FORMAT_VERSION}; "
            "index the documents again or use the release that made it"
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
