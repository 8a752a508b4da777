"""The ASGI application behind `tansaku serve`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError, MissingExtraError
from ..search.searcher import Searcher

try:  # before the modules of this room, which import them too
    import prometheus_client  # noqa: F401
    import structlog  # noqa: F401
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from fastapi.routing import APIRoute
    from starlette.exceptions import HTTPException
    from starlette.middleware.cors import CORSMiddleware
except ImportError as _error:
    raise MissingExtraError(_error.name or "fastapi", "serve") from _error

from . import cors, health
from .admission import Admission
from .dialects import cohere, explain, infinity, jina, mixedbread, nim, ours, rerank, tei, vllm, voyage, weaviate
from .errors import (
    OURS,
    ErrorShape,
    ServiceError,
    on_http_exception,
    on_input_error,
    on_service_error,
    on_validation_error,
)
from .loading import Loading
from .manage import documents, indexes, job_routes
from .manage.manager import Manager
from .observability import Observe, json_lines
from .operations import first_id, name_operations
from .page import routes as page
from .service import Service
from .settings import Settings

# A dialect is a file and a name here. Of those that share a path, the first that claims a request gets it, so Cohere's,
# which claims all, comes last.
DIALECTS = (
    ours.DIALECT,
    explain.DIALECT,
    jina.DIALECT,
    mixedbread.DIALECT,
    nim.DIALECT,
    vllm.DIALECT,
    weaviate.DIALECT,
    tei.DIALECT,
    infinity.DIALECT,
    voyage.DIALECT,
    cohere.DIALECT,
)
SHARED_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank", "/v1/reranking", "/reranking")


def create_app(
    settings: Settings | None = None,
    *,
    encoder: Encoder | None = None,
    searchers: Mapping[str, Searcher] | None = None,
    log: Any = None,
    on_failure: Callable[[Exception], None] | None = None,
) -> FastAPI:
    """Make the service as an ASGI application.

    The model and the indexes are loaded in the background after startup; until then ``/ready`` answers 503. In an
    application that is mounted in another one, the first request starts that, and waits for it if it needs the model:
    frameworks do not run the lifespan of a mounted application. The `Service` behind the endpoints is
    ``app.state.service``.

    Args:
        settings: Settings of the service; None takes the defaults, which serve no index.
        encoder: The model; None takes the searchers', or loads the one of the settings.
        searchers: Name → searcher of each index; None opens those of the settings. The service refreshes them.
        log: A structlog logger; None writes lines of JSON to standard error.
        on_failure: Called with the error if the model or an index cannot be loaded.

    Returns:
        The application, to be served by an ASGI server or mounted in another application.

    Raises:
        MissingExtraError: The extra ``serve`` is not installed.

    Example:
        >>> from tansaku import Settings, create_app
        >>> app = create_app(Settings(max_documents=200))
        >>> app.title
        'tansaku'
    """
    settings = settings or Settings()
    log = log or json_lines()
    service = Service(settings, encoder=encoder, searchers=searchers)

    manager = Manager(service, log)
    loading = Loading(service, manager, log, on_failure)

    app = _App(
        title="tansaku",
        summary="Japanese late-interaction search and reranking.",
        lifespan=lambda _: loading.lifespan(),
        generate_unique_id_function=first_id,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    shapes: dict[str, ErrorShape] = {"/openapi.json": OURS}
    app.state.open_paths = open_paths = health.OPEN_PATHS.union(
        page.OPEN_PATHS, *(dialect.open_paths for dialect in DIALECTS)
    )
    for dialect in (*(rerank.shared(DIALECTS, path) for path in SHARED_PATHS), *DIALECTS):
        router = dialect.router(service)
        app.include_router(router)
        shapes |= {route.path: dialect.errors for route in router.routes if isinstance(route, APIRoute)}
    app.include_router(page.router())
    managing = (part.router(service, manager) for part in (indexes, documents, job_routes))
    for router in (health.router(service), *managing):
        app.include_router(router)
        shapes |= {route.path: OURS for route in router.routes if isinstance(route, APIRoute)}
    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(InputError, on_input_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_middleware(Admission, service=service, loading=loading, open_paths=open_paths)
    if settings.cors_origins:  # within `Observe`, outside `Admission`: a browser asks beforehand without the token
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **cors.HEADERS)
    app.add_middleware(
        Observe, metrics=service.metrics, log=log, shapes=shapes, quiet=health.QUIET_PATHS, log_text=settings.log_text
    )
    return app


class _App(FastAPI):
    """FastAPI's application, whose description has the token that all paths but the probes may require."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = super().openapi()
            name_operations(schema["paths"])
            schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            required = [{"token": []}] if self.state.service.settings.token is not None else [{"token": []}, {}]
            for path, operations in schema["paths"].items():
                if path not in self.state.open_paths:
                    for operation in operations.values():
                        operation["security"] = required
        return self.openapi_schema or {}
