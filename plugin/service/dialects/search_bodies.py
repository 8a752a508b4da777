"""What a search over HTTP is asked, and what it answers: the same for one query and for many."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from ....onnx_export.encode.bundle import MAX_WEIGHT
from ...search.choices import LEAST_RECALL, RecallName, ScoreMode, SourceName
from ...search.snippets import SNIPPET_CHARS
from .base import Id, StrictBody, Text, UntilError
from .conditions import Params

MAX_PASSAGES = 20  # of each document
_MAX_SNIPPET = 10_000


class SearchBody(StrictBody):
    """What one search and many have in common; the options of `tansaku.SearchOptions`, and some of this service."""

    index: str | None = Field(None, description="Name of an index; by default the first one.")
    k: int = Field(10, ge=1, description="Number of hits.")
    recall: RecallName | Annotated[float, Field(ge=LEAST_RECALL, le=1, strict=True)] = Field(
        "balanced",
        description="Thoroughness: exact scores every document; balanced and fast only the likely ones. Or a number: "
        "share of the ten best that is expected among the hits.",
    )
    where: Text | None = Field(
        None,
        description="Condition over the columns; only documents that meet it are found.",
        examples=["year < 1500"],
    )
    params: Params | None = Field(
        None,
        description="Values of the condition's parameters: by name for `$name`, or a list for `?`. No value becomes a "
        "part of the condition's text.",
        examples=[{"year": 1500}],
    )
    ids: Annotated[list[Id], UntilError()] | None = Field(
        None, description="Ids of documents or passages to search among."
    )
    passages: bool = Field(
        False,
        description="Hits for single passages, if documents are divided into them; by default one for each document.",
    )
    source: SourceName = Field(
        "lists", description="Source of candidates: inverted lists, full text search (text), or both (fused)."
    )
    bm25_weight: float = Field(
        0.0,
        ge=0,
        le=MAX_WEIGHT,
        allow_inf_nan=False,
        description="Weight of BM25 added to MaxSim (0 = none); needs the source text or fused.",
    )
    phrase_weight: float | None = Field(
        None,
        ge=0,
        le=MAX_WEIGHT,
        allow_inf_nan=False,
        description="Weight given to the similarity of neighbouring tokens (0 = plain MaxSim); by default the "
        "service's.",
    )
    nprobe: int | None = Field(
        None, ge=1, description="Number of centroids probed for each query token; by default set by recall."
    )
    candidates: int | None = Field(
        None, ge=1, description="Number of candidates scored by their codes; by default set by recall."
    )
    fields: list[Text] | None = Field(
        None,
        max_length=1_000,
        description="Names of what is read of each hit: `title`, `text` and columns; by default all. An empty list "
        "reads nothing: ids and scores alone.",
        examples=[["title", "year"]],
    )
    score: ScoreMode | None = Field(None, description="Scale of the scores; by default the service's.")
    partial: bool = Field(
        False,
        description="Hits of the other shards if some do not answer, named in `lost`; by default that gets 503.",
    )
    min_score: float | None = Field(
        None, allow_inf_nan=False, description="Least score of a hit, on that scale; hits below are left out."
    )


class SearchRequest(SearchBody):
    """A search."""

    query: Text = Field(description="The question or keywords.", examples=["金閣寺"])
    offset: int = Field(0, ge=0, description="Number of the best hits that are left out, for a further page.")
    per_document: int | None = Field(
        None,
        ge=1,
        le=MAX_PASSAGES,
        description="Number of the best passages in each hit, in an index of passages; by default only the text of the "
        "best one.",
    )
    highlight: bool = Field(False, description="Part of each hit that matches most of the query, with marks.")
    highlight_chars: int = Field(
        SNIPPET_CHARS, ge=1, le=_MAX_SNIPPET, description="Largest number of characters of that part."
    )


class SearchManyRequest(SearchBody):
    """The same search for many queries."""

    queries: Annotated[list[Text], UntilError()] = Field(
        min_length=1, description="Questions or keywords.", examples=[["金閣寺", "東大寺"]]
    )


class Highlight(BaseModel):
    """The part of a document that matches most of a query."""

    text: str = Field(description="That part, as it stands in the text of the hit.")
    start: int = Field(description="Where it begins there, in characters.")
    marks: list[tuple[int, int]] = Field(description="What matches in it: start and end, in characters of the part.")


class PassageHit(BaseModel):
    """A passage of a document found."""

    id: str = Field(description="Id of the passage.")
    score: float = Field(description="How well the passage fits the query.")
    passage: int = Field(description="Its number in the document, from 0.")
    text: str = Field(description="Its text.")


class SearchHit(BaseModel):
    """One document found."""

    id: str = Field(description="Id of the document; of the passage, if passages were asked for.")
    score: float = Field(description="How well the document fits the query.")
    title: str = Field(description="Title of the document; empty if it has none, or was not asked for.")
    text: str = Field(description="Text of the document; empty if it was not asked for.")
    fields: dict[str, Any] = Field(description="The other columns of the document, or those asked for.")
    highlight: Highlight | None = Field(None, description="What matches; absent unless it was asked for.")
    passages: list[PassageHit] | None = Field(
        None, description="The best passages of the document, best first; absent unless they were asked for."
    )


class FoundHits(BaseModel):
    """The hits of a query, best first."""

    hits: list[SearchHit] = Field(description="The documents found, best first.")
    missing: list[str] = Field(description="Ids in the request that the index does not have.")
    scored: int = Field(description="Number of documents that were scored by their codes.")
    recall: float | None = Field(
        description="Expected share of the best documents that is among the hits; null if it was not measured."
    )
    version: int = Field(description="Version of the table that was searched.")
    query_tokens: int = Field(description="Number of vectors of the query; a score on the scale mean is divided by it.")
    stages_ms: dict[str, float] = Field(description="Milliseconds of each stage of the search.")
    truncated: bool = Field(description="Whether the query was longer than the model reads; its end was ignored.")
    lost: list[int] = Field(
        description="Numbers of the shards that did not answer, whose documents are not among the hits; else empty."
    )


class SearchResponse(FoundHits):
    """The hits, best first."""

    index: str = Field(description="Name of the index that was searched.")
    warnings: list[str] = Field(description="What was ignored.")


class SearchManyResponse(BaseModel):
    """The hits of each query."""

    index: str = Field(description="Name of the index that was searched.")
    results: list[FoundHits] = Field(description="In the order of the queries.")
    warnings: list[str] = Field(description="What was ignored.")
