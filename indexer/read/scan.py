"""The first stage of indexing: all documents are read and checked before the first is encoded.

In an index of passages, documents mean passages here and in all later stages: each becomes one row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ...onnx_export.errors import InputError
from ...onnx_export.progress import Progress
from .documents import Document, report

# Called with a document that cannot be indexed and the reason; raises the error if nothing may be left out.
Reject = Callable[[Document, InputError], None]

DOCUMENTS_PER_CHUNK = 512  # documents encoded together and staged in one file


@dataclass
class Scan:
    """What `scan` found.

    Attributes:
        count: number of documents to be indexed.
        size: sum of their `Document.size`.
        digests: a hash for each chunk of `DOCUMENTS_PER_CHUNK` documents, of all content up to its end.
    """

    count: int = 0
    size: int = 0
    digests: list[str] = field(default_factory=list)


def scan(
    documents: Iterable[Document],
    check: Callable[[list[Document]], None],
    reject: Reject,
    progress: Progress,
    total: int = 0,
    bytes_read: Callable[[], tuple[int, int]] = lambda: (0, 0),
) -> Scan:
    """Read all documents once and check them.

    Args:
        documents: the documents.
        check: raises InputError if one of the given documents cannot be indexed.
        reject: called for each document that cannot be indexed; it may raise the error.
        progress: called for each chunk, with the stage "read", or "read bytes" where only the bytes are known.
        total: number of documents; 0 if that is not known.
        bytes_read: see `DocumentReader.bytes_read`.

    Returns:
        What was found.

    Raises:
        InputError: there are no documents.
    """
    result = Scan()
    digest = hashlib.blake2b(digest_size=16)
    for chunk in chunks(documents):
        for document in _accepted(chunk, check, reject):
            digest.update(content_bytes(document))
            result.count += 1
            result.size += document.size
            if result.count % DOCUMENTS_PER_CHUNK == 0:
                result.digests.append(digest.hexdigest())
        report(progress, "read", result.count, total, bytes_read())
    if result.count % DOCUMENTS_PER_CHUNK:
        result.digests.append(digest.hexdigest())
    if total != result.count:
        progress("read", result.count, result.count, 0)
    if result.count == 0:
        raise InputError("there are no documents to index; give one or more")
    return result


def chunks(documents: Iterable[Document], size: int = DOCUMENTS_PER_CHUNK) -> Iterator[list[Document]]:
    """Group documents into chunks.

    Args:
        documents: the documents.
        size: number of documents in a chunk.

    Yields:
        Chunks, in order; the last one may be shorter.
    """
    remaining = iter(documents)
    while chunk := list(islice(remaining, size)):
        yield chunk


def content_bytes(document: Document) -> bytes:
    """The indexed content of a document as bytes, to be hashed: equal for equal content."""
    fields = sorted((name, _plain(value)) for name, value in document.fields.items())
    content = repr((document.id, document.title, document.text, fields)).encode("utf-8", "surrogatepass")
    return content if document.vectors is None else content + document.vectors.tobytes()


def _accepted(
    chunk: list[Document],
    check: Callable[[list[Document]], None],
    reject: Reject,
) -> list[Document]:
    """The documents of ``chunk`` that pass ``check``; the others are found by halving."""
    try:
        check(chunk)
    except InputError as error:
        if len(chunk) == 1:
            reject(chunk[0], error)
            return []
        middle = len(chunk) // 2
        return _accepted(chunk[:middle], check, reject) + _accepted(chunk[middle:], check, reject)
    return chunk


def _plain(value: Any) -> str:
    # The repr of a long array omits its middle.
    return repr(value.tolist() if hasattr(value, "tolist") else value)
