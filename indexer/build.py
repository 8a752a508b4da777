"""The stages of indexing: scan the documents, sample them, train the codec, encode and compress row by row."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa

from ..onnx_export import Encoder, InputError
from .codec import ResidualCodec, default_centroids
from .columns import ColumnTypes, field_array
from .documents import Document
from .table import document_schema

# Called with the stage ("read", "sample" or "encode"), how much is done, and of how much (0: not known).
Progress = Callable[[str, int, int], None]

_CHUNK = 512  # documents encoded together and written as one record batch
_SAMPLE_DOCUMENTS = 20_000
_SAMPLE_VECTORS = 1_000_000  # 512 MB at 128 dimensions
_SEED = 20240729


@dataclass
class BuildReport:
    """What was indexed.

    Attributes:
        documents: documents written.
        tokens: token vectors written.
        truncated: documents cut because they were longer than the model reads.
    """

    documents: int = 0
    tokens: int = 0
    truncated: int = 0


@dataclass
class Scan:
    """What a first pass over the documents found.

    Attributes:
        count: documents.
        characters: in all encoded texts together.
        fields: the caller's columns.
        sample: position and document of a uniform sample, in random order.
    """

    count: int = 0
    characters: int = 0
    fields: list[pa.Field] = field(default_factory=list)
    sample: list[tuple[int, Document]] = field(default_factory=list)


def scan(documents: Iterable[Document], progress: Progress) -> Scan:
    """Read all documents once: check them, count them, find their columns and draw a sample.

    Raises InputError where `DocumentReader` does, and if there is no document at all.
    """
    result = Scan()
    types = ColumnTypes()
    draw = random.Random(_SEED)  # noqa: S311
    for chunk in chunks(documents):
        types.update(chunk)
        for document in chunk:
            entry = (result.count, document)
            if len(result.sample) < _SAMPLE_DOCUMENTS:
                result.sample.append(entry)
            elif (slot := draw.randrange(result.count + 1)) < _SAMPLE_DOCUMENTS:
                result.sample[slot] = entry
            result.count += 1
            result.characters += len(document.encoded_text)
        progress("read", result.count, 0)
    if result.count == 0:
        raise InputError("there are no documents to index")
    draw.shuffle(result.sample)
    result.fields = types.fields()
    return result


def train_codec(
    found: Scan, encoder: Encoder, nbits: int, progress: Progress
) -> tuple[ResidualCodec, dict[int, np.ndarray]]:
    """Train a codec on the sample.

    Returns the codec and the sampled documents' vectors by position, so that they need no second encoding.
    """
    vectors: dict[int, np.ndarray] = {}
    n_vectors = n_characters = n_documents = 0
    for start in range(0, len(found.sample), _CHUNK):
        part = found.sample[start : start + _CHUNK]
        encoded = encoder.encode_documents([document.encoded_text for _, document in part])
        for (position, document), matrix in zip(part, encoded, strict=True):
            vectors[position] = matrix
            n_vectors += len(matrix)
            n_characters += len(document.encoded_text)
        n_documents += len(part)
        enough = n_documents * _SAMPLE_VECTORS // n_vectors
        progress("sample", n_documents, max(n_documents, min(enough, len(found.sample))))
        if n_vectors >= _SAMPLE_VECTORS:
            break
    expected_tokens = n_vectors * found.characters // n_characters
    n_centroids = default_centroids(expected_tokens)
    sample = np.concatenate(list(vectors.values()))
    return ResidualCodec.train(sample, nbits=nbits, n_centroids=n_centroids), vectors


def encode_rows(
    documents: Iterable[Document],
    encoder: Encoder,
    codec: ResidualCodec,
    fields: list[pa.Field],
    report: BuildReport,
    progress: Callable[[int], None],
    known: dict[int, np.ndarray] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Encode and compress documents into rows of the table, filling ``report`` on the way.

    ``known`` holds vectors that are encoded already, by position; they are taken out of it as they are used.
    """
    known = {} if known is None else known
    schema = document_schema(fields)
    for chunk in chunks(documents):
        vectors = _encode_chunk(chunk, encoder, report, known)
        yield _as_rows(chunk, vectors, codec, schema, fields)
        progress(report.documents)


def chunks(documents: Iterable[Document], size: int = _CHUNK) -> Iterator[list[Document]]:
    """``documents`` in lists of ``size``; the last may be shorter."""
    remaining = iter(documents)
    while chunk := list(islice(remaining, size)):
        yield chunk


def _encode_chunk(
    chunk: Sequence[Document], encoder: Encoder, report: BuildReport, known: dict[int, np.ndarray]
) -> list[np.ndarray]:
    positions = range(report.documents, report.documents + len(chunk))
    tokenized = encoder.tokenize_documents([document.encoded_text for document in chunk])
    fresh = [text for position, text in zip(positions, tokenized, strict=True) if position not in known]
    encoded = iter(encoder.encode_tokens(fresh))
    vectors = [known.pop(position) if position in known else next(encoded) for position in positions]
    report.documents += len(chunk)
    report.tokens += sum(map(len, vectors))
    report.truncated += sum(text.truncated for text in tokenized)
    return vectors


def _as_rows(
    chunk: Sequence[Document],
    vectors: Sequence[np.ndarray],
    codec: ResidualCodec,
    schema: pa.Schema,
    fields: list[pa.Field],
) -> pa.RecordBatch:
    centroid_ids, residuals = codec.encode(np.concatenate(vectors))
    lengths = np.array([len(matrix) for matrix in vectors])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pa.record_batch(
        [
            pa.array([document.id for document in chunk]),
            pa.array([document.title for document in chunk]),
            pa.array([document.text for document in chunk]),
            *(field_array(chunk, column) for column in fields),
            pa.array(lengths.astype(np.int32)),
            _binary(centroid_ids, offsets * codec.id_dtype.itemsize),
            _binary(residuals, offsets * codec.residual_bytes),
        ],
        schema=schema,
    )


def _binary(data: np.ndarray, offsets: np.ndarray) -> pa.Array:
    buffers = [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
