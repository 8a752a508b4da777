"""Routes of whole indexes: what there is, how large it is, and how one is made, put in order and removed."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from ....indexer.info import describe
from ....indexer.table.table import check_table_name
from ..dialects.base import respond
from ..errors import ServiceError
from ..service import Service
from .access import check_may_write
from .answers import ERRORS, answer_of, apart, refusing, served, table_now
from .bodies import (
    CreateRequest,
    DocumentsRequest,
    IndexDescription,
    IndexList,
    JobBody,
    OptimizeRequest,
    RebuildRequest,
)
from .manager import Manager

QUEUED: dict[int | str, dict[str, Any]] = {202: {"model": JobBody, "description": "The job has not ended yet."}}


def router(service: Service, manager: Manager) -> APIRouter:
    """`/indexes` and `/indexes/{index}`."""
    routes = APIRouter(tags=["indexes"], responses=ERRORS)

    def may_write(request: Request) -> None:
        check_may_write(request, service.settings)

    writing = {"dependencies": [Depends(may_write)], "responses": QUEUED, "response_model": JobBody}

    @routes.get("/indexes", response_model=IndexList, summary="List the indexes")
    async def list_indexes(request: Request) -> Response:
        """Names and sizes of the indexes that are served."""

        def task() -> dict[str, Any]:
            return {
                "indexes": [
                    {
                        "name": name,
                        "rows": len(searcher),
                        "version": searcher.version,
                        "model": searcher.encoder.bundle.name,
                    }
                    for name, searcher in list(service.searchers.items())
                ]
            }

        return await respond(service, request, task, documents=0)

    @routes.get("/indexes/{index}", response_model=IndexDescription, summary="Describe an index")
    async def describe_index(index: str, request: Request) -> Response:
        """Columns, counts, bytes, version, drift and model of an index."""
        searcher = served(service, index)

        def task() -> dict[str, Any]:
            with refusing(service):
                info = dataclasses.asdict(describe(table_now(service, index)))
            del info["table"]
            return {"name": index, "searched_version": searcher.version, **info}

        return await respond(service, request, task, documents=0)

    @routes.post("/indexes", summary="Create an index", status_code=201, **writing)
    async def create_index(body: CreateRequest) -> Response:
        """Make an index of documents, which are given here or by an upload."""
        if service.settings.database is None:
            message = "this service has named tables; start it with --db and without --table to create and drop indexes"
            raise ServiceError(409, message, "index")
        with refusing(service):
            check_table_name(body.name)
        if body.name in service.searchers and not body.overwrite:
            raise ServiceError(
                409, f"index {body.name!r} exists already; choose another name, or give overwrite", "index"
            )
        upload, is_given = await upload_of(manager, body)
        given = body.model_dump(mode="json", exclude={"name", "documents", "upload", "wait"})
        job = await apart(manager.put_documents, "create", body.name, given, upload, is_given=is_given)
        return await answer_of(service, job, wait=body.wait, status=201)

    @routes.delete("/indexes/{index}", summary="Drop an index", **writing)
    async def drop_index(index: str, wait: bool = True) -> Response:
        """Remove an index for good, with all its documents."""
        served(service, index)
        if service.settings.database is None:
            message = "this service has named tables; start it with --db and without --table to create and drop indexes"
            raise ServiceError(409, message, "index")
        return await answer_of(service, await apart(manager.put, "drop", index, {}), wait=wait)

    @routes.post("/indexes/{index}/optimize", summary="Optimize an index", **writing)
    async def optimize_index(index: str, body: OptimizeRequest) -> Response:
        """Merge small files, and remove old versions."""
        served(service, index)
        job = await apart(manager.put, "optimize", index, {"keep_seconds": body.keep_seconds})
        return await answer_of(service, job, wait=body.wait)

    @routes.post("/indexes/{index}/rebuild", summary="Rebuild an index", **writing)
    async def rebuild_index(index: str, body: RebuildRequest) -> Response:
        """Train a new codec on the documents, and make all codes again."""
        served(service, index)
        job = await apart(manager.put, "rebuild", index, {"nbits": body.nbits})
        return await answer_of(service, job, wait=body.wait)

    return routes


async def upload_of(manager: Manager, body: CreateRequest | DocumentsRequest) -> tuple[str, bool]:
    """The upload that a request names, or one of the documents in it; and whether it was named."""
    if (body.documents is None) == (body.upload is None):
        raise ServiceError(422, "give either documents or the id of an upload", "input")
    if body.upload is not None:
        return body.upload, True
    if not body.documents:
        raise ServiceError(422, "the list of documents is empty; give at least one", "input")
    return await apart(manager.of_uploads().write_documents, body.documents), False
