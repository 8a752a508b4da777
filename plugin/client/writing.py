"""Documents sent: small ones in one request, others as an upload that continues where a broken connection left it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from ...indexer.read.rejects import Rejects
from ...indexer.write.report import BuildReport
from ...onnx_export.errors import InputError
from ...onnx_export.progress import Progress
from .documents import Lines
from .errors import ClientError, error_of
from .results import dataclass_of
from .steps import BUSY, Answer, BrokenConnectionError, Pause, Request, Steps, asked, content_of, pause

_SMALL_BYTES = 1 << 18  # that go in one request
_FIRST_LOOK, _LAST_LOOK = 0.05, 1.0  # seconds between looks at a job
_ENDED = ("done", "failed", "cancelled")
_NAMED = 3  # documents that an error names
_TRY_AGAIN = (408, 409, 429, 502, 503, 504)


def write(
    path: str,
    options: dict[str, Any],
    documents: Iterable[Any],
    repeatable: bool,
    rejects: Rejects | None,
    progress: Progress,
    tries: int,
) -> Steps[BuildReport]:
    """Send documents, and wait for the job that writes them.

    Args:
        path: path that takes them.
        options: the other parts of the request.
        documents: what `Index.add` takes.
        repeatable: whether writing them twice does no harm.
        rejects: collects documents that are left out; None raises an error if there are any.
        progress: called while the work proceeds.
        tries: largest number of times that a request is sent.

    Raises:
        InputError: a document cannot be used.
        TansakuError: the service cannot write, see `error_of`.
    """
    if rejects is not None:
        rejects.begin()
    lines = Lines(documents, rejects)
    parts = lines.parts()
    first = list(itertools.islice(parts, 2))
    if not first:
        raise InputError("there are no documents; give at least one")
    if len(first) == 1 and sum(map(len, first[0])) <= _SMALL_BYTES:
        body = Request.of_json("POST", path, options).body or b"{}"
        whole = b'{"documents":[' + b",".join(first[0]) + b'],"wait":true,' + body[1:]
        request = Request("POST", path, whole, {"Content-Type": "application/json"}, repeatable=repeatable)
        job = yield from asked(request, tries)
    else:
        upload = yield from sent(itertools.chain(first, parts), progress, tries)
        job = yield from _begun(path, {**options, "upload": upload, "wait": False}, tries)
    job = yield from ended(job, progress, tries)
    _note(job, lines, rejects)
    return dataclass_of(BuildReport, job["result"] or {})


def sent(parts: Iterable[list[bytes]], progress: Progress, tries: int) -> Steps[str]:
    """Make an upload; returns its id."""
    upload = (yield from asked(Request("POST", "/uploads"), tries))["id"]
    received = documents = 0
    for part in parts:
        data = b"".join(line + b"\n" for line in part)
        received = yield from _part(f"/uploads/{upload}", data, received, tries)
        documents += len(part)
        progress("send", documents, 0, 0)
    return upload


def _part(path: str, data: bytes, start: int, tries: int) -> Steps[int]:
    """Send a part of an upload from where the service has it; returns the number of bytes that have come then."""
    received, end, attempt = start, start + len(data), 0
    while received < end:
        headers = {"Content-Type": "application/x-ndjson", "Upload-Offset": str(received)}
        attempt += 1
        answer: Answer | None = None
        try:
            answer = yield Request("PATCH", path, data[received - start :], headers)
        except BrokenConnectionError as error:
            if attempt >= tries:
                raise ClientError(f"the upload stopped at {received:,} bytes after {tries} tries: {error}") from error
        if answer is not None and (answer.status not in _TRY_AGAIN or attempt >= tries):
            received = content_of(answer)["received"]
            continue
        yield Pause(pause(attempt, answer))
        before, received = received, (yield from asked(Request("GET", path), tries))["received"]
        if not start <= received <= end:
            raise ClientError(
                f"the service has {received:,} bytes of the upload, not {start:,} to {end:,}; begin again"
            )
        attempt = 0 if received > before else attempt
    return received


def _begun(path: str, body: dict[str, Any], tries: int) -> Steps[dict[str, Any]]:
    """Begin a job with an upload, once: if the connection broke, it is looked for among the jobs first."""
    for attempt in range(1, tries + 1):
        try:
            return (yield from _sent_once(Request.of_json("POST", path, body), tries))
        except BrokenConnectionError as error:
            if attempt == tries:
                raise ClientError(f"no connection after {tries} tries to {error}; is the service running?") from error
            yield Pause(pause(attempt))
        jobs = (yield from asked(Request("GET", "/jobs"), tries))["jobs"]
        found = next((job for job in jobs if job.get("upload") == body["upload"]), None)
        if found is not None:
            return found
    raise AssertionError("tries is 1 or more")


def _sent_once(request: Request, tries: int) -> Steps[dict[str, Any]]:
    for attempt in range(1, tries + 1):
        answer: Answer = yield request
        if answer.status not in BUSY or attempt == tries:
            return content_of(answer)
        yield Pause(pause(attempt, answer))
    raise AssertionError("tries is 1 or more")


def ended(job: dict[str, Any], progress: Progress, tries: int) -> Steps[dict[str, Any]]:
    """Wait for the end of a job.

    Raises:
        TansakuError: it failed or was cancelled.
    """
    look = _FIRST_LOOK
    while job["state"] not in _ENDED:
        progress(job["stage"] or job["state"], job["done"], job["total"], 0)
        yield Pause(look)
        look = min(1.5 * look, _LAST_LOOK)
        job = yield from asked(Request("GET", f"/jobs/{job['id']}"), tries)
    if job["state"] == "failed":
        raise error_of(job["status"] or 500, f"{job['error']} (job {job['id']})")
    if job["state"] == "cancelled":
        raise ClientError(f"the job {job['id']} was cancelled; what it had committed is in the index")
    return job


def _note(job: dict[str, Any], lines: Lines, rejects: Rejects | None) -> None:
    """Say which documents the service has left out."""
    if not job["rejected"]:
        return
    listed: Iterator[tuple[str, str]] = ((lines.place(each["line"]), each["reason"]) for each in job["rejects"])
    if rejects is None:
        named = "; ".join(f"{place}: {reason}" for place, reason in itertools.islice(listed, _NAMED))
        raise InputError(
            f"the service left out {job['rejected']:,} of the documents and wrote the others: {named}. Give rejects to "
            "have them in a file"
        )
    for place, reason in listed:
        rejects.note(place, reason, None)
    more = job["rejected"] - len(job["rejects"])
    if more > 0:
        rejects.note(f"{more:,} more", "the service lists only the first of those that it left out", None)
