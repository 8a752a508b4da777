"""Endpoints for operators: health, readiness and metrics."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .service import Service

OPEN_PATHS = frozenset({"/health", "/ready"})


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether requests are answered."""

    status: Literal["ready", "loading", "draining", "stuck", "failed"]
    notice: str | None = Field(None, description="What is amiss although requests are answered; absent if nothing is.")


def router(service: Service) -> APIRouter:
    """`/health`, `/ready` and `/metrics`."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/health", response_model=Health, summary="Liveness")
    async def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @routes.get("/ready", response_model=Readiness, responses={503: {"model": Readiness}}, summary="Readiness")
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
