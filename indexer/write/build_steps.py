"""The stages between documents and staged rows: sample, train the codec, encode, compress, stage."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

import numpy as np
import pyarrow as pa

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ..codec.codec import ResidualCodec, default_centroids
from ..codec.codec_file import bundled_codec
from ..codec.pooling import pool_tokens
from ..errors import SourceError
from ..read.documents import Document
from ..read.scan import DOCUMENTS_PER_CHUNK, Progress, Reject, Scan, chunks, content_bytes
from ..table.codec_table import Fit
from ..table.fragments import FragmentPlace, files_there
from .report import IDS_NAMED, BuildReport
from .rows import RowCodes, RowMaker, SampleCodes, compress_vectors, usable_documents
from .staging import Staging
from .units import Chunk, compress_chunk
from .workers.jobs import RowsJob, UnitRows, VectorsJob
from .workers.pool import Pool, Unit

# Counted as characters, which are up to twice as many as tokens: in most corpora 600 MB at 128 dimensions, and 32
# vectors or more for each of the most centroids.
_SAMPLE_VECTORS = 2_100_000
_SAMPLE_ROWS = 400_000
ADAPTED_UP_TO = 262_144  # token vectors of an index up to which the codec in the model's bundle is adapted
_SEED = 20240729
_CHUNKS_WAITING = 2  # encoded, but not yet compressed and staged
_MOST_CHUNKS = 64  # of a fragment

_SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("position", pa.int64()),
        pa.field("centroid_ids", pa.large_binary()),
        pa.field("residuals", pa.large_binary()),
        pa.field("centroid_cosine", pa.float64()),
        pa.field("truncated", pa.bool_()),
    ]
)


def train_codec(
    documents: Iterable[Document],
    found: Scan,
    maker: RowMaker,
    nbits: int,
    staging: Staging,
    reject: Reject,
    progress: Progress,
    model: Encoder | None = None,
    pool: Pool | None = None,
) -> tuple[ResidualCodec, Fit]:
    """Train a codec on a sample of the documents, and store it in the staging folder with the codes of the sample.

    In a small index the codec of the model's bundle is adapted to the sample, if there is one.

    Memory: the vectors of the sample, at most about a million, and those of one chunk. They take as much room in the
    staging folder until the codec is trained.

    Args:
        documents: documents or passages, as they were scanned.
        found: what the scan found.
        maker: makes the token vectors.
        nbits: bits per dimension of a residual.
        staging: the staging folder.
        reject: called for each sampled document whose vectors cannot be used.
        progress: called for each chunk of the sample.
        model: the model that the vectors come from; None: that of ``maker``.
        pool: the workers that encode the sample; None: this process.

    Returns:
        The codec, and how well it fits the sample.

    Raises:
        InputError: no sampled document has usable vectors.
        SourceError: the documents are not those that were scanned.
        WorkerError: the workers cannot be started, or do not come back.
    """
    wanted = _sample_positions(found, None if maker.encoder is None else maker.encoder.bundle.document.max_length)
    positions: list[int] = []
    parts: list[np.ndarray] = []
    lengths: list[int] = []
    truncated: list[bool] = []
    size = 0
    done = 0
    if pool is not None and maker.encoder is not None:
        _encode_sample(documents, found, wanted, maker, staging, reject, progress, pool)
    scanned = chain.from_iterable(as_scanned(documents, found))
    for number, part in enumerate(chunks(_at_positions(scanned, wanted))):
        note = partial(noted, progress, "sample", done, len(wanted), sum(lengths))
        encoded, cut = _sample_vectors(number, part, maker, staging, note)
        usable = usable_documents(part, encoded, reject)
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
    codec = choose_codec(sample, expected_tokens, nbits, model or maker.encoder)
    vectors = np.split(sample, np.cumsum(lengths)[:-1])
    codes: list[RowCodes] = []
    for start in range(0, len(vectors), DOCUMENTS_PER_CHUNK):
        codes += compress_vectors(
            vectors[start : start + DOCUMENTS_PER_CHUNK], truncated[start : start + DOCUMENTS_PER_CHUNK], codec
        )
    cosines = [code.centroid_cosine for code in codes]
    fit = fit_of(cosines, lengths)
    columns = [pa.array(a, f.type) for a, f in zip([positions, *zip(*codes, strict=True)], _SAMPLE_SCHEMA, strict=True)]
    staging.save_codec(codec, fit, pa.table(columns, schema=_SAMPLE_SCHEMA))
    return codec, fit


def choose_codec(sample: np.ndarray, expected_tokens: int, nbits: int, model: Encoder | None) -> ResidualCodec:
    """Train a codec; for a small index, adapt the codec of the model's bundle, if there is one.

    Args:
        sample: token vectors, float32 (n, dim), unit length.
        expected_tokens: number of token vectors of the index.
        nbits: bits per dimension of a residual.
        model: the model that the vectors come from; None: it is not known.

    Returns:
        The codec.
    """
    n_centroids = default_centroids(expected_tokens, len(sample))
    given = None
    if model is not None and expected_tokens <= ADAPTED_UP_TO:
        given = bundled_codec(model, nbits)
    if given is None:
        return ResidualCodec.train(sample, nbits=nbits, n_centroids=n_centroids)
    return given.adapted(sample, n_centroids=n_centroids)


def fit_of(cosines: Sequence[float], lengths: Sequence[int]) -> Fit:
    """How well a codec fits rows, from their mean cosines and numbers of token vectors."""
    return Fit(float(np.average(cosines, weights=lengths)), float(np.quantile(cosines, 0.05)))


def stage_rows(
    documents: Iterable[Document],
    found: Scan,
    maker: RowMaker,
    codec: ResidualCodec,
    staging: Staging,
    reject: Reject,
    progress: Progress,
    sample: pa.Table | None = None,
    pool: Pool | None = None,
    place: FragmentPlace | None = None,
) -> BuildReport:
    """Encode, compress and stage all documents that are not staged yet.

    Args:
        documents: documents or passages, as they were scanned; each becomes a row.
        found: what the scan found.
        maker: makes token vectors and rows.
        codec: compresses the vectors.
        staging: the staging folder.
        reject: called for each document whose vectors cannot be used.
        progress: called for each chunk.
        sample: codes of documents that were already encoded to train the codec, as `Staging.load_sample` returns them.
        pool: the workers; None: this process, where one chunk is encoded while others are staged.
        place: where the workers write rows as fragments; None: the rows come back and are staged.

    Returns:
        The counts of what was staged.

    Raises:
        SourceError: the documents are not those that were scanned.
        WorkerError: the workers cannot be started, or do not come back.
    """
    stage = _Stage(found, maker, codec, staging, reject, progress, SampleCodes(sample))
    chunks = stage.chunks(documents)
    if pool is None:
        _stage_here(stage, chunks)
    else:
        if place is not None and staging.fragments().by_chunk:
            staging.keep_fragments(files_there(place))
        job = RowsJob(maker.header, maker.fields, maker.write_id, codec, place)
        for unit, made in pool.run(job, _units(chunks, len(found.digests), pool.count, place is not None)):
            stage.keep(unit, made)
    return stage.counted()


def _stage_here(stage: _Stage, chunks: Iterable[Chunk]) -> None:
    waiting: deque[tuple[Chunk, Future[dict]]] = deque()

    def collect(limit: int) -> None:
        while len(waiting) > limit:
            chunk, ended = waiting.popleft()
            stage.count(chunk.number, ended.result())

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tansaku-stage") as stager:
        for chunk in chunks:
            fresh = chunk.fresh
            before = (chunk.number + 1) * DOCUMENTS_PER_CHUNK - len(fresh)
            note = partial(lambda before, encoded: stage.show(before + encoded), before)
            vectors, truncated = stage.maker.vectors(fresh, note) if fresh else ([], [])
            waiting.append((chunk, stager.submit(stage.finish, chunk, vectors, truncated)))
            collect(_CHUNKS_WAITING - 1)
        collect(0)


def _units(chunks: Iterable[Chunk], total: int, workers: int, makes_fragments: bool) -> Iterator[Unit]:
    """Chunks as units of work: large ones first, so that fragments are few, small ones last, so that all end at once.

    A chunk that is staged is a unit of its own.
    """
    remaining = iter(chunks)
    for first in remaining:
        size = min(_MOST_CHUNKS, -(-(total - first.number) // (2 * workers))) if makes_fragments else 1
        yield Unit([first, *islice(remaining, size - 1)])


def with_progress(batches: Iterable[pa.RecordBatch], total: int, progress: Progress) -> Iterator[pa.RecordBatch]:
    """Report rows as they are committed.

    Args:
        batches: the rows.
        total: number of all rows.
        progress: called after each batch.

    Yields:
        The batches, unchanged.
    """
    done = 0
    for batch in batches:
        yield batch
        done += batch.num_rows
        progress("commit", done, total, 0)


@dataclass
class _Stage:
    """What is staged, and the counts of it."""

    found: Scan
    maker: RowMaker
    codec: ResidualCodec
    staging: Staging
    reject: Reject
    progress: Progress
    known: SampleCodes
    reports: dict[int, dict] = field(default_factory=dict)  # by the number of the chunk
    resumed: int = 0
    tokens: int = 0
    shown: int = 0

    def chunks(self, documents: Iterable[Document]) -> Iterator[Chunk]:
        """The chunks that are not staged yet; the others are counted."""
        for number, chunk in enumerate(as_scanned(documents, self.found)):
            earlier = self.staging.chunk_report(number)
            if earlier is None:
                start = number * DOCUMENTS_PER_CHUNK
                positions = [i for i in range(len(chunk)) if start + i in self.known]
                yield Chunk(number, chunk, {chunk[i].id: self.known[start + i] for i in positions})
            else:
                self._reject(chunk, earlier)
                self.resumed += earlier["documents"]  # rows; the name in files of interrupted builds
                self.count(number, earlier)

    def finish(self, chunk: Chunk, vectors: list[np.ndarray], truncated: list[bool]) -> dict:
        """Compress and stage a chunk; its report."""
        made = compress_chunk(chunk, vectors, truncated, self.maker, self.codec)
        self._reject(chunk.documents, made.report)
        self.staging.write_chunk(chunk.number, made.rows, made.report)
        return made.report

    def keep(self, unit: Unit, made: UnitRows) -> None:
        """Stage what a worker made of a unit, and count it."""
        for chunk, report in zip(unit.chunks, made.reports, strict=True):
            self._reject(chunk.documents, report)
        if made.fragments is not None:
            numbers = [chunk.number for chunk in unit.chunks]
            self.staging.write_fragments(numbers, made.fragments, made.reports)
        for chunk, rows, report in zip(unit.chunks, made.rows, made.reports, strict=False):
            self.staging.write_chunk(chunk.number, rows, report)
        for chunk, report in zip(unit.chunks, made.reports, strict=True):
            self.count(chunk.number, report)
        self.maker.unread.merge(made.unread)

    def count(self, number: int, report: dict) -> None:
        self.reports[number] = report
        self.tokens += report["tokens"]
        self.show(len(self.reports) * DOCUMENTS_PER_CHUNK)

    def show(self, documents: int) -> None:
        self.shown = max(self.shown, documents)  # chunks are staged while later ones are encoded
        self.progress("encode", min(self.shown, self.found.count), self.found.count, self.tokens)

    def counted(self) -> BuildReport:
        """All counts."""
        report = BuildReport(passages=self.maker.header.passage_tokens is not None, resumed=self.resumed)
        for number in sorted(self.reports):
            add_counts(report, self.reports[number])
        report.unread, report.unread_ids = self.maker.unread.count, self.maker.unread.ids
        return report

    def _reject(self, documents: Iterable[Document], report: dict) -> None:
        reasons = dict(report["rejected"])
        for document in documents:
            if document.place in reasons:
                self.reject(document, InputError(reasons[document.place]))


def noted(progress: Progress, stage: str, before: int, total: int, tokens: int, done: int) -> None:
    """Report progress within a chunk.

    Args:
        progress: gets the report.
        stage: name of the stage.
        before: number of documents encoded before this chunk.
        total: number of all documents.
        tokens: number of token vectors before this chunk.
        done: number of documents encoded of this chunk.
    """
    progress(stage, before + done, total, tokens)


def _encode_sample(
    documents: Iterable[Document],
    found: Scan,
    wanted: np.ndarray,
    maker: RowMaker,
    staging: Staging,
    reject: Reject,
    progress: Progress,
    pool: Pool,
) -> None:
    """Let workers encode the sample, chunk by chunk, into the staging folder, from where it is read."""
    scanned = chain.from_iterable(as_scanned(documents, found))
    done, tokens = 0, 0

    def units() -> Iterator[Unit]:
        nonlocal done
        for number, part in enumerate(chunks(_at_positions(scanned, wanted))):
            staged = staging.load_vectors(number)
            if staged is None or len(staged[0]) != len(part):
                yield Unit([Chunk(number, part)])
            else:
                done += len(part)

    for unit, (made,) in pool.run(VectorsJob(), units()):
        (chunk,) = unit.chunks
        for document in chunk.documents:
            if document.place in chunk.left_out:
                reject(document, InputError(chunk.left_out[document.place]))
        encoded = {each.id: (made.vectors[i], made.truncated[i]) for i, each in enumerate(chunk.fresh)}
        nothing = np.empty((0, pool.dim), np.float32), False
        pairs = [encoded.get(each.id, nothing) for each in chunk.documents]
        staging.write_vectors(chunk.number, [vectors for vectors, _ in pairs], [cut for _, cut in pairs])
        maker.unread.merge(made.unread)
        done += len(chunk.documents)
        tokens += sum(map(len, made.vectors))
        progress("sample", done, len(wanted), tokens)


def _sample_vectors(
    number: int, part: list[Document], maker: RowMaker, staging: Staging, note: Callable[[int], None]
) -> tuple[list[np.ndarray], list[bool]]:
    """Token vectors of a chunk of the sample, and whether each text was cut. What is made is kept for a resume."""
    if maker.encoder is None:
        return maker.vectors(part)
    staged = staging.load_vectors(number)
    if staged is None or len(staged[0]) != len(part):
        staged = maker.vectors(part, note)
        staging.write_vectors(number, *staged)
    return staged


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """``parts`` concatenated; each is freed after it is copied, so that memory holds the vectors once."""
    whole = np.empty((sum(map(len, parts)), parts[0].shape[1]), np.float32)
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole


def _sample_positions(found: Scan, max_tokens: int | None) -> np.ndarray:
    """Positions of a uniform sample, ascending.

    Estimates tokens by characters: Japanese texts rarely have more. Vectors that are given (``max_tokens`` is None) are
    counted themselves.
    """
    vectors = _SAMPLE_VECTORS // 2 if max_tokens is None else _SAMPLE_VECTORS
    tokens = min(max_tokens or np.inf, found.size / found.count + 2)
    size = min(found.count, _SAMPLE_ROWS, int(vectors / tokens))
    return np.sort(np.random.default_rng(_SEED).choice(found.count, size, replace=False))


def as_scanned(documents: Iterable[Document], found: Scan) -> Iterator[list[Document]]:
    """Chunks of documents, which must be those that were scanned.

    Args:
        documents: the documents.
        found: what the scan found.

    Yields:
        Chunks of `DOCUMENTS_PER_CHUNK` documents, in order.

    Raises:
        SourceError: they are others.
    """
    digest = hashlib.blake2b(digest_size=16)
    changed = SourceError(
        "the documents changed while they were being indexed, and nothing was stored; repeat the call"
    )
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


def add_counts(report: BuildReport, chunk: dict) -> None:
    """Add the report on a chunk to that on all."""
    report.rows += chunk["documents"]
    report.documents += chunk.get("firsts", chunk["documents"])
    report.tokens += chunk["tokens"]
    report.truncated += chunk["truncated"]
    # A chunk that an earlier version staged has none.
    report.truncated_ids += chunk.get("truncated_ids", [])[: IDS_NAMED - len(report.truncated_ids)]
