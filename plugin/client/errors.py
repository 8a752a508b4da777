"""The errors of the client: those of Python's `Index` and `Searcher` where the service refuses for the same reason."""

from __future__ import annotations

from ...indexer.errors import TableExistsError, TableNotFoundError, WriteConflictError
from ...onnx_export.errors import InputError, TansakuError

_NO_INDEX = ("unknown index", "is not served here", "no index is served here")


class ClientError(TansakuError):
    """The service could not be reached, or did not answer for a reason of its own.

    Attributes:
        status: HTTP status; None without an answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def error_of(status: int, message: str) -> TansakuError:
    """The error that stands for an answer.

    Args:
        status: HTTP status of the answer.
        message: its message.
    """
    if status == 404:
        return (TableNotFoundError if any(said in message for said in _NO_INDEX) else InputError)(message)
    if status == 409 and "exists already" in message:
        return TableExistsError(message)
    if status == 409:
        return WriteConflictError(message)
    if status in (400, 413, 415, 422):
        return InputError(message)
    return ClientError(f"{message} (HTTP status {status})", status)
