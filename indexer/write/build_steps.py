"""The stages between documents and staged rows: sample, train the codec, encode, compress, stage."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain

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
from .report import IDS_NAMED, BuildReport
from .rows import RowCodes, RowMaker, SampleCodes, compress_documents, compress_vectors, usable_documents
from .staging import Staging

# Counted as characters, which are up to twice as many as tokens: in most corpora 600 MB at 128 dimensions, and 32
# vectors or more for each of the most centroids.
_SAMPLE_VECTORS = 2_100_000
_SAMPLE_ROWS = 400_000
ADAPTED_UP_TO = 262_144  # token vectors of an index up to which the codec in the model's bundle is adapted
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


def train_codec(
    documents: Iterable[Document],
    found: Scan,
    maker: RowMaker,
    nbits: int,
    staging: Staging,
    reject: Reject,
    progress: Progress,
    model: Encoder | None = None,
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

    Returns:
        The codec, and how well it fits the sample.

    Raises:
        InputError: no sampled document has usable vectors.
        SourceError: the documents are not those that were scanned.
    """
    wanted = _sample_positions(found, None if maker.encoder is None else maker.encoder.bundle.document.max_length)
    positions: list[int] = []
    parts: list[np.ndarray] = []
    lengths: list[int] = []
    truncated: list[bool] = []
    size = 0
    done = 0
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
    n_centroids = default_centroids(expected_tokens, len(sample))
    given = None
    model = model or maker.encoder
    if model is not None and expected_tokens <= ADAPTED_UP_TO:
        given = bundled_codec(model, nbits)
    if given is None:
        codec = ResidualCodec.train(sample, nbits=nbits, n_centroids=n_centroids)
    else:
        codec = given.adapted(sample, n_centroids=n_centroids)
    vectors = np.split(sample, np.cumsum(lengths)[:-1])
    codes: list[RowCodes] = []
    for start in range(0, len(vectors), DOCUMENTS_PER_CHUNK):
        codes += compress_vectors(
            vectors[start : start + DOCUMENTS_PER_CHUNK], truncated[start : start + DOCUMENTS_PER_CHUNK], codec
        )
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

    Args:
        documents: documents or passages, as they were scanned; each becomes a row.
        found: what the scan found.
        maker: makes token vectors and rows.
        codec: compresses the vectors.
        staging: the staging folder.
        reject: called for each document whose vectors cannot be used.
        progress: called for each chunk.
        sample: codes of documents that were already encoded to train the codec, as `Staging.load_sample` returns them.

    Returns:
        The counts of what was staged.

    Raises:
        SourceError: the documents are not those that were scanned.
    """
    report = BuildReport(passages=maker.header.passage_tokens is not None)
    known = SampleCodes(sample)
    done = 0
    shown = 0
    waiting: deque[Future[dict]] = deque()

    def show(documents: int) -> None:
        nonlocal shown
        shown = max(shown, documents)  # chunks are staged while later ones are encoded
        progress("encode", min(shown, found.count), found.count, report.tokens)

    def collect(limit: int) -> None:
        nonlocal done
        while len(waiting) > limit:
            _add(report, waiting.popleft().result())
            done += 1
            show(done * DOCUMENTS_PER_CHUNK)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tansaku-stage") as stager:
        for number, chunk in enumerate(as_scanned(documents, found)):
            earlier = staging.chunk_report(number)
            if earlier is None:
                fresh = [d for position, d in enumerate(chunk, number * DOCUMENTS_PER_CHUNK) if position not in known]
                before = (number + 1) * DOCUMENTS_PER_CHUNK - len(fresh)
                note = partial(lambda before, encoded: show(before + encoded), before)
                vectors, truncated = maker.vectors(fresh, note) if fresh else ([], [])
                job = _StageJob(number, chunk, fresh, vectors, truncated, known, maker, codec, staging, reject)
                waiting.append(stager.submit(job.run))
            else:
                reasons = dict(earlier["rejected"])
                for document in chunk:
                    if document.place in reasons:
                        reject(document, InputError(reasons[document.place]))
                report.resumed += earlier["documents"]  # rows; the name in files of interrupted builds
                waiting.append(stager.submit(lambda earlier=earlier: earlier))
            collect(_CHUNKS_WAITING - 1)
        collect(0)
    report.unread, report.unread_ids = maker.unread.count, maker.unread.ids
    return report


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
class _StageJob:
    """The rest of the work on one chunk, after its texts are encoded: compress, make rows, stage."""

    number: int
    chunk: list[Document]
    fresh: list[Document]
    vectors: list[np.ndarray]
    truncated: list[bool]
    known: SampleCodes
    maker: RowMaker
    codec: ResidualCodec
    staging: Staging
    reject: Reject

    def run(self) -> dict:
        rejected: dict[str, str] = {}

        def leave_out(document: Document, error: InputError) -> None:
            self.reject(document, error)
            rejected[document.place] = str(error)

        coded = compress_documents(self.fresh, self.vectors, self.truncated, self.maker, self.codec, leave_out)
        for position, document in enumerate(self.chunk, self.number * DOCUMENTS_PER_CHUNK):
            if position in self.known:
                coded[document.id] = self.known[position]
        # Passages of one document share a place: if one cannot be used, its others in this chunk are left out too.
        kept = [document for document in self.chunk if document.place not in rejected]
        rows = self.maker.rows(kept, [coded[document.id] for document in kept], self.codec)
        truncated = [document.id for document in kept if coded[document.id].truncated]
        report = {
            "documents": len(kept),
            "firsts": sum(document.passage == 0 for document in kept),
            "tokens": sum(rows["token_count"].to_pylist()),
            "truncated": len(truncated),
            "truncated_ids": truncated[:IDS_NAMED],
            "rejected": list(rejected.items()),
        }
        self.staging.write_chunk(self.number, rows, report)
        return report


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


def _add(report: BuildReport, chunk: dict) -> None:
    report.rows += chunk["documents"]
    report.documents += chunk.get("firsts", chunk["documents"])
    report.tokens += chunk["tokens"]
    report.truncated += chunk["truncated"]
    # A chunk that an earlier version staged has none.
    report.truncated_ids += chunk.get("truncated_ids", [])[: IDS_NAMED - len(report.truncated_ids)]
