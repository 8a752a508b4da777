"""`Settings`: the options of the service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from ...indexer.table.database import Database
from ...onnx_export.cores import usable_cores
from ...onnx_export.encode.bundle import MAX_WEIGHT
from ...onnx_export.errors import InputError
from ..search.choices import ScoreMode
from ..serving.access import check_token

_Count = Annotated[int, Field(ge=1)]
_SECRET = ("token", "write_token", "storage_options")


def _check_origin(origin: str) -> str:
    """The address of a web page as browsers send it."""
    if origin != "*" and not re.fullmatch(r"https?://[^\s/?#@]+", origin):
        raise ValueError("give scheme, host and port alone, such as https://example.org")
    return origin


@dataclass(frozen=True)
class Settings:
    """Settings of the service.

    Args:
        indexes: Name → database and table of each index that is served. The first one is the default.
        model: Folder of an encoder bundle; None takes the model inside tansaku.
        threads: Number of threads of one encoding; None takes one per usable core.
        score: Scale of the scores, unless a request names another; see `Reranker.rerank`.
        phrase_weight: Weight given to the similarity of neighbouring tokens (0 = plain MaxSim), unless a request gives
            another; None takes the model's.
        token: Token that clients must send as ``Authorization: Bearer``; None asks for none.
        max_body_bytes: Largest size of a request's body, in bytes.
        max_documents: Largest number of documents in a rerank request.
        max_embed_texts: Largest number of texts in an embedding request. Each becomes up to 512 vectors.
        max_k: Largest number of hits of a search.
        max_queries: Largest number of queries of a search for many.
        max_ids: Largest number of ids that a search is restricted to.
        max_text_chars: Largest number of characters of a text. Longer texts are cut there, and the answer says so.
        max_query_chars: Largest number of characters of a query. Longer queries are refused.
        max_where_chars: Largest number of characters of a condition. Longer conditions are refused.
        concurrency: Number of requests worked on at a time; None takes one per usable core.
        queue: Number of requests that may wait. More are refused with 429.
        deadline_seconds: Time limit of a request, after which it is answered with 408, 503 or 504.
        refresh_seconds: Seconds between looks for new versions of the indexes; 0 means never.
        database: Database whose indexes are all served, and in which indexes can be made; None serves ``indexes``
            alone.
        write: Whether indexes can be changed over HTTP.
        write_token: Token that clients must send to write; it reads too.
        allow_write_without_token: Whether clients may write without a token; for a service that only this machine
            reaches.
        work_folder: Folder for jobs and uploads; None takes one in the database.
        writers: Number of jobs that are done at a time; an index has one at a time.
        max_jobs: Largest number of jobs that have not ended.
        max_upload_bytes: Largest size of the documents of a job, in bytes.
        max_uploads_bytes: Largest size of all uploads, in bytes.
        max_upload_documents: Largest number of documents of a job.
        upload_idle_seconds: Time after which an upload that gets no part, and that no job has, is removed.
        shards: Number of shards of each index on a Ray cluster; None searches in this process.
        replicas: Number of replicas of each shard.
        shard_cpus: CPUs of the cluster that a replica takes.
        ray_address: Address of the Ray cluster; None takes ``RAY_ADDRESS``, or starts Ray on this machine.
        cors_origins: Web pages of other addresses whose scripts may ask, such as ``https://example.org``; ``*`` is any.
        log_text: Whether messages of unexpected errors, which may hold users' text, are logged.
        storage_options: Options for the object store of the indexes, in LanceDB's names.

    Raises:
        InputError: A value is of the wrong type or out of range. The message names the setting.
    """

    indexes: Mapping[str, tuple[Database, str]] = field(default_factory=dict)
    model: Path | None = None
    threads: _Count | None = None
    score: ScoreMode = "mean"
    phrase_weight: Annotated[float, Field(ge=0, le=MAX_WEIGHT, allow_inf_nan=False)] | None = None
    token: Annotated[str, AfterValidator(check_token)] | None = field(default=None, repr=False)
    max_body_bytes: _Count = 8 << 20
    max_documents: _Count = 1000
    max_embed_texts: _Count = 32
    max_k: _Count = 1000
    max_queries: _Count = 256
    max_ids: _Count = 10_000
    max_text_chars: _Count = 8192
    max_query_chars: _Count = 4096
    max_where_chars: _Count = 4000
    concurrency: _Count | None = None
    queue: Annotated[int, Field(ge=0)] = 64
    deadline_seconds: Annotated[float, Field(gt=0)] = 30.0
    refresh_seconds: Annotated[float, Field(ge=0)] = 5.0
    database: Database | None = None
    write: bool = False
    write_token: Annotated[str, AfterValidator(check_token)] | None = field(default=None, repr=False)
    allow_write_without_token: bool = False
    work_folder: Path | None = None
    writers: _Count = 2
    max_jobs: _Count = 100
    max_upload_bytes: _Count = 1 << 30
    max_uploads_bytes: _Count = 8 << 30
    max_upload_documents: _Count = 1_000_000
    upload_idle_seconds: Annotated[float, Field(gt=0)] = 86_400.0
    shards: _Count | None = None
    replicas: _Count = 1
    shard_cpus: Annotated[float, Field(gt=0)] = 1.0
    ray_address: str | None = None
    cors_origins: tuple[Annotated[str, AfterValidator(_check_origin)], ...] = ()
    log_text: bool = False
    storage_options: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            try:
                _checks()[setting.name].validate_python(value)
            except ValidationError as error:
                shown = "not valid" if setting.name in _SECRET else repr(value)
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise InputError(f"setting {setting.name} is {shown}: {reason}") from None
        self._check_writing()

    def _check_writing(self) -> None:
        """Refuse a service that would let readers write, or that nobody could write to."""
        if not self.write:
            if self.write_token is not None or self.allow_write_without_token:
                raise InputError("a token for writing is given, but writing is off; set write (--write) too")
            return
        if self.write_token is None and not self.allow_write_without_token:
            raise InputError(
                "writing needs a token of its own: set write_token (--write-token or TANSAKU_WRITE_TOKEN), or, where "
                "only this machine reaches the service, allow_write_without_token"
            )
        if self.allow_write_without_token and (self.token is not None or self.write_token is not None):
            raise InputError(
                "allow_write_without_token is for a service without tokens; leave it out, or leave them out"
            )
        if self.write_token is not None and self.token is not None and self.write_token.strip() == self.token.strip():
            raise InputError(
                "the token for writing is that for reading, so that every reader could write; choose another"
            )

    @property
    def slots(self) -> int:
        """Number of requests worked on at a time."""
        return self.concurrency or usable_cores()


@cache
def _checks() -> dict[str, TypeAdapter[Any]]:
    """Setting → what checks its value."""
    config = ConfigDict(arbitrary_types_allowed=True)
    hints = get_type_hints(Settings, include_extras=True)
    return {name: TypeAdapter(hint, config=config) for name, hint in hints.items()}
