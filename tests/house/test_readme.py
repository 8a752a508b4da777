"""The README is short, its code runs as printed, and its Japanese twin has the same code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
JAPANESE = (ROOT / "README.ja.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """Code blocks; comments, which may be in the reader's language, are left out."""
    return [re.sub(r"\s+# .*", "", block) for block in re.findall(r"```\w+\n.*?```", text, flags=re.DOTALL)]


def test_it_is_short():
    assert len(README.encode()) <= 6 * 1024
    assert len(JAPANESE) <= 6 * 1024


def test_each_links_to_the_other_in_its_first_line():
    assert "(README.ja.md)" in README.splitlines()[0]
    assert "(README.md)" in JAPANESE.splitlines()[0]


def test_the_twins_have_the_same_code_links_and_figures():
    assert blocks(JAPANESE) == blocks(README)
    links = [re.findall(r"\]\(([^)]+)\)", text.split("\n", 1)[1]) for text in (README, JAPANESE)]
    # Pages that exist in Japanese are linked in Japanese.
    assert sorted(links[0]) == sorted(link.replace(".ja.md", ".md") for link in links[1])
    figures = [
        re.findall(r"(?<![\d.])\.\d{3,4}\b|\d+\.\d+ ms|\d,\d{3}|20\d\d-\d\d-\d\d", text) for text in (README, JAPANESE)
    ]
    assert sorted(figures[0]) == sorted(figures[1])


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102
    assert "kyoto" in capsys.readouterr().out.splitlines()[0]


def test_first_screen_has_the_two_commands():
    first_screen = "\n".join(README.splitlines()[:30])
    assert "make demo" in first_screen
    assert "make test" in first_screen


def test_commands_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile, f"README names make {target}"
