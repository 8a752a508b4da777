"""Routes of jobs and of uploads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..dialects.base import as_json
from ..errors import ServiceError
from ..service import Service
from .access import check_may_write
from .answers import ERRORS, apart
from .bodies import JobBody, JobList, UploadBody
from .documents import receive_into
from .jobs import ENDED, Job, Jobs
from .manager import Manager

_LOOK_SECONDS = 0.25  # between two looks at a job
_ALIVE_SECONDS = 15.0  # after which a comment shows that the connection is there
_MOST_FOLLOWERS = 64
_LISTED = 100


def router(service: Service, manager: Manager) -> APIRouter:
    """`/jobs` and `/uploads`."""
    routes = APIRouter(tags=["jobs"], responses=ERRORS)
    followers = 0

    def may_write(request: Request) -> None:
        check_may_write(request, service.settings)

    writing = [Depends(may_write)]

    def jobs() -> Jobs:
        if not service.settings.write:
            raise ServiceError(404, "this service only reads, and has no jobs; start it with --write", "job")
        return manager.of_writing()[0]

    @routes.get("/jobs", response_model=JobList, summary="List the jobs")
    async def list_jobs(index: str | None = None) -> Response:
        """The latest hundred jobs, or those of an index."""
        return _json({"jobs": [job.shown() for job in jobs().list(index)[:_LISTED]]})

    @routes.get("/jobs/{job}", response_model=JobBody, summary="Get a job")
    async def get_job(job: str) -> Response:
        """How far a job is, what it wrote, and what it left out."""
        return _json(jobs().find(job).shown())

    @routes.get(
        "/jobs/{job}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Events `progress`, and at last `end`."}},
        summary="Follow a job",
    )
    async def follow_job(job: str) -> Response:
        """The job again each time that it comes further, as server-sent events."""
        nonlocal followers
        found = jobs().find(job)
        if followers >= _MOST_FOLLOWERS:
            raise ServiceError(
                429, f"{_MOST_FOLLOWERS} connections follow jobs already; ask for the job instead", "busy"
            )

        async def events() -> AsyncIterator[bytes]:
            nonlocal followers
            followers += 1
            try:
                async for event in _events(service, found):
                    yield event
            finally:
                followers -= 1

        return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @routes.delete("/jobs/{job}", response_model=JobBody, dependencies=writing, summary="Cancel a job")
    async def cancel_job(job: str) -> Response:
        """End a job: at once if it waits, or else where it next reports its progress. What it has committed stays."""
        found = jobs().find(job)
        await apart(manager.cancel, found)
        return _json(found.shown())

    @routes.post(
        "/uploads", response_model=UploadBody, status_code=201, dependencies=writing, summary="Begin an upload"
    )
    async def begin_upload() -> Response:
        """Make room for documents that come in parts, as lines of JSON."""
        upload = await apart(manager.of_uploads().begin)
        return _json({"id": upload, "received": 0}, 201, {"Location": f"/uploads/{upload}", "Upload-Offset": "0"})

    @routes.get("/uploads/{upload}", response_model=UploadBody, dependencies=writing, summary="Get an upload")
    async def get_upload(upload: str) -> Response:
        """How many bytes have come: an upload whose connection broke continues from there."""
        size = await apart(manager.of_uploads().size, upload)
        return _json({"id": upload, "received": size}, 200, {"Upload-Offset": str(size)})

    @routes.patch(
        "/uploads/{upload}",
        response_model=UploadBody,
        dependencies=writing,
        openapi_extra={"requestBody": {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
        summary="Continue an upload",
    )
    async def continue_upload(
        upload: str,
        request: Request,
        upload_offset: Annotated[int, Header(ge=0, description="Number of bytes that have come before.")],
    ) -> Response:
        """Add bytes to an upload. What came before a connection broke is kept."""
        uploads = manager.of_uploads()
        with await apart(uploads.part, upload, upload_offset) as part:
            await receive_into(part, request, service.settings.deadline_seconds)
        return _json({"id": upload, "received": part.size}, 200, {"Upload-Offset": str(part.size)})

    @routes.delete("/uploads/{upload}", status_code=204, dependencies=writing, summary="Remove an upload")
    async def remove_upload(upload: str) -> Response:
        """Remove an upload that no job has."""
        uploads = manager.of_uploads()
        await apart(uploads.size, upload)
        if uploads.is_taken(upload):
            raise ServiceError(409, "a job has this upload; cancel the job", "upload")
        await apart(uploads.remove, upload)
        return Response(status_code=204)

    return routes


async def _events(service: Service, job: Job) -> AsyncIterator[bytes]:
    sent, at = None, 0.0
    while True:
        shown = as_json(job.shown())
        ended = job.state in ENDED or service.draining
        if shown != sent or ended:
            yield b"event: " + (b"end" if ended else b"progress") + b"\ndata: " + shown + b"\n\n"
            sent, at = shown, time.monotonic()
        elif time.monotonic() - at > _ALIVE_SECONDS:
            yield b": waiting\n\n"
            at = time.monotonic()
        if ended:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(as_json(content), status, headers, "application/json")
