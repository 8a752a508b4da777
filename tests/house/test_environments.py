"""Each extra alone, all lower bounds together, and each Python: installed from the wheel, and run in bare surroundings.

Commands run without a home folder and without a network, and can write to no folder but their own. The packages come
from uv's cache or from the registry; with neither, these tests are skipped.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ..support.environment import bare_environment
from ..support.fakes import SUPPORT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# `dev` and `docs` are for us; base-model asks for a package on no public registry.
EXTRAS = sorted(PROJECT["optional-dependencies"].keys() - {"dev", "docs", "base-model"})
WITH_TORCH = {"export", "mteb", "pylate", "train"}  # gigabytes each
LIGHT = [extra for extra in EXTRAS if extra not in WITH_TORCH]
THIS = f"{sys.version_info[0]}.{sys.version_info[1]}"
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
# Everything is read-only but the folder $0, and only the loopback network is there.
BARE = (
    'mount --make-rprivate / && mount --bind "$0" "$0" && mount -o remount,ro,bind / && mount -o remount,rw,bind "$0" '
    '&& cd "$0" && ip link set lo up && exec "$@"'
)


@functools.cache
def uv() -> str:
    """The program uv, if it can install something."""
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("uv is not installed")
    tried = install_with(found, "pip", "install", "--dry-run", "--python", sys.executable, "lazy-loader")
    if tried.returncode:
        pytest.skip(f"uv cannot reach a registry: {tried.stderr[-200:]}")
    return found


def install_with(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run uv with the wheels that pip would find on this machine."""
    environment = dict(os.environ)
    environment.pop("VIRTUAL_ENV", None)
    if "PIP_FIND_LINKS" in environment:
        environment.setdefault("UV_FIND_LINKS", environment["PIP_FIND_LINKS"])  # for `build` and `compile`
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, env=environment)


def links(wheels: Path) -> list[str]:
    """Options of uv for the wheels made here, and for those that pip would find on this machine."""
    return [f"--find-links={place}" for place in (wheels, *os.environ.get("PIP_FIND_LINKS", "").split())]


def run_uv(*arguments: str | Path) -> str:
    done = install_with(uv(), *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def bare() -> tuple[str, ...]:
    """What to put before a folder and a command, to run it where only the folder can be written to."""
    for flags in ("-nm", "-rnm"):
        prefix = ("unshare", flags, "sh", "-c", BARE)
        with contextlib.suppress(OSError):
            if not subprocess.run(
                [*prefix, Path(__file__).parent, "true"], capture_output=True, check=False
            ).returncode:
                return prefix
    return ("sh", "-c", 'cd "$0" && exec "$@"')


@functools.cache
def interpreter(version: str) -> str:
    """A Python of this version on this machine; none is fetched."""
    if version == THIS:
        return sys.executable
    pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
    for candidate in (*pyenv, f"python{version}"):
        shown = f"import sys; sys.exit(sys.version_info[:2] != ({version.replace('.', ', ')}))"
        if shutil.which(candidate) and not subprocess.run([candidate, "-c", shown], check=False).returncode:
            return str(candidate)
    pytest.skip(f"there is no Python {version} on this machine")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for folder in ("onnx_export", "indexer", "plugin", "training"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run_uv("build", "--wheel", "--quiet", "--out-dir", out, source)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """A folder with a wheel of unidic-lite: there is only its source, and uv would unpack it for each environment."""
    uv()
    out = tmp_path_factory.mktemp("wheels")
    command = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), "unidic-lite")
    subprocess.run(command, capture_output=True, text=True, check=True)
    # Torch as it is here, which may be one without CUDA: the newest of the registry brings 5 GB of libraries along.
    torch = f"torch=={version('torch')}"
    tried = install_with(
        uv(), "pip", "install", "--dry-run", "--no-deps", *links(out), "--target", str(out / "t"), torch
    )
    (out / "torch.txt").write_text("" if tried.returncode else f"{torch}\n", encoding="utf-8")
    return out


@pytest.fixture
def environment(tmp_path, wheels):
    """Makes a virtual environment: ``environment(python, *arguments of "uv pip install")`` returns its Python."""
    place = tmp_path / "environment"

    def make(python: str, *arguments: str | Path) -> Path:
        run_uv("venv", "--quiet", "--python", python, place)
        for step in " ".join(map(str, arguments)).split(" then "):
            here = ["--python", place / "bin" / "python", *links(wheels)]
            if "pylate" not in step:  # which asks for an older torch
                here += ["--constraint", wheels / "torch.txt"]
            run_uv("pip", "install", "--quiet", *here, *step.split())
        return place / "bin" / "python"

    yield make
    shutil.rmtree(place, ignore_errors=True)


def try_extras(python: Path, folder: Path, *extras: str) -> None:
    """Run what `tests/support/extras.py` has for each extra, without home, network and anything to write to."""
    work = folder / "work"
    work.mkdir()
    shutil.copy(SUPPORT / "extras.py", work)
    if "export" in extras:
        from ..support.checkpoints import pylate

        # A Japanese BERT's tokenizer would need the extra `japanese` as well.
        pylate(work / "checkpoint", tokenizer="bert")
    if "unigram" in extras:
        from ..support import backbones

        backbones.make(work / "checkpoint", "xlm-roberta", "unigram")
    # Haystack's usage data need a home folder to be imported at all; docs/how-to/haystack.md says so.
    given = bare_environment(HOME="/nonexistent", PYTHONWARNINGS="ignore", HAYSTACK_TELEMETRY_ENABLED="False")
    given.pop("PYTHONPATH", None)
    if extras != ("base",):  # which also runs without a cache folder; the others need not compile the loops each time
        given["TANSAKU_CACHE_DIR"] = str(work / "cache")
    given["MTEB_CACHE"] = str(work / "mteb")  # MTEB makes it when imported; docs/how-to/evaluation.md says so
    command = [*bare(), str(work), str(python), "extras.py", *extras]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def with_extras(wheel: Path, *extras: str) -> str:
    return f"tansaku[{','.join(extras)}]@file://{wheel}"


def test_without_any_extra(wheel, environment, tmp_path):
    try_extras(environment(sys.executable, with_extras(wheel)), tmp_path, "base")


def test_uninstalling_leaves_nothing(wheel, environment):
    python = environment(sys.executable, wheel, "pip")
    for command in (("-m", "tansaku", "--help"), ("-m", "pip", "uninstall", "--quiet", "--yes", "tansaku")):
        subprocess.run([python, *command], check=True, stdout=subprocess.DEVNULL)
    assert not [path for path in python.parents[1].rglob("*tansaku*") if path.parent.name != "cache"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_one_extra_alone(wheel, environment, tmp_path, extra):
    try_extras(environment(sys.executable, with_extras(wheel, extra)), tmp_path, extra)


@pytest.mark.parametrize(
    "version", [version for version in PYTHONS if version != f"{sys.version_info[0]}.{sys.version_info[1]}"]
)
def test_every_python(wheel, environment, tmp_path, version):
    try_extras(environment(interpreter(version), with_extras(wheel, *LIGHT)), tmp_path, *LIGHT)


def test_all_lower_bounds(wheel, environment, tmp_path):
    """On the oldest Python there is: releases of that time have no wheels for the newest one."""
    python = next(found for version in PYTHONS if (found := found_or_none(version)))
    oldest = tmp_path / "oldest.txt"
    extras = [argument for extra in LIGHT for argument in ("--extra", extra)]
    arguments = ("--resolution", "lowest-direct", "--python", python, "--no-header", "--no-annotate", "-o", oldest)
    run_uv("pip", "compile", "--quiet", *extras, *arguments, ROOT / "pyproject.toml")
    made = environment(python, "-r", oldest, "then", "--no-deps", wheel)
    try_extras(made, tmp_path, *LIGHT)


@pytest.mark.parametrize("transformers", ["==5.0.0", ">=5"])
def test_token_ids_at_both_ends_of_the_range_of_transformers(wheel, environment, tmp_path, transformers):
    """Some releases in between change a Unigram tokenizer when they read it; that is refused, see test_load.py."""
    made = environment(sys.executable, with_extras(wheel, "export"), f"transformers{transformers}")
    try_extras(made, tmp_path, "unigram")


def found_or_none(version: str) -> str | None:
    try:
        return interpreter(version)
    except pytest.skip.Exception:
        return None
