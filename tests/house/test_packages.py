"""The house rules that no linter knows: what is packaged, what is public, and which way imports run."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tansaku
from tansaku.onnx_export.extras import EXTRAS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).parents[2]
FOLDERS = ("onnx_export", "indexer", "plugin", "training")
FACE = ROOT / "plugin" / "public"
DATA = {"tansaku.onnx_export.default_bundle", "tansaku.plugin.sample"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_packages_list_equals_the_tree():
    listed = project()["tool"]["setuptools"]["packages"]
    in_tree = {
        ".".join(("tansaku", *init.parent.relative_to(ROOT).parts))
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
        if init.parent != FACE
    }
    assert listed == sorted(in_tree | DATA | {"tansaku"})


def test_every_folder_with_modules_is_a_package():
    for folder in FOLDERS:
        for path in modules(folder):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} has modules but no __init__.py"


def test_the_packages_of_the_extras_are_those_of_the_project():
    listed = project()["project"]["optional-dependencies"]
    for extra, packages in EXTRAS.items():
        names = {re.split(r"[<>=\[;]", entry)[0] for entry in listed[extra]} - {"tansaku", "tomli"}
        assert set(packages.values()) - {"tomli"} == names, extra


def test_imports_run_only_downward():
    # In a process of its own: import-linter disables all loggers that exist, and later tests look at what is logged.
    command = [Path(sys.executable).with_name("lint-imports")]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_within_the_house_are_relative(folder: str):
    """An absolute one would work where tansaku is installed, but not in the tree as it stands."""
    for path in modules(folder):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.level:
                absolute = [str(node.module)]
            elif isinstance(node, ast.Import):
                absolute = [alias.name for alias in node.names]
            else:
                continue
            for name in absolute:
                assert name.split(".")[0] not in {*FOLDERS, "tansaku"}, f"{path}:{node.lineno}: write it relatively"


def test_public_names_are_sorted_and_there():
    assert sorted(tansaku.__all__) == tansaku.__all__
    for name in tansaku.__all__:
        assert getattr(tansaku, name), name
    assert set(tansaku.__all__) <= set(dir(tansaku))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Sercher"):
        tansaku.Sercher  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(("folder", "name"), [("onnx_export", "Encoder"), ("indexer", "Index"), ("plugin", "Searcher")])
def test_names_of_before_work_and_warn(folder: str, name: str):
    module = importlib.import_module(f"tansaku.{folder}")
    with pytest.warns(DeprecationWarning, match=f"now tansaku.{name}"):
        assert getattr(module, name) is getattr(tansaku, name)
    with pytest.raises(AttributeError, match="Unknown"):
        module.Unknown  # noqa: B018


@pytest.mark.parametrize("module", ["tansaku", "tansaku.plugin.cli.main"])
def test_importing_tansaku_and_its_command_loads_nothing_heavy(module: str):
    heavy = "numpy lancedb pyarrow onnxruntime numba pydantic torch faiss"
    script = f"import sys, {module}; print([name for name in '{heavy}'.split() if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def code_lines(path: Path) -> int:
    """Lines of a file without its docstrings, which are read instead of the code."""
    text = path.read_text(encoding="utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented) and ast.get_docstring(node)]
    docstrings = [node.body[0] for node in found]
    return len(text.splitlines()) - sum((d.end_lineno or d.lineno) - d.lineno + 1 for d in docstrings)


# A file is one idea. CONTRIBUTING.md says why there is a limit and why kernels may be longer.
def test_searching_needs_nothing_of_what_only_writing_does():
    command = "import sys; from tansaku import Reranker, Searcher; sys.exit('faiss' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_are_one_idea_long(folder: str):
    for path in modules(folder):
        lines = code_lines(path)
        assert lines <= 400 or path.parent.name == "kernels", f"{path.relative_to(ROOT)} has {lines} lines of code"


def test_packages_are_marked_as_typed():
    for folder in (*FOLDERS, FACE.relative_to(ROOT)):
        assert (ROOT / folder / "py.typed").exists()
