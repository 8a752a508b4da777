"""Who may reach a server: addresses of this machine, and the token of a request."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Any

from ...onnx_export.errors import InputError

TOKEN_VARIABLE = "TANSAKU_TOKEN"  # noqa: S105 - a name
WRITE_TOKEN_VARIABLE = "TANSAKU_WRITE_TOKEN"  # noqa: S105 - a name
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # control characters but tabs


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def has_token(scope: Mapping[str, Any], token: bytes) -> bool:
    """Whether a request has the token, as ``Authorization: Bearer``, or alone in that header, as some clients send it.

    Args:
        scope: The ASGI scope of the request.
        token: The token, without spaces around it.
    """
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, rest = given.partition(b" ")
    sent = rest if scheme.lower() == b"bearer" else given
    return hmac.compare_digest(sent.strip(), token)


def checked_token(token: str | None, variable: str = TOKEN_VARIABLE) -> str | None:
    """The token of an option or its variable.

    Args:
        token: What was given.
        variable: Name of the variable.

    Raises:
        InputError: the variable is set to nothing, which would let everybody in; or as `check_token`.
    """
    if token is None and variable in os.environ:
        raise InputError(f"{variable} is set but empty, and would let everybody in; give a token, or unset it")
    return None if token is None else check_token(token)


def check_token(token: str) -> str:
    """``token``; spaces and line ends around it do not count.

    Raises:
        InputError: it is empty, and would let everybody in. Or it has a line end within, or another control character,
            and no client could send it.
    """
    if not token.strip():
        raise InputError("the token is empty, and would let everybody in; give one, or leave it out")
    if _UNSENDABLE.search(token.strip()):
        raise InputError("the token has a line end or another control character within, which no client can send")
    return token
