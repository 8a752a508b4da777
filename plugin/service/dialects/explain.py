"""Our own dialect: why a document scores as it does."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ....onnx_export.encode.bundle import MAX_WEIGHT
from ...search.cuts import query_warning
from ...search.explain import Explanation
from ..errors import OURS
from ..service import Service
from .base import Dialect, Id, StrictBody, Text, check_no_parameters, check_query_limits, respond

_DIGITS = 4  # of a similarity in the matrix


class ExplainRequest(StrictBody):
    """A query and a document of an index."""

    query: Text = Field(description="The question or keywords.", examples=["金閣寺"])
    id: Id = Field(description="Id of the document, of which the best passage is explained, or of a passage.")
    index: str | None = Field(None, description="Name of an index; by default the first one.")
    phrase_weight: float | None = Field(
        None,
        ge=0,
        le=MAX_WEIGHT,
        allow_inf_nan=False,
        description="Weight given to the similarity of neighbouring tokens; by default the service's.",
    )
    matrix: bool = Field(
        False, description="Similarities of every query token with every document token in the answer."
    )


class MatchEntry(BaseModel):
    """One query token and the most similar document token."""

    similarity: float = Field(description="Cosine of the two vectors; with a phrase weight, that of neighbours too.")
    weight: float = Field(description="Weight of the query token; the score is the sum of weight times similarity.")
    query_span: tuple[int, int] | None = Field(description="Characters of the query; null for no text.")
    query_text: str = Field(description="That part of the query.")
    document_span: tuple[int, int] | None = Field(description="Characters of `text`; null if they are not known.")
    document_text: str = Field(description="That part of the document.")


class ExplainResponse(BaseModel):
    """How the score of one document comes about."""

    index: str = Field(description="Name of the index.")
    id: str = Field(description="Id of the document.")
    score: float = Field(description="MaxSim: the sum of weight times similarity.")
    text: str = Field(description="Text that the model read: title and text.")
    matches: list[MatchEntry] = Field(description="One for each query token, in the query's order.")
    truncated: bool = Field(description="Whether the query was longer than the model reads; its end was ignored.")
    cut: bool = Field(description="Whether the text is longer than the model reads; its end was ignored.")
    document_spans: list[tuple[int, int] | None] | None = Field(
        description="Characters of each document token; null unless `matrix` was asked for."
    )
    similarities: list[list[float]] | None = Field(
        description="A row for each query token, a number for each document token; null unless `matrix` was asked for."
    )


def router(service: Service) -> APIRouter:
    """`/explain`."""
    routes = APIRouter(tags=["search"], responses=OURS.documented())

    @routes.post("/explain", response_model=ExplainResponse, summary="Explain a score")
    async def explain(body: ExplainRequest, request: Request) -> Response:
        """Say which tokens of a document the tokens of a query met, and what each adds to the score."""
        check_no_parameters(request)
        check_query_limits(service, body.query)
        service.searcher(body.index)
        weight = service.settings.phrase_weight if body.phrase_weight is None else body.phrase_weight
        warnings: list[str] = []

        def task() -> dict[str, Any]:
            name, explanation = service.explain(body.index, body.query, body.id, phrase_weight=weight)
            if explanation.truncated:
                warnings.append(query_warning(service.searchers[name].encoder))
            return {"index": name, **_content(explanation, matrix=body.matrix)}

        return await respond(service, request, task, documents=1, warnings=warnings)

    return routes


def _content(explanation: Explanation, *, matrix: bool) -> dict[str, Any]:
    return {
        "id": explanation.id,
        "score": explanation.score,
        "text": explanation.text,
        "matches": [vars(match) for match in explanation.matches],
        "truncated": explanation.truncated,
        "cut": explanation.cut,
        "document_spans": explanation.document_spans if matrix else None,
        "similarities": explanation.similarities.astype(float).round(_DIGITS).tolist() if matrix else None,
    }


DIALECT = Dialect(OURS, router)
