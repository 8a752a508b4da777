"""Fixtures that several files share: the default encoder and an index of the sample corpus."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tansaku import Encoder, Index, Rejects, Source
from tansaku.plugin.cli.demo import SAMPLE

from .support.environment import CACHE, COMPILED, use_cache
from .support.fakes import MOUNT

os.environ["TANSAKU_CACHE_DIR"] = str(CACHE)
# Compiles the loops of a search: that takes 20 seconds, and each worker would do it for itself.
COMPILE = """
import tempfile
from tansaku import Index, Searcher
documents = [{"id": str(i), "text": "京都は都だった。" * i} for i in range(1, 30)]
with tempfile.TemporaryDirectory() as folder:
    Index.create(folder, "t", documents)
    Searcher.open(folder, "t").search("都", candidates=5)
"""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before the workers start, which is after this."""
    starts_workers = getattr(session.config.option, "numprocesses", None) and not hasattr(session.config, "workerinput")
    if starts_workers and not any(COMPILED.glob("*.loop")):
        subprocess.run([sys.executable, "-c", COMPILE], check=True)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file that is left out as a whole is not even imported: torch and the frameworks take seconds."""
    if collection_path.suffix == ".py":
        of_file = re.search(
            r"^pytestmark = pytest\.mark\.(\w+)$", collection_path.read_text(encoding="utf-8"), re.MULTILINE
        )
        if of_file and f"not {of_file[1]}" in config.option.markexpr:
            return True
    return None


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes in databases that are no local folder keep what goes with them here; compiled loops stay."""
    with pytest.MonkeyPatch.context() as patch:
        use_cache(patch, tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture
def rejects(tmp_path: Path) -> Iterator[Rejects]:
    with Rejects(tmp_path / "rejects.jsonl") as opened:
        yield opened


@pytest.fixture(scope="session")
def default_encoder() -> Encoder:
    return Encoder.load(threads=2)


@pytest.fixture(scope="session")
def sample_db(default_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the sample corpus in table ``sample``; not to be changed."""
    folder = tmp_path_factory.mktemp("sample_db")
    Index.create(folder, "sample", Source(SAMPLE / "corpus.jsonl"), encoder=default_encoder)
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB of its own: its folder, and a way to fill it, or to make it read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = MOUNT and subprocess.run(
        [MOUNT, "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["/bin/sh", "-c", 'umount -l "$0"', str(folder)], check=True)
