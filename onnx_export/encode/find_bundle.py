"""Where the bundles of earlier models are kept, and the search for the one that an index was made with."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from ..errors import BundleError, InputError
from ..files import atomic_folder
from .bundle import Bundle, read_bundle, read_description

ENVIRONMENT = "TANSAKU_MODELS"
DEFAULT_BUNDLE = Path(__file__).resolve().parents[1] / "default_bundle"


def known_bundles() -> Iterator[tuple[Path, Bundle]]:
    """Find the bundles on this machine: the model inside tansaku, then those in the folders of models.

    The folders are those of the environment variable ``TANSAKU_MODELS``, divided as ``PATH`` is. Without it, it is the
    folder ``models`` of tansaku's user data. Each is a bundle or has bundles as subfolders.

    Yields:
        The folder and the description of each bundle. Folders without a readable description are left out.
    """
    for candidate in _candidates():
        try:
            yield candidate, read_description(candidate)
        except (BundleError, OSError):
            continue


def _candidates() -> Iterator[Path]:
    yield DEFAULT_BUNDLE
    for folder in _folders():
        with contextlib.suppress(OSError):  # it may not be read by this user
            if folder.is_dir():
                yield from [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]


def _folders() -> list[Path]:
    given = os.environ.get(ENVIRONMENT)
    try:
        if given is None:
            # Without a home folder some releases of platformdirs raise RuntimeError, and others leave "~" in the path.
            return [platformdirs.user_data_path("tansaku", appauthor=False).expanduser() / "models"]
        return [Path(folder).expanduser() for folder in given.split(os.pathsep) if folder]
    except RuntimeError:
        return []


def find_bundle(fingerprint: str) -> Path | None:
    """Find the bundle that document vectors were made with.

    Args:
        fingerprint: `Bundle.fingerprint`, as an index keeps it.

    Returns:
        The bundle's folder; None if no known bundle has that fingerprint.
    """
    return next((folder for folder, bundle in known_bundles() if bundle.made(fingerprint)), None)


def keep_bundle(target: str | os.PathLike[str]) -> Path:
    """Copy the model inside tansaku to a folder of models, so that its indexes stay searchable after an upgrade.

    Args:
        target: the folder of models; made if it is not there.

    Returns:
        The folder of the copy, named by model and fingerprint.

    Raises:
        InputError: there is something else in its place.
    """
    bundle = read_bundle(DEFAULT_BUNDLE)
    folder = Path(target) / f"{bundle.name}-{bundle.fingerprint}"
    if folder.exists():
        try:
            kept = read_bundle(folder)
        except BundleError as error:
            raise InputError(f"{folder} is there already and is not this model ({error}); remove it") from error
        if kept.fingerprint == bundle.fingerprint:
            return folder
        raise InputError(f"{folder} is there already and is another model; remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as making:
        shutil.copytree(DEFAULT_BUNDLE, making, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return folder
