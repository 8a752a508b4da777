"""Endpoints for operators: health, readiness and metrics."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .service import Service

OPEN_PATHS = frozenset({"/health", "/ready"})


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether requests are answered."""

    status: Literal["ready", "loading", "draining", "stuck", "failed"]


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
        loaded: only a restart helps.
        """
        status = _status(service)
        return JSONResponse({"status": status}, status_code=200 if status == "ready" else 503)

    @routes.get("/metrics", response_class=PlainTextResponse, summary="Metrics")
    async def metrics() -> Response:
        """Metrics in the text format of Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def _status(service: Service) -> str:
    if service.draining:
        return "draining"
    if not service.ready:
        return "failed" if service.failed else "loading"
    return "stuck" if service.workers.exhausted else "ready"
