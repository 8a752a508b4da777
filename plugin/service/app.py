"""The ASGI application behind `tansaku serve`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError, MissingExtraError
from ..search.searcher import Searcher

try:
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
except ImportError as _error:
    raise MissingExtraError("fastapi", "serve") from _error

from . import health
from .core import Service
from .dialects import jina as multi_vector
from .dialects import ours as search
from .dialects import rerank, tei, weaviate
from .errors import ServiceError, error_response, on_http_exception, on_input_error, on_service_error, problems
from .gate import Gate
from .observability import Observe, json_lines
from .settings import Settings


def create_app(
    settings: Settings | None = None,
    *,
    encoder: Encoder | None = None,
    searchers: Mapping[str, Searcher] | None = None,
    log: Any = None,
    on_failure: Callable[[Exception], None] | None = None,
) -> FastAPI:
    """The service as an ASGI application; ``app.state.service`` is what it asks.

    Everything is loaded in the background after startup; until then ``/ready`` is 503.

    Args:
        settings: of the service.
        encoder: the model; None takes the searchers', or loads the settings'.
        searchers: name → searcher of each index; None opens the settings'. They are refreshed as time passes.
        log: a structlog logger; None writes lines of JSON to standard error.
        on_failure: called with what went wrong if something cannot be loaded.
    """
    settings = settings or Settings()
    log = log or json_lines()
    service = Service(settings, encoder=encoder, searchers=searchers)

    async def background() -> None:
        try:
            await asyncio.to_thread(service.load)
        except Exception as error:
            log.error("not loaded", error=type(error).__name__, message=str(error))
            if on_failure:
                on_failure(error)
            return
        log.info("ready", model=service.model, indexes=list(service.searchers))
        while settings.refresh_seconds and service.searchers:
            await asyncio.sleep(settings.refresh_seconds)
            for name in service.searchers:
                await _refresh(service, name, log)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(background())
        yield
        service.draining = True
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        service.workers.close()

    app = FastAPI(
        title="tansaku",
        summary="Japanese late-interaction search and reranking.",
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    for part in (rerank, search, tei, multi_vector, weaviate, health):
        app.include_router(part.router(service))
    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(InputError, on_input_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_middleware(Gate, service=service)
    routes = {*app.openapi()["paths"], "/openapi.json"}
    app.add_middleware(Observe, metrics=service.metrics, log=log, routes=routes, log_text=settings.log_text)
    return app


async def _refresh(service: Service, name: str, log: Any) -> None:
    try:
        later = await asyncio.to_thread(service.refresh, name)
    except Exception as error:  # the search goes on with what it has
        log.warning("not refreshed", index=name, error=type(error).__name__, message=str(error))
        service.metrics.refreshed(name, "failed")
        return
    service.metrics.refreshed(name, "later" if later else "same")
    if later:
        log.info("refreshed", index=name, version=service.searchers[name].version)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    status, message = problems(error.errors())
    return error_response(request.scope, status, message, reason="input", body=error.body)
