"""Table NAME.codec: the codecs of index NAME, one row per `ResidualCodec.codec_id`.

A row is written before the documents that need it and never changed, so an older version of the index finds its codec
too.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
from lancedb.db import DBConnection
from lancedb.expr import col

from ...onnx_export.retry import retrying
from ..codec.codec import ResidualCodec
from ..errors import IndexStateError, NotAnIndexError
from .database import find_table, storage_errors

_UNUSED_FOR = timedelta(days=1)


class MissingCodecError(NotAnIndexError):
    """An index without its codec."""


_SCHEMA = pa.schema(
    [
        pa.field("codec_id", pa.string(), nullable=False),
        pa.field("created", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("dim", pa.int32(), nullable=False),
        pa.field("nbits", pa.int32(), nullable=False),
        pa.field("centroids", pa.large_binary(), nullable=False),  # float16 (n_centroids, dim)
        pa.field("groups", pa.large_binary(), nullable=False),  # int32 (groups + 1,)
        pa.field("codewords", pa.large_binary(), nullable=False),  # float16 (residual_bytes, 256, 8 / nbits)
        pa.field("mean_cosine", pa.float32(), nullable=False),
        pa.field("low_cosine", pa.float32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Fit:
    """How near the documents that a codec was trained on lie to its centroids.

    Attributes:
        mean: mean cosine of token vectors with their centroids.
        low: the fifth percentile of the documents' mean cosines.
    """

    mean: float
    low: float


def codec_table(name: str) -> str:
    """Name of the table that holds the codecs of index ``name``."""
    return f"{name}.codec"


def store_codec(database: DBConnection, name: str, codec: ResidualCodec, fit: Fit) -> None:
    """Store a codec, unless it is there."""
    row = pa.table(
        {
            "codec_id": [codec.codec_id],
            "created": [datetime.now(timezone.utc)],
            "dim": [codec.dim],
            "nbits": [codec.nbits],
            "centroids": [codec.centroids.astype("<f2").tobytes()],
            "groups": [codec.groups.astype("<i4").tobytes()],
            "codewords": [codec.codewords.astype("<f2").tobytes()],
            "mean_cosine": [fit.mean],
            "low_cosine": [fit.low],
        },
        schema=_SCHEMA,
    )
    # Another process may make the table at the same moment, or delete from it.
    for attempt in retrying(IndexStateError, first_pause=0.05):
        with attempt, storage_errors(f"table {codec_table(name)!r}"):
            table = find_table(database, codec_table(name))
            if table is None:
                database.create_table(codec_table(name), row, schema=_SCHEMA)
            elif codec.codec_id not in stored_codecs(database, name):
                table.add(row)


def remove_codec(database: DBConnection, name: str, codec_id: str) -> None:
    """Delete a codec that no table was made with, as far as that is possible."""
    with contextlib.suppress(IndexStateError), storage_errors(f"table {codec_table(name)!r}"):
        table = find_table(database, codec_table(name))
        if table is not None:
            table.delete(col("codec_id") == codec_id)


def load_codec(database: DBConnection, name: str, codec_id: str) -> tuple[ResidualCodec, Fit]:
    """Read a codec.

    Raises MissingCodecError if it is not there.
    """
    table = find_table(database, codec_table(name))
    rows = [] if table is None else table.search().where(col("codec_id") == codec_id).limit(1).to_arrow().to_pylist()
    if not rows:
        raise MissingCodecError(
            f"table {name!r}: its codec {codec_id} is not in table {codec_table(name)!r}; copy both tables together"
        )
    row = rows[0]
    dim, nbits = row["dim"], row["nbits"]
    codec = ResidualCodec(
        np.frombuffer(row["centroids"], "<f2").astype(np.float32).reshape(-1, dim),
        np.frombuffer(row["groups"], "<i4"),
        np.frombuffer(row["codewords"], "<f2").astype(np.float32).reshape(-1, 256, 8 // nbits),
    )
    return codec, Fit(row["mean_cosine"], row["low_cosine"])


def stored_codecs(database: DBConnection, name: str) -> dict[str, datetime]:
    """Ids of the codecs that index ``name`` has stored, and when they were."""
    table = find_table(database, codec_table(name))
    if table is None:
        return {}
    rows = table.search().select(["codec_id", "created"]).to_arrow()
    return dict(zip(rows["codec_id"].to_pylist(), rows["created"].to_pylist(), strict=True))


def prune_codecs(database: DBConnection, name: str, used: set[str]) -> int:
    """Delete codecs that are not in ``used``; returns how many.

    Those stored within a day are kept: a build that is about to point to one writes it first.
    """
    before = datetime.now(timezone.utc) - _UNUSED_FOR
    unused = [key for key, created in stored_codecs(database, name).items() if key not in used and created < before]
    table = find_table(database, codec_table(name))
    if table is None or not unused:
        return 0
    with storage_errors(f"table {codec_table(name)!r}"):
        table.delete(col("codec_id").isin(unused))
    return len(unused)
