"""`Settings`: the options of the service."""

from __future__ import annotations

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
_SECRET = ("token", "storage_options")


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
        max_ids: Largest number of ids that a search is restricted to.
        max_text_chars: Largest number of characters of a text. Longer texts are cut there, and the answer says so.
        max_query_chars: Largest number of characters of a query. Longer queries are refused.
        max_where_chars: Largest number of characters of a condition. Longer conditions are refused.
        concurrency: Number of requests worked on at a time; None takes one per usable core.
        queue: Number of requests that may wait. More are refused with 429.
        deadline_seconds: Time limit of a request, after which it is answered with 408, 503 or 504.
        refresh_seconds: Seconds between looks for new versions of the indexes; 0 means never.
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
    max_ids: _Count = 10_000
    max_text_chars: _Count = 8192
    max_query_chars: _Count = 4096
    max_where_chars: _Count = 4000
    concurrency: _Count | None = None
    queue: Annotated[int, Field(ge=0)] = 64
    deadline_seconds: Annotated[float, Field(gt=0)] = 30.0
    refresh_seconds: Annotated[float, Field(ge=0)] = 5.0
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
