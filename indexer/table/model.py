"""The model of an index, and a placeholder for it in an index that was made from given vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from lancedb.db import DBConnection

from ...onnx_export.encode.bundle import Bundle
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.encode.rules import TextRules
from ...onnx_export.encode.tokenize import Span, TokenizedText
from ...onnx_export.errors import InputError
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


def model_of(index: IndexTable, encoder: Encoder | None = None) -> Encoder:
    """Find the model of an open index.

    Args:
        index: the open table.
        encoder: the model; None takes the one that ships with tansaku, or a `VectorsOnly` for an index that was made
            from given vectors.

    Returns:
        The model.

    Raises:
        ModelMismatchError: the index was made with another model.
    """
    if encoder is None:
        given = VectorsOnly(index.codec.dim)
        if index.header.fingerprint == given.bundle.fingerprint:
            return given
        encoder = Encoder.load()
    index.header.check_model(encoder.bundle, index.place())
    return encoder


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
