"""The table NAME.codec holds the codecs of index NAME, one row for each `ResidualCodec.codec_id`.

A codec is written before the rows that need it, and never changed: older versions of the index find their codec too.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
from lancedb.db import DBConnection
from lancedb.expr import col

from ...onnx_export.retry import retrying
from ..codec.codec import NBITS, ResidualCodec, check_numbers
from ..errors import IndexStateError, NotAnIndexError, StorageError
from .database import find_table, storage_errors

_MAX_DIM = 65_536
_UNUSED_FOR = timedelta(days=1)


class MissingCodecError(NotAnIndexError):
    """The codec of an index is missing."""


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
    """How well a codec fits the rows that it was trained on.

    Attributes:
        mean: mean cosine of token vectors with their centroids.
        low: fifth percentile of the rows' mean cosines.
    """

    mean: float
    low: float


def codec_table(name: str) -> str:
    """The name of the table with the codecs of index ``name``."""
    return f"{name}.codec"


def store_codec(database: DBConnection, name: str, codec: ResidualCodec, fit: Fit) -> None:
    """Store a codec, unless it is already stored.

    Args:
        database: the database of the index.
        name: name of the index's table.
        codec: the codec.
        fit: how well it fits the rows that it was trained on.

    Raises:
        StorageError: the disk or the object store failed.
    """
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
    """Delete a codec that no table uses. Errors are ignored, because an unused codec does no harm.

    Args:
        database: the database of the index.
        name: name of the index's table.
        codec_id: id of the codec.
    """
    with contextlib.suppress(IndexStateError), storage_errors(f"table {codec_table(name)!r}"):
        table = find_table(database, codec_table(name))
        if table is not None:
            table.delete(col("codec_id") == codec_id)


def load_codec(database: DBConnection, name: str, codec_id: str) -> tuple[ResidualCodec, Fit]:
    """Read a codec.

    Args:
        database: the database of the index.
        name: name of the index's table.
        codec_id: id of the codec.

    Returns:
        The codec, and how well it fits the rows that it was trained on.

    Raises:
        MissingCodecError: the codec is not stored.
        StorageError: its row is damaged.
    """
    table = find_table(database, codec_table(name))
    rows = [] if table is None else table.search().where(col("codec_id") == codec_id).limit(1).to_arrow().to_pylist()
    if not rows:
        raise MissingCodecError(
            f"table {name!r}: its codec {codec_id} is not in table {codec_table(name)!r}; copy both tables together"
        )
    try:
        return _decoded(rows[0])
    except (TypeError, ValueError) as error:
        raise StorageError(
            f"table {codec_table(name)!r}: codec {codec_id} is damaged ({error}); restore the table from a copy, or "
            f"index the documents of {name!r} again"
        ) from error


def _decoded(row: dict[str, Any]) -> tuple[ResidualCodec, Fit]:
    """The codec of a row. Raises TypeError or ValueError, naming the column, if it is not as it was written."""
    for name in _SCHEMA.names:
        if row.get(name) is None:
            raise ValueError(f"{name} is missing")
    dim, nbits = row["dim"], row["nbits"]
    if nbits not in NBITS or not 0 < dim <= _MAX_DIM or dim * nbits % 8:
        raise ValueError(f"dim {dim} and nbits {nbits} do not go together")
    centroids = np.frombuffer(row["centroids"], "<f2").astype(np.float32).reshape(-1, dim)
    groups = np.frombuffer(row["groups"], "<i4")
    codewords = np.frombuffer(row["codewords"], "<f2").astype(np.float32).reshape(dim * nbits // 8, 256, 8 // nbits)
    codec = ResidualCodec(centroids, groups, codewords)
    # Its id is a hash of its numbers. The rest holds for a codec that was made to fit its id, too.
    if codec.codec_id != row["codec_id"]:
        raise ValueError("its numbers are not those that its id was made of")
    check_numbers(codec)
    return codec, Fit(row["mean_cosine"], row["low_cosine"])


def stored_codecs(database: DBConnection, name: str) -> dict[str, datetime]:
    """List the codecs of an index.

    Args:
        database: the database of the index.
        name: name of the index's table.

    Returns:
        For each codec id the time at which the codec was stored.
    """
    table = find_table(database, codec_table(name))
    if table is None:
        return {}
    rows = table.search().select(["codec_id", "created"]).to_arrow()
    return dict(zip(rows["codec_id"].to_pylist(), rows["created"].to_pylist(), strict=True))


def prune_codecs(database: DBConnection, name: str, used: set[str]) -> int:
    """Delete unused codecs that were stored more than a day ago. A build stores its codec before it uses it.

    Args:
        database: the database of the index.
        name: name of the index's table.
        used: ids of the codecs to keep.

    Returns:
        The number of codecs deleted.

    Raises:
        StorageError: the disk or the object store failed.
    """
    before = datetime.now(timezone.utc) - _UNUSED_FOR
    unused = [key for key, created in stored_codecs(database, name).items() if key not in used and created < before]
    table = find_table(database, codec_table(name))
    if table is None or not unused:
        return 0
    with storage_errors(f"table {codec_table(name)!r}"):
        table.delete(col("codec_id").isin(unused))
    return len(unused)
