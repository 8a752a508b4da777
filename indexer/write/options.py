"""How a write goes about its work."""

from __future__ import annotations

from dataclasses import dataclass

from ...onnx_export.progress import Progress, no_progress
from ..read.documents import FieldNames
from ..read.rejects import Rejects


@dataclass(frozen=True)
class WriteOptions:
    """How documents are read and what happens when something goes wrong.

    Attributes:
        names: which fields are id, text and title.
        rejects: takes records that cannot be indexed; None stops at the first.
        resume: take up what an interrupted call has left; False gives it up.
        progress: called as the work goes on.
    """

    names: FieldNames | None = None
    rejects: Rejects | None = None
    resume: bool = True
    progress: Progress = no_progress
