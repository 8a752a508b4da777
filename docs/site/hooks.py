"""Fills the marks `<!-- generated: NAME -->` of pages with what `generated.py` writes from the code."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from generated import fill


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill a page's marks, before it becomes HTML."""
    return fill(markdown)
