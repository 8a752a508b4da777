"""The house rules that no linter knows: which folders are packages, and which may import which."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
FOLDERS = ("onnx_export", "indexer", "plugin", "training")
MAY_IMPORT = {
    "onnx_export": set(),
    "indexer": {"onnx_export"},
    "plugin": {"indexer", "onnx_export"},
    "training": {"onnx_export"},
}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported_folders(path: Path) -> set[str]:
    """The house's folders that a module imports, its own left out; fails on an import that is not relative."""
    folder, *inner = path.relative_to(ROOT).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level > len(inner):
            assert node.level == len(inner) + 1, f"{path}:{node.lineno} imports from above the house"
            assert node.module, f"{path}:{node.lineno} imports the namespace tansaku itself"
            found.add(node.module.split(".")[0])
        absolute = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        absolute += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in absolute:
            assert name.split(".")[0] not in {*FOLDERS, "tansaku"}, f"{path}:{node.lineno}: write it relatively"
    return found - {folder}


def test_packages_list_equals_the_tree():
    listed = project()["tool"]["setuptools"]["packages"]
    in_tree = {
        ".".join(("tansaku", *init.parent.relative_to(ROOT).parts))
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(listed) == sorted(in_tree)


def test_every_folder_with_modules_is_a_package():
    for folder in FOLDERS:
        for path in modules(folder):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} has modules but no __init__.py"


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_only_downward(folder: str):
    for path in modules(folder):
        upward = imported_folders(path) - MAY_IMPORT[folder]
        assert not upward, f"{path.relative_to(ROOT)} imports {', '.join(upward)}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_all_is_sorted_and_holds(folder: str):
    module = importlib.import_module(f"tansaku.{folder}")
    assert list(module.__all__) == sorted(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name), f"tansaku.{folder}.__all__ lists {name}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_are_one_idea_long(folder: str):
    for path in modules(folder):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines"


def test_packages_are_marked_as_typed():
    for folder in FOLDERS:
        assert (ROOT / folder / "py.typed").exists()
