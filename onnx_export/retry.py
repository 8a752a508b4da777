"""One way to try again: a few times, with growing pauses, for storage that was busy or has just changed."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import Retrying, retry_if_exception, retry_if_exception_type, stop_after_attempt, wait_exponential


def retrying(
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[BaseException], bool],
    *,
    tries: int = 5,
    first_pause: float = 0.02,
) -> Retrying:
    """Call a function again while it fails with one of some errors; the last error is raised as it is.

    Args:
        on: the errors after which to try again, or a function that says so of an error.
        tries: calls in all.
        first_pause: seconds before the second call; each later pause is twice as long.

    Returns:
        An object to be called with the function and its arguments, or to be iterated for ``with`` blocks.

    Example:
        >>> retrying(OSError, tries=3)(int, "7")
        7
    """
    again = retry_if_exception_type(on) if isinstance(on, type | tuple) else retry_if_exception(on)
    return Retrying(
        retry=again, stop=stop_after_attempt(tries), wait=wait_exponential(multiplier=first_pause), reraise=True
    )
