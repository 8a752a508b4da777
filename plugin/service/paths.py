"""The path of a request as the application's own routes have it."""

from __future__ import annotations

from starlette.types import Scope

_VERSIONS = ("v1", "v2")


def route_path(scope: Scope) -> str:
    """The path without that of the application it is mounted in, and without a proxy's prefix (``root_path``)."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def plain_path(scope: Scope) -> str:
    """The whole path as if it had been put down with care.

    Clients add their path to an address that users give: one with a slash at its end, or with ``/v1`` already
    (``/v1/v1/rerank``, ``/v1/v2/rerank``). Slashes too many are left out, and of several versions the last one counts.
    Clients of NVIDIA's hosted models write the model into the path (``/v1/retrieval/MODEL/reranking``); there is one.
    """
    own = route_path(scope)
    parts = [part for part in own.split("/") if part]
    while len(parts) > 1 and parts[0] in _VERSIONS and parts[1] in _VERSIONS:
        del parts[0]
    if parts[:2] == ["v1", "retrieval"] and parts[-1] == "reranking":
        parts = ["v1", "ranking"]
    return scope["path"].removesuffix(own) + "/" + "/".join(parts)
