"""Endpoints for operators and for clients that look around first: probes, metrics, and what is served."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .errors import ErrorMessage, ServiceError
from .service import Service

_LIVE, _READY, _MODELS = ("/health", "/healthz", "/livez"), ("/ready", "/readyz"), ("/v1/models", "/models")
OPEN_PATHS = frozenset({*_LIVE, *_READY})
QUIET_PATHS = frozenset({*OPEN_PATHS, "/metrics"})


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether requests are answered."""

    status: Literal["ready", "loading", "draining", "stuck", "failed"]
    notice: str | None = Field(None, description="What is amiss although requests are answered; absent if nothing is.")


class ModelEntry(BaseModel):
    """A model, as clients of OpenAI's API list it."""

    id: str = Field(description="Name of the model.")
    object: Literal["model"]
    created: int = Field(description="Always 0.")
    owned_by: Literal["tansaku"]


class ModelList(BaseModel):
    """The one model."""

    object: Literal["list"]
    data: list[ModelEntry]


class Info(BaseModel):
    """What is served here."""

    name: Literal["tansaku"]
    version: str = Field(description="Version of tansaku.")
    model_id: str = Field(description="Name of the model.")
    indexes: list[str] = Field(description="Names of the indexes; the first one is the default.")
    writes: bool = Field(description="Whether clients with the token for it may change indexes.")
    max_input_length: int = Field(description="Number of tokens of a text that the model reads.")
    max_client_batch_size: int = Field(description="Largest number of documents in a rerank request.")
    max_concurrent_requests: int = Field(description="Number of requests that are worked on or wait.")
    deadline_seconds: float = Field(description="Time limit of a request.")
    tokens_per_second: float = Field(description="Number of tokens of texts that this machine encodes in a second.")
    tokens_within_deadline: int = Field(description="Number of tokens of the texts of a rerank request; more get 413.")


def router(service: Service) -> APIRouter:
    """The probes, `/metrics`, `/info` and `/v1/models`."""
    routes = APIRouter(tags=["operations"])

    async def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    async def ready() -> Response:
        """Whether requests are answered; 503 while the model is being loaded, while stopping, and with no worker left.

        "stuck" means that work that never ends holds all workers, "failed" that the model or an index could not be
        loaded: only a restart helps. `notice` is set while an index is searched in an earlier version, because its
        latest one has a model that is not known here.
        """
        status = _status(service)
        notice = _notice(service)
        content = {"status": status} if notice is None else {"status": status, "notice": notice}
        return JSONResponse(content, status_code=200 if status == "ready" else 503)

    for path in _LIVE:
        routes.add_api_route(path, health, response_model=Health, summary="Liveness")
    for path in _READY:
        unready: dict[int | str, dict[str, Any]] = {503: {"model": Readiness}}
        routes.add_api_route(path, ready, response_model=Readiness, responses=unready, summary="Readiness")

    @routes.get("/info", response_model=Info, responses={503: {"model": ErrorMessage}}, summary="What is served")
    async def info() -> dict[str, Any]:
        """Version, model, indexes and limits."""
        settings = service.settings
        return {
            "name": "tansaku",
            "version": version("tansaku"),
            "model_id": service.model,
            "indexes": list(service.searchers),
            "writes": settings.write,
            "max_input_length": service.encoder.bundle.document.max_length,
            "max_client_batch_size": settings.max_documents,
            "max_concurrent_requests": settings.slots + settings.queue,
            "deadline_seconds": settings.deadline_seconds,
            "tokens_per_second": round(service.pace.tokens_per_second or 0.0, 1),
            "tokens_within_deadline": service.pace.tokens_in_time or 0,
        }

    def entry() -> dict[str, Any]:
        return {"id": service.model, "object": "model", "created": 0, "owned_by": "tansaku"}

    async def models() -> dict[str, Any]:
        """The one model, as clients of OpenAI's API list models."""
        return {"object": "list", "data": [entry()]}

    async def model(name: Annotated[str, Path(description="Name of the model.")]) -> dict[str, Any]:
        """One model, as clients of OpenAI's API look it up."""
        if name != service.model:
            raise ServiceError(404, f"unknown model; use {service.model}", "model")
        return entry()

    unloaded: dict[int | str, dict[str, Any]] = {503: {"model": ErrorMessage}}
    unknown = {**unloaded, 404: {"model": ErrorMessage}, 422: {"model": ErrorMessage}}
    for path in _MODELS:
        routes.add_api_route(path, models, response_model=ModelList, responses=unloaded, summary="Models")
        routes.add_api_route(f"{path}/{{name}}", model, response_model=ModelEntry, responses=unknown, summary="A model")

    @routes.get("/metrics", response_class=PlainTextResponse, summary="Metrics")
    async def metrics() -> Response:
        """Metrics in the text format of Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def _notice(service: Service) -> str | None:
    """Without names, which this path would show to everybody."""
    if not service.outdated:
        return None
    return "an index has a new model that is not known here; its earlier version is searched, and the log says more"


def _status(service: Service) -> str:
    if service.draining:
        return "draining"
    if not service.ready:
        return "failed" if service.failed else "loading"
    return "stuck" if service.workers.exhausted else "ready"
