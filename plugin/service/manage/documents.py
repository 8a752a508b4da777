"""Routes of the documents of an index: written, deleted, counted, fetched by id and read page by page."""

from __future__ import annotations

import re
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Body, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from ....indexer.errors import StorageError, TableNotFoundError
from ....indexer.table.contents import count_rows, page_of_documents
from ....onnx_export.errors import InputError
from ..dialects.base import respond
from ..dialects.conditions import condition_of
from ..errors import ServiceError
from ..service import Service
from .access import check_may_write
from .answers import ERRORS, answer_of, apart, refusing, served, table_now
from .bodies import (
    Count,
    DeleteRequest,
    DocumentsRequest,
    GetRequest,
    JobBody,
    Mode,
    Page,
    Records,
    ScrollRequest,
    StoredDocuments,
    WhereBody,
)
from .indexes import QUEUED, upload_of
from .manager import Manager
from .uploads import Part

_CURSOR = re.compile(r"(\d{1,15})-(\d{1,15})")


def router(service: Service, manager: Manager) -> APIRouter:
    """`/indexes/{index}/documents` and what is asked of them."""
    routes = APIRouter(tags=["documents"], responses=ERRORS)
    settings = service.settings

    def may_write(request: Request) -> None:
        check_may_write(request, settings)

    writing = {"dependencies": [Depends(may_write)], "responses": QUEUED, "response_model": JobBody}

    @routes.post("/indexes/{index}/documents", summary="Write documents", **writing)
    async def write_documents(
        index: str,
        body: Annotated[DocumentsRequest | Records, Body()],
        mode: Annotated[Mode, Query(description="As in the body; for a body that is a list.")] = "upsert",
        wait: Annotated[bool, Query(description="As in the body; for a body that is a list.")] = True,
    ) -> Response:
        """Add documents, or replace those whose ids the index has.

        The body is a list of documents, an object with more options, or lines of JSON (`application/x-ndjson`), which
        may be as long as an upload. A document that cannot be indexed is left out, and listed in the answer.
        """
        served(service, index)
        if isinstance(body, list):
            body = DocumentsRequest(documents=body, upload=None, mode=mode, names=None, wait=wait)
        upload, is_given = await upload_of(manager, body)
        given = body.model_dump(mode="json", include={"mode", "names"})
        job = await apart(manager.put_documents, "documents", index, given, upload, is_given=is_given)
        return await answer_of(service, job, wait=body.wait)

    @routes.post(
        "/indexes/{index}/documents/stream",
        summary="Write documents line by line",
        openapi_extra={"requestBody": {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
        **writing,
    )
    async def stream_documents(index: str, request: Request, mode: Mode = "upsert", wait: bool = True) -> Response:
        """Write documents from lines of JSON, as long as an upload may be.

        The same as `/indexes/{index}/documents` with lines. If the connection breaks, nothing is written; an upload can
        be continued.
        """
        served(service, index)
        uploads = manager.of_uploads()
        upload = await apart(uploads.begin)
        try:
            with await apart(uploads.part, upload, 0) as part:
                await receive_into(part, request, settings.deadline_seconds)
        except BaseException:
            uploads.remove(upload)
            raise
        given = {"mode": mode, "names": None}
        job = await apart(manager.put_documents, "documents", index, given, upload, is_given=False)
        return await answer_of(service, job, wait=wait)

    @routes.post("/indexes/{index}/delete", summary="Delete documents", **writing)
    async def delete_documents(index: str, body: DeleteRequest) -> Response:
        """Delete documents by their ids, or all that meet a condition."""
        served(service, index)
        _check_where(service, body)
        _check_ids(service, body.ids)
        if (body.ids is None) == (body.where is None):
            raise ServiceError(422, "give either ids or a condition (where)", "input")
        given = body.model_dump(mode="json", exclude={"wait"})
        return await answer_of(service, await apart(manager.put, "delete", index, given), wait=body.wait)

    @routes.delete("/indexes/{index}/documents/{doc_id:path}", summary="Delete a document", **writing)
    async def delete_document(index: str, doc_id: str, wait: bool = True) -> Response:
        """Delete a document, with all its passages, or a passage."""
        served(service, index)
        given = {"ids": [doc_id], "where": None, "params": None, "dry_run": False}
        return await answer_of(service, await apart(manager.put, "delete", index, given), wait=wait)

    @routes.get("/indexes/{index}/documents/{doc_id:path}", response_model=dict[str, Any], summary="Get a document")
    async def get_document(index: str, doc_id: str, request: Request) -> Response:
        """A document as it was given; in an index of passages its text has a passage a line."""
        served(service, index)

        def task() -> dict[str, Any]:
            (found,) = _read(service, index, [doc_id], None)["documents"]
            if found is None:
                raise ServiceError(404, "the index has no document of this id", "document")
            return found

        return await respond(service, request, task, documents=1)

    @routes.post("/indexes/{index}/get", response_model=StoredDocuments, summary="Get documents by id")
    async def get_documents(index: str, body: GetRequest, request: Request) -> Response:
        """Documents by their ids, in the order of these."""
        served(service, index)
        limit = settings.max_documents
        if len(body.ids) > limit:
            raise ServiceError(413, f"there are {len(body.ids):,} ids; at most {limit:,} are read at once", "documents")
        read = lambda: _read(service, index, body.ids, body.fields)  # noqa: E731
        return await respond(service, request, read, documents=len(body.ids))

    @routes.post("/indexes/{index}/count", response_model=Count, summary="Count documents")
    async def count_documents(index: str, body: WhereBody, request: Request) -> Response:
        """Number of the documents that meet a condition, or of all."""
        served(service, index)
        _check_where(service, body)

        def task() -> dict[str, Any]:
            with refusing(service):
                table = table_now(service, index)
                rows, documents = count_rows(table, condition_of(body.where, body.params))
            return {"rows": rows, "documents": documents, "version": table.table.version}

        return await respond(service, request, task, documents=0)

    @routes.post("/indexes/{index}/scroll", response_model=Page, summary="Read documents page by page")
    async def scroll_documents(index: str, body: ScrollRequest, request: Request) -> Response:
        """A page of the rows that meet a condition, or of all. All pages are of the version of the first one."""
        served(service, index)
        _check_where(service, body)
        if body.limit > settings.max_documents:
            limit = settings.max_documents
            raise ServiceError(422, f"limit is {body.limit:,}; a page has at most {limit:,} rows", "input")
        version, start = _position(body.cursor)

        def task() -> dict[str, Any]:
            with refusing(service):
                try:
                    table = table_now(service, index, version)
                except (StorageError, TableNotFoundError, InputError):
                    if version is None:
                        raise
                    message = "the version of this cursor has been removed; begin again, without a cursor"
                    raise ServiceError(410, message, "cursor") from None
                where = condition_of(body.where, body.params)
                limit = body.limit + 1  # one more, which shows whether there is another page
                rows = page_of_documents(table, where, start=start, limit=limit, columns=body.fields)
            more, now = len(rows) > body.limit, table.table.version
            cursor = f"{now}-{start + body.limit}" if more else None
            return {"documents": rows[: body.limit], "cursor": cursor, "version": now}

        return await respond(service, request, task, documents=body.limit)

    return routes


async def receive_into(part: Part, request: Request, seconds: float) -> None:
    """Write a body to an upload as it comes.

    Raises:
        ServiceError: 408, nothing came for ``seconds``; or as `Part.write`.
        ClientDisconnect: the connection broke.
    """
    body = request.stream()
    while True:
        data = None
        with anyio.move_on_after(seconds) as limit:
            data = await anext(body, None)
        if limit.cancelled_caught:
            raise ServiceError(408, f"nothing came for {seconds:g} s; continue the upload", "slow body")
        if data is None:
            await apart(part.flush)
            return
        if data:
            await apart(part.write, data)


def _read(service: Service, name: str, ids: list[str], fields: list[str] | None) -> dict[str, Any]:
    searcher = served(service, name)
    with refusing(service):
        found = searcher.read(ids)
    known = {"id", "title", "text"}.union(*(document.fields for document in found if document is not None))
    for field in fields or ():
        if field not in known and any(found):
            raise ServiceError(
                422, f"the documents have no field {field[:60]!r}; use {', '.join(sorted(known))}", "input"
            )

    def content(document: Any) -> dict[str, Any]:
        whole = {"id": document.id, "title": document.title, "text": document.text, **document.fields}
        return whole if fields is None else {name: whole[name] for name in dict.fromkeys(["id", *fields])}

    return {
        "documents": [None if document is None else content(document) for document in found],
        "missing": [doc_id for doc_id, document in zip(ids, found, strict=True) if document is None],
        "version": searcher.version,
    }


def _check_where(service: Service, body: WhereBody) -> None:
    limit = service.settings.max_where_chars
    if body.where is not None and len(body.where) > limit:
        message = f"the condition has {len(body.where):,} characters; at most {limit:,} are allowed"
        raise ServiceError(422, message, "input")


def _check_ids(service: Service, ids: list[str] | None) -> None:
    limit = service.settings.max_ids
    if ids is not None and len(ids) > limit:
        raise ServiceError(413, f"there are {len(ids):,} ids; at most {limit:,} are allowed", "documents")


def _position(cursor: str | None) -> tuple[int | None, int]:
    if cursor is None:
        return None, 0
    found = _CURSOR.fullmatch(cursor)
    if not found:
        raise ServiceError(422, "this cursor is not one of a page before; begin without a cursor", "input")
    return int(found[1]), int(found[2])
