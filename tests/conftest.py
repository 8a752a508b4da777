"""Fixtures that several files share: the default encoder and an index of the sample corpus."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest

from tansaku import Encoder, Index, Rejects, Source
from tansaku.plugin.cli.demo import SAMPLE

from .support.fakes import MOUNT


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes in databases that are no local folder keep what goes with them here, not in the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platformdirs, "user_cache_dir", lambda name: str(folder / name))
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
