"""The options that all kinds of writes share."""

from __future__ import annotations

from dataclasses import dataclass

from ...onnx_export.progress import Progress, no_progress
from ..read.documents import FieldNames
from ..read.rejects import Rejects
from .workers.choice import OnProcesses, OnRay


@dataclass(frozen=True)
class WriteOptions:
    """How documents are read, and what happens after errors and interruptions.

    Attributes:
        names: names of the fields with id, text and title; None takes the default names.
        rejects: collects records that cannot be indexed; None raises an error for the first of them.
        resume: continue what an interrupted call left; False discards it and starts over.
        progress: called while the work proceeds.
        workers: where documents are encoded; None: in this process.
    """

    names: FieldNames | None = None
    rejects: Rejects | None = None
    resume: bool = True
    progress: Progress = no_progress
    workers: OnProcesses | OnRay | None = None
