"""Retries with growing pauses, for storage that is busy or has just changed."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import Retrying, retry_if_exception, retry_if_exception_type, stop_after_attempt, wait_exponential


def retrying(
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[BaseException], bool],
    *,
    tries: int = 5,
    first_pause: float = 0.02,
) -> Retrying:
    """Call a function again while it fails with certain errors; the last error is raised unchanged.

    Args:
        on: the errors after which to try again, or a function that returns True for such an error.
        tries: number of calls at most.
        first_pause: seconds before the second call; each later pause is twice as long.

    Returns:
        An object to call with the function and its arguments, or to iterate over for ``with`` blocks.

    Example:
        >>> retrying(OSError, tries=3)(int, "7")
        7
    """
    again = retry_if_exception_type(on) if isinstance(on, type | tuple) else retry_if_exception(on)
    return Retrying(
        retry=again, stop=stop_after_attempt(tries), wait=wait_exponential(multiplier=first_pause), reraise=True
    )
