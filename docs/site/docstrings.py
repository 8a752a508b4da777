"""Lets the reference show the examples of docstrings as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Our docstrings say `Example:`; the parser reads code under `Examples:` only."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the heading, once the docstring is read."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
