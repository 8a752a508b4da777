"""The examples in the docstrings of public names run, and print what they say."""

from __future__ import annotations

import ast
import doctest
import re
from pathlib import Path

import pytest

import tansaku

pytestmark = pytest.mark.integration

STUB = Path(tansaku.__file__).with_name("__init__.pyi")
MAIN = ("Encoder", "Index", "Reranker", "Searcher")
IMPORTS = re.findall(r"^from \.([\w.]+) import (\w+) as", STUB.read_text(encoding="utf-8"), re.MULTILINE)
MODULE_OF = {name: module for module, name in IMPORTS}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def has_example(name: str) -> bool:
    """Whether the docstring of a public name, or of one of its methods, has one; nothing is imported."""
    path = Path(tansaku.__file__).parent.joinpath(*MODULE_OF[name].split(".")).with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return ">>>" in (ast.get_source_segment(path.read_text(encoding="utf-8"), node) or "")
    return False


WITH_EXAMPLES = [name for name in MODULE_OF if has_example(name)]


def run(found: list[doctest.DocTest]) -> int:
    """Run examples; the number of them. A failure is raised with what was expected and what came."""
    runner = doctest.DocTestRunner(verbose=False, optionflags=FLAGS)
    shown: list[str] = []
    for test in found:
        runner.run(test, out=shown.append)
    assert not runner.failures, "".join(shown)
    return runner.tries


@pytest.mark.parametrize("name", ["the package", *WITH_EXAMPLES])
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    known = {"folder": str(tmp_path / "folder")}
    if name == "the package":
        assert tansaku.__doc__
        found = [doctest.DocTestParser().get_doctest(tansaku.__doc__, known, "tansaku", tansaku.__file__, 0)]
    else:
        found = doctest.DocTestFinder().find(getattr(tansaku, name), name, extraglobs=known)
    assert run(found) > 0


@pytest.mark.parametrize("name", MAIN)
def test_main_entry_points_have_an_example(name: str):
    assert name in WITH_EXAMPLES
