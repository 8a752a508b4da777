"""What scripts of other web pages may send and read, where they may ask at all."""

from __future__ import annotations

from typing import Any

HEADERS: dict[str, Any] = {
    "allow_methods": ("GET", "HEAD", "POST", "PATCH", "DELETE"),
    "allow_headers": ("Authorization", "Content-Type", "Content-Encoding", "Upload-Offset", "X-Request-ID"),
    "expose_headers": ("Location", "Retry-After", "Upload-Offset", "X-Request-ID", "X-Tansaku-Warnings"),
    "max_age": 600,
}
"""Options of Starlette's `CORSMiddleware`. No cookies: the token is in a header."""
