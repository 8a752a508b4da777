"""Whether a store honours conditional writes, on which every commit of LanceDB relies.

LanceDB commits a version by writing its manifest only if there is none of that name (``If-None-Match: *`` on S3). A
store that ignores the condition lets the later of two writers replace the commit of the earlier one, without an error.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pyarrow as pa
from lancedb.db import DBConnection

from ...onnx_export.errors import MissingExtraError
from ..errors import StorageError
from .database import local_folder, location_of, storage_errors

if TYPE_CHECKING:
    import lance


def check_conditional_writes(database: DBConnection) -> None:
    """Commit the same version of a small table twice: the second commit must fail. The table is removed again.

    Args:
        database: the database; one in a local folder needs no test.

    Raises:
        StorageError: the store took both commits; or it cannot be reached, read or written to.
        InputError: the database is no folder and no object store.
        MissingExtraError: pylance is missing (extra ``ray``).
    """
    if local_folder(database) is not None:
        return
    try:
        import lance
    except ImportError as error:
        raise MissingExtraError("pylance", "ray") from error
    uri, options = location_of(database)
    place = urlsplit(uri)
    # Without ".lance" at the end, LanceDB does not list it among the tables.
    trial = place._replace(path=f"{place.path.rstrip('/')}/.tansaku-trial-{secrets.token_hex(8)}").geturl()
    with storage_errors(f"database {uri}"):
        try:
            honoured = _is_second_refused(trial, options)
        finally:
            lance.LanceDataset.drop(trial, dict(options or {}), ignore_not_found=True)
    if not honoured:
        raise StorageError(
            f"database {uri}: the store ignores conditional writes (If-None-Match), so commits of several writers can "
            "be lost; use a store that honours them (AWS S3, Google Cloud Storage, Azure, or a newer release of this "
            "one), or a shared folder"
        )


def _is_second_refused(trial: str, options: Mapping[str, str] | None) -> bool:
    import lance
    from lance.commit import CommitConflictError

    nothing = lance.LanceOperation.Overwrite(pa.schema([pa.field("trial", pa.int32())]), [])

    def commit(read_version: int | None) -> lance.LanceDataset:
        # Without retries, an overwrite does not look for commits of others first: it writes the next version.
        return lance.LanceDataset.commit(
            trial, nothing, read_version=read_version, max_retries=0, storage_options=dict(options or {})
        )

    commit(None)
    commit(1)
    try:
        commit(1)
    except CommitConflictError:
        return True
    return False
