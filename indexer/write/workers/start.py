"""Start the workers that the caller wants."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

from lancedb.db import DBConnection

from ....onnx_export.encode.encoder import Encoder
from .choice import OnProcesses, OnRay
from .pool import Pool
from .processes import ProcessPool, default_processes


def pool_of(
    workers: OnProcesses | OnRay | None, encoder: Encoder | None, dim: int, database: DBConnection
) -> AbstractContextManager[Pool | None]:
    """The workers, as a context manager: one of them is started and checked before any work begins.

    Args:
        workers: where documents are encoded; None: in this process.
        encoder: the model; None: the documents have vectors.
        dim: length of a token vector.
        database: where the rows are written.

    Returns:
        The workers; None for this process.

    Raises:
        InputError: other processes cannot load the model or open the database.
        MissingExtraError: the extra ``ray`` is not installed.
    """
    if workers is None:
        return contextlib.nullcontext()
    if isinstance(workers, OnProcesses):
        return ProcessPool(encoder, dim, workers.processes or default_processes())
    from .on_ray import RayPool

    return RayPool(encoder, dim, database, workers)
