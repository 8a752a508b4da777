"""The README's code runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_examples_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    first, *others = blocks("python")
    names: dict = {}
    exec(compile(first, "README.md", "exec"), names)  # noqa: S102
    assert "kyoto" in capsys.readouterr().out.splitlines()[0]
    for example in others:
        exec(compile(example, "README.md", "exec"), names)  # noqa: S102
    assert sorted(hit.id for hit in names["searcher"].search("日本で最も高い山")) == ["fuji", "sea"]


def test_first_screen_has_the_two_commands():
    first_screen = "\n".join(README.splitlines()[:30])
    assert "make demo" in first_screen
    assert "make test" in first_screen


def test_commands_in_the_readme_exist():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([a-z]+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile, f"README names make {target}"
