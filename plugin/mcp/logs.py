"""The log of the MCP server, on stderr: plain lines, of bounded length.

The handler of the SDK lays out each entry with rich, in the event loop. A client can have a name of 1 MB logged, which
then takes minutes.
"""

from __future__ import annotations

import logging

_MAX_CHARS = 4_000  # a traceback has some 2,000


class ShortFormatter(logging.Formatter):
    """Formats entries as Python's default does, and cuts long ones."""

    def format(self, record: logging.LogRecord) -> str:
        """The entry as text; of one that is too long the start and the end, which names the error."""
        text = super().format(record)
        half = _MAX_CHARS // 2
        return text if len(text) <= _MAX_CHARS else f"{text[:half]} … {text[-half:]}"


def log_plainly(level: str) -> None:
    """Log to stderr, unless the application has set up a log already, as the SDK looks for it too.

    Args:
        level: the least level that is logged.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(ShortFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
