"""Token vectors that the caller made, and their model: the one given, or the one that their file says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ...onnx_export.encode.bundle import read_description
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.encode.find_bundle import DEFAULT_BUNDLE, find_bundle
from ...onnx_export.errors import InputError
from ..errors import ModelMismatchError
from ..read.given import ArrowRows
from ..read.sources import Source
from ..read.vectors import FINGERPRINT_KEY, MODEL_KEY, ArrowVectors, GivenVectors, on_cpu
from .model import VectorsOnly
from .table import IndexTable

Vectors = Sequence[Any] | np.ndarray | pa.Array | pa.ChunkedArray | str
"""Token vectors as `Index.create_from_vectors` takes them."""


class NamedModel(NamedTuple):
    """The model that made the vectors of a file, as the file says it.

    Attributes:
        place: the file.
        name: name of the model.
        fingerprint: its `Bundle.fingerprint`.
    """

    place: str
    name: str
    fingerprint: str


def named_model(records: Iterable[Any]) -> NamedModel | None:
    """The model that documents name, as the files do that `tansaku encode` writes; None if they name none.

    Args:
        records: as `as_records` gives them.

    Raises:
        SourceError: a file cannot be read.
        ModelMismatchError: two files name different models.
    """
    found: NamedModel | None = None
    for place, metadata in _metadata(records):
        if FINGERPRINT_KEY not in metadata:
            continue
        name = metadata.get(MODEL_KEY, b"").decode("utf-8", "replace")
        one = NamedModel(place, name, metadata[FINGERPRINT_KEY].decode("utf-8", "replace"))
        if found is not None and one.fingerprint != found.fingerprint:
            raise ModelMismatchError(
                f"{found.place} has vectors of {found.name!r} ({found.fingerprint}), and {one.place} of {one.name!r} "
                f"({one.fingerprint}); index them in different tables"
            )
        found = found or one
    return found


def model_of_new(records: Iterable[Any], vectors: Vectors, encoder: Encoder | None) -> tuple[Encoder, GivenVectors]:
    """The model and the vectors of a new table.

    Args:
        records: the documents, as `as_records` gives them.
        vectors: their vectors.
        encoder: the model that the caller names; None: the one that the file of the documents names, if it does.

    Returns:
        The model, a `VectorsOnly` if nothing names one, and the vectors.

    Raises:
        InputError: there are no vectors, or they are of another kind.
        ModelMismatchError: the file says another model than the caller, or one that is not known here.
        SourceError: a file cannot be read.
    """
    source = _source(vectors)
    named = named_model(records) if isinstance(source, str) else None
    if named is not None and encoder is None:
        folder = find_bundle(named.fingerprint)
        if folder is None:
            inside = read_description(DEFAULT_BUNDLE)
            raise ModelMismatchError(
                f"{named.place} has vectors of the model {named.name!r} ({named.fingerprint}), which was not found: "
                f"the model inside tansaku is {inside.name!r} ({inside.fingerprint}); give the model's bundle "
                "(--model, in Python encoder=), or put it into a folder of TANSAKU_MODELS"
            )
        encoder = Encoder.load(folder)
    elif named is not None and encoder is not None and not encoder.bundle.made(named.fingerprint):
        raise ModelMismatchError(
            f"{named.place} has vectors of the model {named.name!r} ({named.fingerprint}), but the model given is "
            f"{encoder.bundle.name!r} ({encoder.bundle.fingerprint}); give the model that made the vectors, or encode "
            "the texts again"
        )
    model = VectorsOnly(_dim(records, source)) if encoder is None else encoder
    return model, GivenVectors(source, model.dim)


def vectors_for(records: Iterable[Any], vectors: Vectors, index: IndexTable) -> GivenVectors:
    """The vectors of documents that are written into an index.

    Args:
        records: the documents, as `as_records` gives them.
        vectors: their vectors.
        index: the open table.

    Raises:
        InputError: the vectors are of another kind.
        ModelMismatchError: the file of the documents names another model than that of the index.
        SourceError: a file cannot be read.
    """
    source = _source(vectors)
    named = named_model(records) if isinstance(source, str) else None
    if named is not None and named.fingerprint != index.header.fingerprint:
        raise ModelMismatchError(
            f"{named.place} has vectors of the model {named.name!r} ({named.fingerprint}), and {index.place()} was "
            f"made with {index.header.model!r} ({index.header.fingerprint}); encode the texts with that model"
        )
    return GivenVectors(source, index.codec.dim)


def _metadata(records: Iterable[Any]) -> Iterator[tuple[str, Mapping[bytes, bytes]]]:
    if isinstance(records, Source):
        yield from ((str(path), metadata) for path, metadata in records.metadata())
    elif isinstance(records, ArrowRows):
        yield "the table", records.metadata


def _source(vectors: Any) -> Sequence[Any] | str:
    if isinstance(vectors, (pa.Array, pa.ChunkedArray)):
        return ArrowVectors(vectors)
    if not isinstance(vectors, str) and not (hasattr(vectors, "__len__") and hasattr(vectors, "__getitem__")):
        raise InputError(
            f"vectors cannot be {type(vectors).__name__}; give one matrix for each document (a list of arrays, "
            "FlatVectors, a column of Arrow), or the name of the field of the documents that has them"
        )
    if not len(vectors):
        raise InputError("there are no vectors to index; give one matrix for each document")
    return vectors


def _dim(records: Iterable[Any], source: Sequence[Any] | str) -> int:
    """Length of the first token vectors; 1 if there is no matrix, which is refused when the documents are read."""
    if not isinstance(source, str):
        shape = _shape(source[0])
        return (shape[-1] or 1) if len(shape) == 2 else 1
    columnar = isinstance(records, (Source, ArrowRows))
    for record in records.with_matrices(source) if columnar else records:  # pyright: ignore
        content = record[1] if isinstance(record, tuple) and len(record) == 2 else record
        matrix = content.get(source) if isinstance(content, Mapping) else None
        shape = matrix.shape if isinstance(matrix, np.ndarray) else _shape(matrix)
        if len(shape) == 2:
            return shape[-1] or 1
    return 1


def _shape(matrix: Any) -> tuple[int, ...]:
    try:
        return np.shape(on_cpu(matrix))
    except ValueError:  # lists of different lengths
        return ()
