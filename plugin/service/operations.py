"""Names of the operations in the OpenAPI document, which generated clients call their functions by."""

from __future__ import annotations

import re
from typing import Any

from fastapi.routing import APIRoute


def first_id(route: APIRoute) -> str:
    """A unique id, which `name_operations` makes readable."""
    return f"{route.name}@{','.join(sorted(route.methods or ()))} {route.path_format}"


def name_operations(paths: dict[str, Any]) -> None:
    """Give each operation the name of its function, and one at several paths the name of its path.

    The name stays with the path that is called like it, or else with the first one.

    Args:
        paths: The paths of an OpenAPI document.
    """
    named: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path, operations in paths.items():
        for operation in operations.values():
            named.setdefault(operation["operationId"].partition("@")[0], []).append((_slug(path), operation))
    for name, found in named.items():
        plain = next((slug for slug, _ in found if slug == name), found[0][0])
        for slug, operation in found:
            operation["operationId"] = name if slug == plain else slug


def _slug(path: str) -> str:
    return re.sub(r"\W+", "_", path).strip("_")
