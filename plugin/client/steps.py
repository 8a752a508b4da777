"""Requests, answers and pauses as steps of generators: the same code then serves `Client` and `AsyncClient`.

A verb is a generator. It yields a `Request` and is sent the `Answer`, or yields a `Pause`; what it returns is the
result. Where the connection breaks, `BrokenConnectionError` is thrown into it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, Union

from .errors import ClientError, error_of

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0  # seconds between two tries, where the service names no time
_LONGEST_WAIT = 120.0  # seconds that are waited for because the service says so
BUSY = (429, 503)


@dataclass(frozen=True)
class Request:
    """What is sent.

    Attributes:
        method: HTTP method.
        path: path below the address of the service.
        body: the body; None sends none.
        headers: headers besides the token.
        params: parameters of the URL.
        repeatable: whether it does no harm twice, so that it is sent again where the connection broke and it is not
            known what has come of it.
    """

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True

    @classmethod
    def of_json(cls, method: str, path: str, content: Any, **others: Any) -> Request:
        """A request whose body is JSON."""
        body = json.dumps(content, ensure_ascii=False).encode()
        return cls(method, path, body, {"Content-Type": "application/json"}, **others)


@dataclass(frozen=True)
class Pause:
    """A time to wait, in seconds."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers with names in small letters, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class BrokenConnectionError(Exception):
    """The connection could not be made or broke; `sent` says whether the service may have got the request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


T = TypeVar("T")
Steps = Generator[Union[Request, Pause], Any, T]  # noqa: UP007  # evaluated on Python 3.10 too


def asked(request: Request, tries: int) -> Steps[Any]:
    """Send a request, again where the service is busy or the connection breaks; returns the JSON of its answer.

    Args:
        request: the request.
        tries: largest number of times that it is sent.

    Raises:
        TansakuError: the service refuses it, see `error_of`; or it is busy or not there at the last try too.
    """
    for attempt in range(1, tries + 1):
        try:
            answer = yield request
        except BrokenConnectionError as error:
            if error.sent and not request.repeatable:
                raise ClientError(
                    f"the connection to {error} broke, and it is not known whether the service has done its work; look "
                    "before you try again"
                ) from error
            if attempt == tries:
                raise ClientError(f"no connection after {tries} tries to {error}; is the service running?") from error
            yield Pause(pause(attempt))
            continue
        if answer.status not in BUSY or attempt == tries:
            return content_of(answer)
        yield Pause(pause(attempt, answer))
    raise AssertionError("tries is 1 or more")


def content_of(answer: Answer) -> Any:
    """The JSON of an answer.

    Raises:
        TansakuError: the service refused the request, see `error_of`, or something else than the service answered.
    """
    try:
        content = json.loads(answer.body) if answer.body else None
    except ValueError:
        content = None
    if not 200 <= answer.status < 300:
        message = content.get("message") if isinstance(content, dict) else None
        raise error_of(answer.status, message or f"the answer has status {answer.status} and no message")
    if content is None and answer.status != 204:
        raise ClientError("the answer is not JSON; is this the address of tansaku serve?", answer.status)
    return content


def pause(attempt: int, answer: Answer | None = None) -> float:
    """Seconds before the next try: what the service says, or twice as long each time; other clients wait otherwise.

    Args:
        attempt: number of tries so far.
        answer: the answer to the last one, if there was one.
    """
    said = "" if answer is None else answer.headers.get("retry-after", "")
    chance = random.random()  # noqa: S311 - no secret
    if said.isdigit():
        return min(int(said), _LONGEST_WAIT) * (1 + chance / 4)
    return min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE) * (0.5 + chance / 2)
