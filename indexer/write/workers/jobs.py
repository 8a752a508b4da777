"""What workers are asked to do with the chunks of a unit. A job is sent to each worker once, the model before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ....onnx_export.encode.encoder import Encoder
from ...codec.codec import ResidualCodec
from ...table.fragments import FragmentPlace, write_fragments
from ...table.schema import IndexHeader, document_schema
from ..rows import RowMaker, Unread
from ..units import Chunk, compress_chunk


@dataclass
class ChunkVectors:
    """The token vectors of a chunk.

    Attributes:
        vectors: float32 (tokens, dim), of each document of `Chunk.fresh`.
        truncated: whether its text was cut.
        unread: those with text that the model cannot read.
    """

    vectors: list[np.ndarray]
    truncated: list[bool]
    unread: Unread


@dataclass
class UnitRows:
    """What has become of the chunks of a unit.

    Attributes:
        reports: the report on each chunk.
        unread: those with text that the model cannot read.
        rows: the rows of each chunk; none if they are in fragments.
        fragments: Lance's metadata of the fragments, as JSON; None if the rows come back.
    """

    reports: list[dict]
    unread: Unread = field(default_factory=Unread)
    rows: list[pa.RecordBatch] = field(default_factory=list)
    fragments: list[str] | None = None


@dataclass(frozen=True)
class VectorsJob:
    """Encode texts."""

    name = "encode sample"

    def run(self, encoder: Encoder | None, chunks: Sequence[Chunk]) -> list[ChunkVectors]:
        """Encode the chunks of a unit."""
        return [_vectors(encoder, chunk) for chunk in chunks]


@dataclass(frozen=True)
class RowsJob:
    """Make rows.

    Attributes:
        header: the table's header.
        fields: the caller's columns.
        write_id: the id of the write.
        codec: compresses the vectors.
        place: where the rows are written as a fragment; None: they come back.
    """

    header: IndexHeader
    fields: list[pa.Field]
    write_id: int
    codec: ResidualCodec
    place: FragmentPlace | None

    name = "encode rows"

    def run(self, encoder: Encoder | None, chunks: Sequence[Chunk]) -> UnitRows:
        """Make the rows of a unit. For a fragment, those of one chunk are in memory at a time."""
        maker = RowMaker(encoder, self.header, self.fields, self.write_id)
        made = UnitRows([], maker.unread)

        def batches() -> Iterator[pa.RecordBatch]:
            for chunk in chunks:
                fresh = chunk.fresh
                vectors, truncated = maker.vectors(fresh) if fresh else ([], [])
                done = compress_chunk(chunk, vectors, truncated, maker, self.codec)
                made.reports.append(done.report)
                yield done.rows

        if self.place is None:
            made.rows = list(batches())
        else:
            made.fragments = write_fragments(self.place, document_schema(self.fields, self.header), batches())
        return made


@dataclass(frozen=True)
class ProbeJob:
    """Encode texts for nothing: to see whether one of them ends the process."""

    name = "find the document that ends its worker"

    def run(self, encoder: Encoder | None, chunks: Sequence[Chunk]) -> None:
        """Encode the chunks of a unit."""
        for chunk in chunks:
            _vectors(encoder, chunk)


def _vectors(encoder: Encoder | None, chunk: Chunk) -> ChunkVectors:
    maker = RowMaker(encoder, IndexHeader("", "", "", 0), [], 0)
    vectors, truncated = maker.vectors(chunk.fresh)
    return ChunkVectors(vectors, truncated, maker.unread)


Job = VectorsJob | RowsJob | ProbeJob
