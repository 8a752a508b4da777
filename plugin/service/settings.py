"""What `tansaku serve` can be told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...indexer.table.database import Database
from ...onnx_export.encode.bundle import check_weight
from ...onnx_export.errors import InputError
from ..search.scores import ScoreMode, check_mode


@dataclass(frozen=True)
class Settings:
    """Settings of the service.

    Attributes:
        indexes: name → database and table, of each index served; the first is the one meant where none is named.
        model: an encoder bundle's folder; None is the one that ships inside.
        threads: threads of one encoding; None is as many as this process may use cores.
        score: what a score means where a request does not say; see `Reranker.rerank`.
        phrase_weight: likewise; see `SearchOptions`. None is what the model says.
        token: what clients must send as ``Authorization: Bearer``; None asks for nothing.
        max_body_bytes: of one request.
        max_documents: documents of one rerank request.
        max_embed_texts: texts of one embedding request; each becomes a matrix of up to 512 by 128 numbers.
        max_k: hits of one search.
        max_ids: ids that one search is restricted to.
        max_text_chars: a longer text is cut there, and the answer says so.
        max_query_chars: a longer query is refused.
        max_where_chars: a longer condition is refused.
        concurrency: requests at work at a time; None is as many as this process may use cores.
        queue: requests that may wait beyond those; further ones are refused with 429.
        deadline_seconds: a request that takes longer is answered 408, 503 or 504.
        refresh_seconds: how often later versions of the indexes are looked for; 0 is never.
        log_text: also log queries and the messages of unexpected errors, which may hold users' text.
        storage_options: of the object store that the indexes lie in, as LanceDB names them.

    Raises InputError for a number that cannot be.
    """

    indexes: Mapping[str, tuple[Database, str]] = field(default_factory=dict)
    model: Path | None = None
    threads: int | None = None
    score: ScoreMode = "mean"
    phrase_weight: float | None = None
    token: str | None = field(default=None, repr=False)
    max_body_bytes: int = 8 << 20
    max_documents: int = 1000
    max_embed_texts: int = 32
    max_k: int = 1000
    max_ids: int = 10_000
    max_text_chars: int = 8192
    max_query_chars: int = 4096
    max_where_chars: int = 4000
    concurrency: int | None = None
    queue: int = 64
    deadline_seconds: float = 30.0
    refresh_seconds: float = 5.0
    log_text: bool = False
    storage_options: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("threads", "concurrency"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be 1 or more")
        for name in (
            *("max_body_bytes", "max_documents", "max_embed_texts", "max_k", "max_ids"),
            *("max_text_chars", "max_query_chars", "max_where_chars"),
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("queue", "refresh_seconds"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not self.deadline_seconds > 0:
            raise InputError(f"deadline_seconds is {self.deadline_seconds}; it must be more than 0")
        check_mode(self.score)
        check_weight("phrase_weight", self.phrase_weight or 0.0)
        if self.token is not None and not self.token.strip():
            raise InputError("the token is empty; give one, or leave it out to ask for none")

    @property
    def slots(self) -> int:
        """Requests at work at a time."""
        return self.concurrency or usable_cores()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
