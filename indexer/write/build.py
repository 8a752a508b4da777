"""The stages between documents and staged rows: sample, train the codec, encode, compress, stage."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ..codec.codec import ResidualCodec, default_centroids
from ..codec.pooling import pool_tokens
from ..errors import SourceError
from ..read.columns import field_array
from ..read.documents import Document
from ..read.scan import CHUNK, Progress, Reject, Scan, chunks, content_bytes
from ..table.codec_table import Fit
from ..table.fulltext import FULLTEXT_FIELD, normalized
from ..table.schema import IndexHeader, build_column, document_schema
from .staging import Staging

_SAMPLE_DOCUMENTS = 20_000
_SAMPLE_VECTORS = 1_000_000  # 512 MB at 128 dimensions
_SEED = 20240729
_CHUNKS_WAITING = 2  # encoded, but not yet compressed and staged

_SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("position", pa.int64()),
        pa.field("centroid_ids", pa.large_binary()),
        pa.field("residuals", pa.large_binary()),
        pa.field("centroid_cosine", pa.float64()),
        pa.field("truncated", pa.bool_()),
    ]
)


@dataclass
class BuildReport:
    """What one call has indexed.

    Attributes:
        documents: rows written: documents, or passages of documents.
        tokens: token vectors written.
        truncated: rows whose text was cut because it is longer than the model reads.
        rejected: records left out; they are in the file for rejects.
        resumed: rows of these that an interrupted call had encoded before.
        updated: rows of these that took the place of older ones.
    """

    documents: int = 0
    tokens: int = 0
    truncated: int = 0
    rejected: int = 0
    resumed: int = 0
    updated: int = 0


class Codes(NamedTuple):
    """One document, compressed: the columns of its row that come from its vectors."""

    centroid_ids: bytes
    residuals: bytes
    centroid_cosine: float
    truncated: bool


@dataclass(frozen=True)
class RowMaker:
    """How documents become rows: everything that all rows of one write have in common.

    Attributes:
        encoder: makes the token vectors; None where all documents have theirs.
        header: of the table.
        fields: the caller's columns.
        write_id: of this write.
    """

    encoder: Encoder | None
    header: IndexHeader
    fields: list[pa.Field]
    write_id: int

    def vectors(self, documents: Sequence[Document]) -> tuple[list[np.ndarray], list[bool]]:
        """Token vectors of each document, and whether its text was cut."""
        given = [document.vectors for document in documents if document.vectors is not None]
        if len(given) == len(documents):
            return given, [False] * len(given)
        assert self.encoder is not None  # noqa: S101
        tokenized = self.encoder.tokenize_documents([document.encoded_text for document in documents])
        return self.encoder.encode_tokens(tokenized), [text.truncated for text in tokenized]

    def rows(self, documents: Sequence[Document], codes: Sequence[Codes], codec: ResidualCodec) -> pa.RecordBatch:
        """Rows of the table."""
        columns: dict[str, Sequence[Any] | pa.Array] = {
            "id": [document.id for document in documents],
            "title": [document.title for document in documents],
            "text": [document.text for document in documents],
            "parent_id": [document.parent_id for document in documents],
            "passage": [document.passage for document in documents],
        }
        if self.header.fulltext:
            columns[FULLTEXT_FIELD] = [normalized(document.encoded_text) for document in documents]
        # The caller's may be named as those of passages are, where there are none.
        columns |= {column.name: field_array(documents, column) for column in self.fields}
        return self.batch({**columns, **self.code_columns(codes, codec)})

    def code_columns(self, codes: Sequence[Codes], codec: ResidualCodec) -> dict[str, Sequence[Any]]:
        """The columns that come from the rows' codes and the write."""
        return {
            "token_count": [len(code.centroid_ids) // codec.id_dtype.itemsize for code in codes],
            "centroid_ids": [code.centroid_ids for code in codes],
            "residuals": [code.residuals for code in codes],
            "centroid_cosine": [code.centroid_cosine for code in codes],
            "write_id": [self.write_id] * len(codes),
            build_column(self.header): [None] * len(codes),
        }

    def batch(self, columns: Mapping[str, Any]) -> pa.RecordBatch:
        """Rows of the table from columns by name, of which it may not have all."""
        schema = document_schema(self.fields, self.header)
        return pa.record_batch([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def train_codec(
    documents: Iterable[Document],
    found: Scan,
    maker: RowMaker,
    nbits: int,
    staging: Staging,
    reject: Reject,
    progress: Progress,
) -> tuple[ResidualCodec, Fit]:
    """Train a codec on a sample of the documents; it goes into the staging folder, and the sample's codes too.

    Memory: the sample's vectors, at most about a million, and a chunk's more.
    """
    wanted = _sample_positions(found, None if maker.encoder is None else maker.encoder.bundle.document.max_length)
    positions: list[int] = []
    parts: list[np.ndarray] = []
    lengths: list[int] = []
    truncated: list[bool] = []
    size = 0
    done = 0
    scanned = chain.from_iterable(_as_scanned(documents, found))
    for part in chunks(_at_positions(scanned, wanted)):
        encoded, cut = maker.vectors(part)
        usable = _usable(part, encoded, reject)
        pooled = [pool_tokens(encoded[i], maker.header.pool) for i in usable]
        parts += [np.concatenate(pooled)] if pooled else []
        lengths += map(len, pooled)
        positions += [int(wanted[done + i]) for i in usable]
        truncated += [cut[i] for i in usable]
        size += sum(part[i].size for i in usable)
        done += len(part)
        progress("sample", done, len(wanted), sum(lengths))
    if not lengths:
        raise InputError("none of the sampled documents has usable vectors; check the model")
    expected_tokens = sum(lengths) * found.size // size
    sample = _joined(parts)
    codec = ResidualCodec.train(sample, nbits=nbits, n_centroids=default_centroids(expected_tokens))
    vectors = np.split(sample, np.cumsum(lengths)[:-1])
    codes: list[Codes] = []
    for start in range(0, len(vectors), CHUNK):
        codes += compress(vectors[start : start + CHUNK], truncated[start : start + CHUNK], codec)
    cosines = [code.centroid_cosine for code in codes]
    fit = Fit(float(np.average(cosines, weights=lengths)), float(np.quantile(cosines, 0.05)))
    columns = [pa.array(a, f.type) for a, f in zip([positions, *zip(*codes, strict=True)], _SAMPLE_SCHEMA, strict=True)]
    staging.save_codec(codec, fit, pa.table(columns, schema=_SAMPLE_SCHEMA))
    return codec, fit


def stage_rows(
    documents: Iterable[Document],
    found: Scan,
    maker: RowMaker,
    codec: ResidualCodec,
    staging: Staging,
    reject: Reject,
    progress: Progress,
    sample: pa.Table | None = None,
) -> BuildReport:
    """Encode, compress and stage all documents that are not staged yet; one chunk is encoded while others are staged.

    ``sample`` holds the codes of documents that were encoded already, as `Staging.load_sample` returns them. Raises
    SourceError if the documents are not those that were scanned.
    """
    report = BuildReport()
    known = KnownCodes(sample)
    done = 0
    waiting: deque[Future[dict]] = deque()

    def collect(limit: int) -> None:
        nonlocal done
        while len(waiting) > limit:
            _add(report, waiting.popleft().result())
            done += 1
            progress("encode", min(done * CHUNK, found.count), found.count, report.tokens)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tansaku-stage") as stager:
        for number, chunk in enumerate(_as_scanned(documents, found)):
            earlier = staging.chunk_report(number)
            if earlier is None:
                fresh = [d for position, d in enumerate(chunk, number * CHUNK) if position not in known]
                vectors, truncated = maker.vectors(fresh) if fresh else ([], [])
                job = _StageJob(number, chunk, fresh, vectors, truncated, known, maker, codec, staging, reject)
                waiting.append(stager.submit(job.run))
            else:
                reasons = dict(earlier["rejected"])
                for document in chunk:
                    if document.place in reasons:
                        reject(document, InputError(reasons[document.place]))
                report.resumed += earlier["documents"]
                waiting.append(stager.submit(lambda earlier=earlier: earlier))
            collect(_CHUNKS_WAITING - 1)
        collect(0)
    return report


def compress_usable(
    documents: Sequence[Document],
    vectors: Sequence[np.ndarray],
    truncated: Sequence[bool],
    maker: RowMaker,
    codec: ResidualCodec,
    reject: Reject,
) -> dict[str, Codes]:
    """Check, pool and compress the vectors of documents; codes by id, of those that ``reject`` was not called for."""
    usable = _usable(documents, vectors, reject)
    pooled = [pool_tokens(vectors[i], maker.header.pool) for i in usable]
    codes = compress(pooled, [truncated[i] for i in usable], codec)
    return {documents[i].id: code for i, code in zip(usable, codes, strict=True)}


def compress(vectors: Sequence[np.ndarray], truncated: Sequence[bool], codec: ResidualCodec) -> list[Codes]:
    """The codes of documents given by their token vectors, float32 (tokens, dim) each."""
    if not vectors:
        return []
    joined = np.concatenate(vectors)
    ids, similarities = codec.nearest(joined)
    residuals = codec.quantize(joined, ids)
    ends = np.cumsum([len(matrix) for matrix in vectors])
    return [
        Codes(ids[s:e].tobytes(), residuals[s:e].tobytes(), float(similarities[s:e].mean()), bool(cut))
        for s, e, cut in zip([0, *ends[:-1]], ends, truncated, strict=True)
    ]


def _usable(documents: Sequence[Document], vectors: Sequence[np.ndarray], reject: Reject) -> list[int]:
    """Which documents have vectors that a codec can hold; ``reject`` is told of the others."""
    usable = []
    for i, (document, matrix) in enumerate(zip(documents, vectors, strict=True)):
        if not len(matrix):
            problem = "no vectors"
        elif not np.isfinite(matrix).all():
            problem = "vectors that are not finite"
        elif (np.abs(np.linalg.norm(matrix, axis=1) - 1) > 0.01).any():
            problem = "vectors that are not of unit length"
        else:
            usable.append(i)
            continue
        reject(document, InputError(f"{document.place}: document {document.id!r} has {problem}"))
    return usable


@dataclass
class _StageJob:
    """What is left to do for one chunk once its vectors are there."""

    number: int
    chunk: list[Document]
    fresh: list[Document]
    vectors: list[np.ndarray]
    truncated: list[bool]
    known: KnownCodes
    maker: RowMaker
    codec: ResidualCodec
    staging: Staging
    reject: Reject

    def run(self) -> dict:
        rejected: dict[str, str] = {}

        def leave_out(document: Document, error: InputError) -> None:
            self.reject(document, error)
            rejected[document.place] = str(error)

        coded = compress_usable(self.fresh, self.vectors, self.truncated, self.maker, self.codec, leave_out)
        for position, document in enumerate(self.chunk, self.number * CHUNK):
            if position in self.known:
                coded[document.id] = self.known[position]
        # A passage that cannot be used takes the others of its document with it, as far as they are in this chunk.
        kept = [document for document in self.chunk if document.place not in rejected]
        rows = self.maker.rows(kept, [coded[document.id] for document in kept], self.codec)
        report = {
            "documents": len(kept),
            "tokens": sum(rows["token_count"].to_pylist()),
            "truncated": sum(coded[document.id].truncated for document in kept),
            "rejected": list(rejected.items()),
        }
        self.staging.write_chunk(self.number, rows, report)
        return report


class KnownCodes:
    """Codes of sampled documents by position.

    Args:
        sample: as `Staging.load_sample` returns it; None knows nothing.
    """

    def __init__(self, sample: pa.Table | None) -> None:
        self._sample = sample
        positions = [] if sample is None else sample["position"].to_pylist()
        self._rows = {position: row for row, position in enumerate(positions)}

    def __contains__(self, position: int) -> bool:
        return position in self._rows

    def __getitem__(self, position: int) -> Codes:
        assert self._sample is not None  # noqa: S101
        row = self._sample.slice(self._rows[position], 1).to_pylist()[0]
        return Codes(row["centroid_ids"], row["residuals"], row["centroid_cosine"], row["truncated"])


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """``parts`` one after the other; each is given up when it has been copied, so that they are not held twice."""
    whole = np.empty((sum(map(len, parts)), parts[0].shape[1]), np.float32)
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole


def _sample_positions(found: Scan, max_tokens: int | None) -> np.ndarray:
    """Positions of a uniform sample, ascending. A Japanese text rarely has more tokens than characters."""
    tokens = min(max_tokens or np.inf, found.size / found.count + 2)
    size = min(found.count, _SAMPLE_DOCUMENTS, int(_SAMPLE_VECTORS / tokens))
    return np.sort(np.random.default_rng(_SEED).choice(found.count, size, replace=False))


def _as_scanned(documents: Iterable[Document], found: Scan) -> Iterator[list[Document]]:
    """Chunks of ``documents``, which must be those of the scan."""
    digest = hashlib.blake2b(digest_size=16)
    changed = SourceError("the documents have changed since they were first read; nothing was stored, index them again")
    number = -1
    for number, chunk in enumerate(chunks(documents)):
        for document in chunk:
            digest.update(content_bytes(document))
        if number >= len(found.digests) or digest.hexdigest() != found.digests[number]:
            raise changed
        yield chunk
    if number + 1 != len(found.digests):
        raise changed


def _at_positions(documents: Iterable[Document], positions: np.ndarray) -> Iterator[Document]:
    wanted = iter(positions.tolist())
    following = next(wanted, -1)
    for position, document in enumerate(documents):
        if position == following:
            yield document
            following = next(wanted, -1)
            if following < 0:
                return


def _add(report: BuildReport, chunk: dict) -> None:
    report.documents += chunk["documents"]
    report.tokens += chunk["tokens"]
    report.truncated += chunk["truncated"]
