"""docs/how-to/any-database.md: its code runs, and its adapter passes the suite that it shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[4] / "docs" / "how-to" / "any-database.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)

for block in BLOCKS:  # TestDictRows, with what it needs
    if "class " in block:
        exec(compile(block, "any-database.md", "exec"), globals())  # noqa: S102


def test_the_page(capsys: pytest.CaptureFixture[str]):
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "any-database.md", "exec"), names)  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[1:] == ["kyoto", "京都は794年から都だった。"]
    assert printed[1:] == ["{'year': 794}"]
    assert issubclass(names["TestDictRows"], names["RowStoreTests"])
