"""What the dialects share: the parts of one, bodies, checks, and the way to an answer."""

from __future__ import annotations

import difflib
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator
from pydantic_core import PydanticCustomError, to_json
from starlette.requests import Request
from starlette.responses import Response

from ....onnx_export.counts import counted
from ....onnx_export.encode.encoder import Encoder
from ...rerank.reranker import RerankResult
from ...search.choices import ScoreMode
from ...search.cuts import documents_warning, query_warning
from ...serving.ids import id_text
from ..errors import ErrorShape, ServiceError
from ..phases import entered
from ..service import Service

WARNINGS_HEADER = "X-Tansaku-Warnings"
_MAX_WARNINGS = 10  # in the header

_MAX_UNKNOWN_FIELDS = 20
_MAX_NAME_CHARS = 60  # of an unknown field that is repeated
_ALIKE = 0.8  # from here on a name is taken for a misspelt one; `top_k` and `top_n` are that alike


@dataclass(frozen=True)
class SharedRerank:
    """A dialect's part in the paths that several dialects share, such as `/rerank` and `/v1/rerank`.

    Attributes:
        request: Model of the request.
        response: Type of the answer, for OpenAPI.
        claims: Whether a body is in this dialect.
        answer: Answers a request.
        paths: The shared paths at which clients of this dialect ask.
    """

    request: type[BaseModel]
    response: Any
    claims: Callable[[Mapping[str, Any]], bool]
    answer: Callable[[Service, Any, Request], Awaitable[Response]]
    paths: tuple[str, ...] = ("/rerank",)


@dataclass(frozen=True)
class Dialect:
    """What one family of clients sends and reads.

    Attributes:
        errors: Shape of its errors; the dialect is called by its name.
        router: Makes the endpoints at paths of its own.
        rerank: Its part in the shared paths, if it has one.
        open_paths: Paths that need no token, where clients ask whether the service is up.
    """

    errors: ErrorShape
    router: Callable[[Service], APIRouter] = lambda _: APIRouter()
    rerank: SharedRerank | None = None
    open_paths: frozenset[str] = frozenset()


def checked_text(text: str) -> str:
    """``text``, if it is Unicode: JSON may hold half a surrogate pair, which nothing can store or send back."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "Input should be a valid string: half a surrogate pair") from error
    return text


Text = Annotated[str, AfterValidator(checked_text)]


Id = Annotated[Text, BeforeValidator(id_text, json_schema_input_type=str | int)]
"""Id of a document: a text or an integer, as in the documents of an index."""


class Usage(BaseModel):
    """Number of tokens that the model read."""

    total_tokens: int = Field(description="Tokens of the query and of the texts that were encoded.")
    prompt_tokens: int = Field(description="The same.")
    completion_tokens: int = Field(description="Always 0.")


def usage_of(tokens: int) -> dict[str, int]:
    """The content of a `Usage`."""
    return {"total_tokens": tokens, "prompt_tokens": tokens, "completion_tokens": 0}


class UntilError(FailFast):
    """Ends the validation of a list at its first error: an error for each of many items takes time and memory."""

    def __hash__(self) -> int:  # a part of a union must have one
        return hash(type(self))


class StrictBody(BaseModel):
    """A body in our own dialect: a field that it does not have is an error."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _has_no_other_fields(cls, body: Any) -> Any:
        for name in _unknown(body, cls.model_fields):
            near = difflib.get_close_matches(name, cls.model_fields, n=1, cutoff=0)[0]
            raise _unknown_field(name, near)
        return body


class ClientBody(BaseModel):
    """A body in the dialect of other clients, which may send fields that we do not know.

    One that is nearly the name of a known field is an error; all others are ignored.
    """

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _has_no_misspelt_fields(cls, body: Any) -> Any:
        unknown = _unknown(body, cls.model_fields)
        if len(unknown) > _MAX_UNKNOWN_FIELDS:
            raise PydanticCustomError("unknown_fields", "there are too many unknown fields; leave them out")
        for name in unknown:
            near = difflib.get_close_matches(name, cls.model_fields, n=1, cutoff=_ALIKE)
            if near and near[0] not in body:
                raise _unknown_field(name, near[0])
        return body

    def ignored(self) -> list[str]:
        """Names of the fields that were ignored."""
        return [_shown(name) for name, value in (self.model_extra or {}).items() if value is not None]


async def respond(
    service: Service,
    request: Request,
    task: Callable[[], Any],
    *,
    documents: int,
    warnings: Sequence[str] = (),
) -> Response:
    """Run ``task`` and write its result as JSON, both in a worker.

    Args:
        service: Whose workers do it.
        request: The request that is answered.
        task: Makes the content of the answer.
        documents: Number of documents that the request is about, for the log.
        warnings: A list that ``task`` fills: what was cut, left out or ignored. It is sent in the header
            ``X-Tansaku-Warnings``, since most dialects have no place for it in their bodies.
    """
    request.state.documents = documents
    body = await service.run(lambda: as_json(task()), entered("work"))
    said = [*warnings, *(f"parameter {_shown(name)!r} in the URL was ignored" for name in request.query_params)]
    headers = {WARNINGS_HEADER: _header(said)} if said else {}
    return Response(body, media_type="application/json", headers=headers)


async def rank(
    service: Service,
    body: ClientBody,
    request: Request,
    query: str,
    texts: Sequence[str],
    content: Callable[[RerankResult], dict[str, Any]],
    *,
    score: ScoreMode | None = None,
    k: int | None = None,
) -> Response:
    """Check a query and texts, rank them in a worker, and answer.

    Args:
        service: Whose workers do it.
        body: The request's body, for the warnings.
        request: The request that is answered.
        query: The question or keywords.
        texts: Texts of the documents.
        content: Makes the content of the answer.
        score: Scale of the scores; None is the service's.
        k: Number of documents to return; None returns all.
    """
    check_rerank(service, query, len(texts))
    warnings: list[str] = []

    def task() -> dict[str, Any]:
        result = service.rerank(query, texts, k=k, score=score or service.settings.score)
        warnings.extend(warnings_of(service, body, texts, result, service.encoder))
        return content(result)

    return await respond(service, request, task, documents=len(texts), warnings=warnings)


def _header(warnings: Sequence[str]) -> str:
    """Warnings as a header: a JSON array in ASCII."""
    more = len(warnings) - _MAX_WARNINGS
    return json.dumps([*warnings[:_MAX_WARNINGS], *([f"and {more} more"] if more > 0 else [])])


def warnings_of(
    service: Service,
    body: ClientBody,
    texts: Sequence[str | None],
    result: RerankResult,
    encoder: Encoder,
) -> list[str]:
    """What was ignored, cut or left out of a rerank request."""
    warnings = [*ignored_and_cut(service, body, texts)]
    if result.truncated:
        warnings.append(query_warning(encoder))
    if result.cut:
        warnings.append(documents_warning(encoder, result.cut, result.encoded))
    if result.missing:
        warnings.append(f"left out {counted(len(result.missing), 'document')} that the index does not have")
    return warnings


def warnings_of_embedding(
    service: Service, body: ClientBody, texts: Sequence[str], cut: Sequence[int], *, queries: bool
) -> list[str]:
    """What was ignored and cut of a request for token vectors."""
    warnings = [*ignored_and_cut(service, body, texts)]
    if cut and queries:
        n_cut, limit = len(cut), service.encoder.bundle.query.max_length
        warnings.append(f"{n_cut:,} of {len(texts):,} queries are longer than the {limit} tokens that the model reads")
    elif cut:
        warnings.append(documents_warning(service.encoder, cut, len(texts)))
    return warnings


def ignored_and_cut(service: Service, body: ClientBody, texts: Sequence[str | None]) -> Iterator[str]:
    """Fields that were ignored, and texts that were cut at the limit of characters."""
    yield from (f"unknown field {name!r} was ignored" for name in body.ignored())
    n_cut, limit = service.n_too_long(texts), service.settings.max_text_chars
    if n_cut:
        yield f"cut {counted(n_cut, 'document')} at {limit:,} characters"


def as_json(content: Any) -> bytes:
    """JSON; NaN as null, and dates, bytes and other values of columns as strings."""
    return to_json(content, inf_nan_mode="null", bytes_mode="base64", serialize_unknown=True)


def check_no_parameters(request: Request) -> None:
    """Refuse parameters in the URL, which would be ignored."""
    for name in request.query_params:
        raise ServiceError(422, f"unknown parameter {name[:60]!r} in the URL; put all options into the body", "input")


def check_query_limits(service: Service, query: str) -> None:
    """Refuse a query that is empty or too long."""
    limit = service.settings.max_query_chars
    if not query.strip():
        raise ServiceError(422, "the query is empty; give at least one word", "input")
    if len(query) > limit:
        raise ServiceError(422, f"the query has {len(query):,} characters; at most {limit:,} are allowed", "input")


def check_rerank(service: Service, query: str, n_documents: int) -> None:
    """Refuse a query that is empty or too long, and no or too many documents."""
    limit = service.settings.max_documents
    check_query_limits(service, query)
    if not n_documents:
        raise ServiceError(422, "the list of documents is empty; give at least one", "input")
    if n_documents > limit:
        message = f"there are {n_documents:,} documents; at most {limit:,} are ranked at once"
        raise ServiceError(413, message, "documents")


def check_texts(service: Service, texts: Sequence[str]) -> None:
    """Refuse texts that cannot be encoded: none, too many, or an empty one."""
    limit = service.settings.max_embed_texts
    if not texts:
        raise ServiceError(422, "the list of texts is empty; give at least one", "input")
    if len(texts) > limit:
        raise ServiceError(413, f"there are {len(texts):,} texts; at most {limit:,} are encoded at once", "documents")
    for i, text in enumerate(texts):
        if not text.strip():
            raise ServiceError(422, f"text {i} is empty; leave it out", "input")


def _unknown(body: Any, known: Iterable[str]) -> list[str]:
    return [_shown(name) for name in body if name not in known] if isinstance(body, Mapping) else []


def _shown(name: object) -> str:
    return str(name)[:_MAX_NAME_CHARS].encode("utf-8", "replace").decode()


def _unknown_field(name: str, near: str) -> PydanticCustomError:
    message = "unknown field '{name}'; did you mean '{near}'?"
    return PydanticCustomError("unknown_field", message, {"name": name, "near": near})
