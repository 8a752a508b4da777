"""The API of Jina for multi-vector embeddings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from ..errors import ErrorDetail, ErrorShape, ServiceError, detail_body
from ..service import Service
from .base import ClientBody, Dialect, Text, UntilError, check_texts, respond, warnings_of_embedding

_ERRORS = ErrorShape("jina", ErrorDetail, detail_body)


class TextInput(BaseModel):
    """A text."""

    model_config = ConfigDict(extra="forbid")  # an image beside the text would be ignored

    text: Text


class MultiVectorRequest(ClientBody):
    """Texts to be encoded."""

    input: Annotated[list[Text | TextInput], UntilError()] | Text = Field(
        description="The texts, or one text.", examples=[["金閣寺は京都市北区にある。"]]
    )
    model: str | None = Field(None, description="Name of a model; not used, as there is only one.")
    input_type: Literal["document", "query"] = Field("document", description="Kind of the texts.")
    embedding_type: Literal["float"] = Field("float", description="Number format of the vectors.")
    dimensions: int | None = Field(None, description="Number of dimensions; must be the model's.")


class MultiVector(BaseModel):
    """Token vectors of one text."""

    object: str
    index: int = Field(description="Place of the text in the request, from 0.")
    embeddings: list[list[float]] = Field(
        description="The vectors, (tokens, dim). Those of documents have unit length, those of queries the length of "
        "their tokens' weights."
    )


class MultiVectorUsage(BaseModel):
    """Number of token vectors in the answer."""

    total_tokens: int
    prompt_tokens: int


class MultiVectorResponse(BaseModel):
    """Token vectors of each text, in the order of the texts."""

    object: str
    model: str = Field(description="Name of the model.")
    data: list[MultiVector] = Field(description="The token vectors of each text.")
    usage: MultiVectorUsage


def router(service: Service) -> APIRouter:
    """`/v1/multi-vector`."""
    routes = APIRouter(tags=["embedding"], responses=_ERRORS.documented())

    @routes.post("/v1/multi-vector", response_model=MultiVectorResponse, summary="Encode texts (Jina)")
    async def multi_vector(body: MultiVectorRequest, request: Request) -> Response:
        """Encode queries or documents as token vectors. The API of Jina."""
        inputs = [body.input] if isinstance(body.input, str) else body.input
        texts = [text if isinstance(text, str) else text.text for text in inputs]
        check_texts(service, texts)
        dim = service.encoder.dim
        if body.dimensions not in (None, dim):
            raise ServiceError(422, f"the model's vectors have {dim} dimensions; leave dimensions out", "input")

        queries, warnings = body.input_type == "query", []

        def task() -> dict[str, Any]:
            vectors, cut = service.embed(texts, queries=queries)
            warnings.extend(warnings_of_embedding(service, body, texts, cut, queries=queries))
            n_tokens = sum(map(len, vectors))
            return {
                "object": "list",
                "model": service.model,
                "data": [
                    {"object": "embeddings", "index": i, "embeddings": matrix.tolist()}
                    for i, matrix in enumerate(vectors)
                ],
                "usage": {"total_tokens": n_tokens, "prompt_tokens": n_tokens},
            }

        return await respond(service, request, task, documents=len(texts), warnings=warnings)

    return routes


DIALECT = Dialect(_ERRORS, router)
