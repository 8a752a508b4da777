"""What clients send to manage indexes, and what they get."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ..dialects.base import Id, StrictBody, Text, UntilError
from ..dialects.conditions import Params

Mode = Literal["upsert", "add"]
Records = Annotated[list[dict[str, Any]], UntilError()]
Wait = Annotated[bool, Field(description="Wait for the end of the job; false: the answer is 202 and the job, at once.")]


class NamesBody(StrictBody):
    """Which fields of documents are read; the fields of `tansaku.FieldNames`."""

    id: Text | None = Field(None, description="Name of the field with the id; by default `_id` or `id`.")
    text: Text | list[Text] = Field("text", description="Name of the field with the text, or names of several.")
    title: Text = Field("title", description="Name of the field with the title.")
    generate_ids: bool = Field(False, description="Ids from the titles and texts.")
    keep: list[Text] | None = Field(None, description="Names of the other fields that become columns; by default all.")
    drop: list[Text] = Field([], description="Names of fields that are left out.")
    rename: dict[Text, Text] = Field({}, description="Names of fields, and the names that their columns get.")
    types: dict[Text, Text] = Field({}, description="Names of columns, and their types, such as `integer` or `date`.")


class CreateRequest(StrictBody):
    """A new index; the options are those of `tansaku.Index.create`."""

    name: str = Field(description="Name of the index: letters, digits, `_`, `-` and `.`.", examples=["docs"])
    documents: Records | None = Field(None, description="Documents, with `id`, `text`, and other fields as columns.")
    upload: str | None = Field(None, description="Id of an upload with the documents, in place of them.")
    nbits: Literal[1, 2, 4] = Field(2, description="Bits for each dimension of a residual.")
    pool: int = Field(1, ge=1, le=64, description="Pooling factor of the token vectors; 1 keeps all.")
    passage_tokens: int | None = Field(
        None, ge=1, description="Largest number of tokens of a passage; by default documents are not divided."
    )
    fulltext: bool = Field(False, description="Full text search too, as a source of candidates.")
    names: NamesBody | None = Field(None, description="Names of the fields that are read.")
    overwrite: bool = Field(False, description="Replacement of an index of that name.")
    wait: Wait = True


class DocumentsRequest(StrictBody):
    """Documents to write."""

    documents: Records | None = Field(None, description="Documents, with `id`, `text`, and other fields as columns.")
    upload: str | None = Field(None, description="Id of an upload with the documents, in place of them.")
    mode: Mode = Field("upsert", description="What becomes of an id that the index has: upsert replaces, add refuses.")
    names: NamesBody | None = Field(None, description="Names of the fields that are read.")
    wait: Wait = True


class WhereBody(StrictBody):
    """A condition over the columns."""

    where: Text | None = Field(None, description="Condition over the columns.", examples=["year < $y"])
    params: Params | None = Field(None, description="Values of the condition's parameters.", examples=[{"y": 1900}])


class DeleteRequest(WhereBody):
    """Documents to delete: by their ids, or all that meet a condition."""

    ids: Annotated[list[Id], UntilError()] | None = Field(None, description="Ids of documents or passages.")
    dry_run: bool = Field(False, description="Count of what would be deleted; nothing is deleted.")
    wait: Wait = True


class OptimizeRequest(StrictBody):
    """How the files of an index are put in order."""

    keep_seconds: float = Field(3600, ge=0, le=1e9, description="Age up to which old versions are kept, in seconds.")
    wait: Wait = True


class RebuildRequest(StrictBody):
    """A new codec, and all codes made again."""

    nbits: Literal[1, 2, 4] | None = Field(None, description="Bits for each dimension; by default as they are.")
    wait: Wait = True


class GetRequest(StrictBody):
    """Documents by their ids."""

    ids: Annotated[list[Id], UntilError()] = Field(description="Ids of documents or passages.")
    fields: list[Text] | None = Field(None, description="Names of what is read; by default all.")


class ScrollRequest(WhereBody):
    """A page of the rows of an index, in no particular order."""

    limit: int = Field(100, ge=1, description="Number of rows.")
    cursor: Text | None = Field(None, description="`cursor` of the page before; by default the first page.")
    fields: list[Text] | None = Field(None, description="Names of what is read; by default all.")


class IndexSummary(BaseModel):
    """An index in brief."""

    name: str = Field(description="Name of the index.")
    rows: int = Field(description="Number of rows: documents, or passages.")
    version: int = Field(description="Version that is searched.")
    model: str = Field(description="Name of the model.")


class IndexList(BaseModel):
    """The indexes that are served."""

    indexes: list[IndexSummary] = Field(description="The indexes; the first one is the default.")


class DriftBody(BaseModel):
    """How well the codec fits the rows that came after it was trained."""

    cosine: float | None = Field(description="Mean cosine of later vectors with their centroids; null without any.")
    trained_cosine: float = Field(description="The same at training.")


class IndexDescription(BaseModel):
    """Counts, sizes and settings of an index; those of `tansaku.IndexInfo`."""

    name: str = Field(description="Name of the index.")
    documents: int = Field(description="Number of documents.")
    rows: int = Field(description="Number of rows: documents, or passages.")
    tokens: int = Field(description="Number of token vectors.")
    model: str = Field(description="Name of the model.")
    fingerprint: str = Field(description="Hash of the model's files.")
    dim: int = Field(description="Length of a token vector.")
    nbits: int = Field(description="Bits for each dimension of a residual.")
    centroids: int = Field(description="Number of centroids.")
    pool: int = Field(description="Pooling factor.")
    passage_tokens: int | None = Field(description="Largest number of tokens of a passage; null without passages.")
    version: int = Field(description="Latest version of the table.")
    searched_version: int = Field(description="Version that is searched.")
    versions: int = Field(description="Number of versions that are kept.")
    columns: dict[str, str] = Field(description="Columns, and their Arrow types.")
    bytes_by_part: dict[str, int] = Field(description="Bytes by part.")
    bytes_on_disk: int | None = Field(description="Bytes of all files; null in an object store.")
    derived_bytes: int = Field(description="Bytes of the derived arrays.")
    drift: DriftBody = Field(description="How well the codec fits the later rows.")
    outgrown: bool = Field(description="Whether the index has grown too much for its inverted lists.")
    advice: str = Field(description="Whether a rebuild would help.")


class Reject(BaseModel):
    """A document that was left out."""

    line: int | None = Field(description="Its line in the upload, or its number in the list, from 1.")
    reason: str = Field(description="Why it cannot be indexed.")


class JobBody(BaseModel):
    """One change of an index."""

    id: str = Field(description="Id of the job.")
    kind: str = Field(description="What it does.")
    index: str = Field(description="Name of the index.")
    state: Literal["queued", "running", "done", "failed", "cancelled"] = Field(description="How far it is.")
    created: float = Field(description="Seconds since 1970 when it was queued.")
    started: float | None = Field(description="Seconds since 1970 when it began; null before.")
    ended: float | None = Field(description="Seconds since 1970 when it ended; null before.")
    stage: str = Field(description="Stage of the work.")
    done: int = Field(description="Number of items of the stage that are done.")
    total: int = Field(description="Number of items of the stage; 0 if it is not known.")
    result: dict[str, Any] | None = Field(description="Counts of what was written, once it is done.")
    status: int | None = Field(description="HTTP status of its error; null without one.")
    error: str | None = Field(description="Why it failed, and the remedy.")
    rejected: int = Field(description="Number of documents that were left out.")
    rejects: list[Reject] = Field(description="The first hundred of these.")
    upload: str | None = Field(description="Id of the upload that its documents came in; null for other jobs.")


class JobList(BaseModel):
    """Jobs, the latest first."""

    jobs: list[JobBody] = Field(description="The jobs.")


class Count(BaseModel):
    """How many rows there are."""

    rows: int = Field(description="Number of rows: documents, or passages.")
    documents: int = Field(description="Number of documents.")
    version: int = Field(description="Version of the table.")


class StoredDocuments(BaseModel):
    """Documents by their ids."""

    documents: list[dict[str, Any] | None] = Field(description="In the order of the ids; null for one that is missing.")
    missing: list[str] = Field(description="Ids that the index does not have.")
    version: int = Field(description="Version of the table.")


class Page(BaseModel):
    """A page of rows."""

    documents: list[dict[str, Any]] = Field(description="The rows, each as it was given.")
    cursor: str | None = Field(description="What the next request gives for the next page; null on the last one.")
    version: int = Field(description="Version of the table; the same on all pages.")


class UploadBody(BaseModel):
    """An upload."""

    id: str = Field(description="Id of the upload.")
    received: int = Field(description="Number of bytes that have come and are on the disk.")
