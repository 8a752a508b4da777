"""The wheel and the sdist: built without a warning, with all that is needed and every licence, and nothing else."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("onnx_export", "indexer", "plugin", "training")
LICENCES = ("LICENSE", "onnx_export/default_bundle/README.md", "plugin/sample/README.md")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist, made of a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "warning" not in said.lower(), said
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_both_pass_the_check_of_the_index(built: tuple[Path, Path]):
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_wheel_has_every_module_the_model_and_the_sample(built: tuple[Path, Path]):
    names = set(zipfile.ZipFile(built[0]).namelist())
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".pyi", ".toml", ".onnx", ".json", ".jsonl", ".tsv"}:
                place = "tansaku/" + str(path.relative_to(ROOT)).removeprefix("plugin/public/")
                assert place in names, f"{place} is not in the wheel"
    assert {name.split("/")[0].split("-")[0] for name in names} == {"tansaku"}


def test_both_have_every_licence(built: tuple[Path, Path]):
    wheel, sdist = built
    in_wheel = zipfile.ZipFile(wheel).namelist()
    with tarfile.open(sdist) as archive:
        in_sdist = archive.getnames()
    for licence in LICENCES:
        assert any(name.endswith(f".dist-info/licenses/{licence}") for name in in_wheel), licence
        assert any(name.split("/", 1)[-1] == licence for name in in_sdist), licence
    metadata = next(name for name in in_wheel if name.endswith(".dist-info/METADATA"))
    described = email.message_from_bytes(zipfile.ZipFile(wheel).read(metadata))
    assert described["License-Expression"] == "MIT AND CC-BY-SA-4.0"
    assert described.get_all("License-File") == list(LICENCES)
