"""Steps taken over HTTP with httpx. Needs the extra `client`."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ...onnx_export.errors import InputError, MissingExtraError
from .errors import ClientError
from .steps import Answer, BrokenConnectionError, Pause, Request, Steps

try:
    import httpx
except ImportError as error:
    raise MissingExtraError("httpx", "client") from error

T = TypeVar("T")
TIMEOUT = 60.0

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def checked_address(url: str) -> str:
    """The address of a service, without a slash at its end.

    Raises:
        InputError: it is not one.
    """
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise InputError(f"{url!r:.100} is not the address of a service; give one such as http://127.0.0.1:8080")
    return url.rstrip("/")


def headers_of(token: str | None) -> dict[str, str]:
    """The headers of every request."""
    return {} if token is None else {"Authorization": f"Bearer {token.strip()}"}


def take(steps: Steps[T], http: httpx.Client, address: str, headers: dict[str, str]) -> T:
    """Take steps, one after another; returns the result."""
    go: Callable[[], Any] = functools.partial(next, steps)
    while True:
        try:
            step = go()
        except StopIteration as end:
            return end.value
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            go = functools.partial(next, steps)
            continue
        try:
            answer = _answer(http.request(**_request(step, address, headers)))
        except httpx.TransportError as error:
            go = functools.partial(steps.throw, _broken(error, address))
        except httpx.HTTPError as error:
            raise ClientError(f"{address} cannot be asked: {error}") from error
        else:
            go = functools.partial(steps.send, answer)


async def take_async(steps: Steps[T], http: httpx.AsyncClient, address: str, headers: dict[str, str]) -> T:
    """As `take`. The steps are taken in a thread, since some read files and encode documents as JSON."""

    def ends(go: Callable[[], Any]) -> tuple[bool, Any]:  # no StopIteration goes through a future
        try:
            return False, go()
        except StopIteration as end:
            return True, end.value

    go: Callable[[], Any] = functools.partial(next, steps)
    while True:
        has_ended, step = await asyncio.to_thread(ends, go)
        if has_ended:
            return step
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            go = functools.partial(next, steps)
            continue
        try:
            answer = _answer(await http.request(**_request(step, address, headers)))
        except httpx.TransportError as error:
            go = functools.partial(steps.throw, _broken(error, address))
        except httpx.HTTPError as error:
            raise ClientError(f"{address} cannot be asked: {error}") from error
        else:
            go = functools.partial(steps.send, answer)


def _request(step: Request, address: str, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "method": step.method,
        "url": address + step.path,
        "content": step.body,
        "headers": {**headers, **step.headers},
        "params": dict(step.params) or None,
    }


def _answer(response: httpx.Response) -> Answer:
    return Answer(response.status_code, dict(response.headers), response.content)


def _broken(error: httpx.TransportError, address: str) -> BrokenConnectionError:
    message = f"{address} ({type(error).__name__} {error})"
    return BrokenConnectionError(message, sent=not isinstance(error, _NOT_SENT))
