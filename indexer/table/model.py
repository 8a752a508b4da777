"""The model of an index, and a placeholder for it in an index that was made from given vectors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from lancedb.db import DBConnection

from ...onnx_export.encode.bundle import Bundle
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.encode.find_bundle import find_bundle
from ...onnx_export.encode.rules import TextRules
from ...onnx_export.encode.tokenize import Span, TokenizedText
from ...onnx_export.errors import InputError
from ..errors import TableNotFoundError
from .table import IndexTable, open_index_table


class VectorsOnly(Encoder):
    """A placeholder for the unknown model of an index that was made from given vectors.

    Every method that would encode a text raises InputError.

    Args:
        dim: length of a token vector.
    """

    def __init__(self, dim: int) -> None:
        rules = TextRules(prefix="", marker=None, max_length=1 << 20)
        files = {"model.onnx": f"given vectors of {dim} dimensions"}
        self.bundle = Bundle("given vectors", dim, "float32", query=rules, document=rules, files=files)

    def __reduce__(self) -> tuple[Any, ...]:
        return VectorsOnly, (self.dim,)

    def tokenize_queries(self, texts: Iterable[str]) -> list[TokenizedText]:
        """Raise InputError."""
        _no_model("search with vectors (`Searcher.search_vectors`)")

    def tokenize_documents(self, texts: Iterable[str]) -> list[TokenizedText]:
        """Raise InputError."""
        _no_model("give the vectors of documents too (`Index.add(documents, vectors=...)`)")

    def count_document_tokens(self, texts: Iterable[str]) -> list[int]:
        """Raise InputError."""
        self.tokenize_documents(texts)
        return []

    def query_spans(self, text: str) -> list[Span]:
        """Raise InputError."""
        _no_model("its scores cannot be explained")

    def document_spans(self, text: str) -> list[Span]:
        """Raise InputError."""
        self.query_spans(text)
        return []


def model_of(index: IndexTable, encoder: Encoder | None = None, *, threads: int | None = None) -> Encoder:
    """Find the model of an open index.

    Args:
        index: the open table.
        encoder: the model; None finds it: the one that ships with tansaku or one in a folder of models
            (``TANSAKU_MODELS``), or a `VectorsOnly` for an index that was made from given vectors.
        threads: of a model that is found, see `Encoder.load`.

    Returns:
        The model.

    Raises:
        ModelMismatchError: the index was made with another model, which is not known here.
    """
    if encoder is None:
        given = VectorsOnly(index.codec.dim)
        if given.bundle.made(index.header.fingerprint):
            return given
        encoder = Encoder.load(find_bundle(index.header.fingerprint), threads=threads)
    index.header.check_model(encoder.bundle, index.place())
    return encoder


def model_of_table(database: DBConnection, name: str, *, threads: int | None = None) -> Encoder:
    """Find the model of a table by its name.

    Args:
        database: the database.
        name: name of the table.
        threads: see `Encoder.load`.

    Returns:
        The model; the one that ships with tansaku if there is no such table.

    Raises:
        ModelMismatchError: the index was made with a model that is not known here.
        TansakuError: the errors that `open_index_table` lists.
    """
    try:
        index = open_index_table(database, name)
    except TableNotFoundError:
        return Encoder.load(threads=threads)
    return model_of(index, threads=threads)


def bundle_of_table(database: DBConnection, name: str) -> Path | None:
    """Find the folder of a table's model by the table's name.

    Args:
        database: the database.
        name: name of the table.

    Returns:
        The bundle's folder; None if there is no such table, or its model is not known.
    """
    try:
        return find_bundle(open_index_table(database, name).header.fingerprint)
    except TableNotFoundError:
        return None


def open_with_model(database: DBConnection, name: str, encoder: Encoder | None) -> tuple[IndexTable, Encoder]:
    """Open an index together with its model.

    Args:
        database: the database of the index.
        name: name of the index's table.
        encoder: the model, see `model_of`.

    Returns:
        The open table and the model.

    Raises:
        ModelMismatchError: the index was made with another model.
        TansakuError: the errors that `open_index_table` lists.
    """
    opened = open_index_table(database, name)
    return opened, model_of(opened, encoder)


def _no_model(remedy: str) -> NoReturn:
    raise InputError(f"the index was made from vectors, so there is no model to encode a text with; {remedy}")
