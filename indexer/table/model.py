"""The model of an index, and a placeholder for it in an index that was made from given vectors."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakValueDictionary

from lancedb.db import DBConnection

from ...onnx_export.encode.bundle import Bundle, read_description
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.encode.find_bundle import DEFAULT_BUNDLE, find_bundle
from ...onnx_export.encode.rules import TextRules
from ...onnx_export.encode.tokenize import Span, TokenizedText
from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_kind
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


class Models:
    """The models of tables: one that was given for all, or the one that each table was made with.

    A table may get another model while it is open (`Index.rebuild`). What keeps this object, and not a model, finds the
    new one. A model that is found is loaded once for all that share this object. It may be used from several threads.

    Args:
        given: the model of all tables; None finds each table's own: the one that ships with tansaku or one in a folder
            of models (``TANSAKU_MODELS``), or a `VectorsOnly` for an index that was made from given vectors.
        threads: of models that are found, see `Encoder.load`.

    Attributes:
        given: the model that was given, or None.
    """

    def __init__(self, given: Encoder | None = None, *, threads: int | None = None) -> None:
        if given is not None:
            check_kind("encoder", given, Encoder, "give Encoder.load(FOLDER), or leave it out")
        self.given = given
        self._threads = threads
        self._lock = threading.Lock()
        self._found: WeakValueDictionary[str, Encoder] = WeakValueDictionary()  # by the fingerprint of a table

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Models, threads=self._threads), (self.given,)

    @staticmethod
    def of(encoder: Encoder | Models | None) -> Models:
        """``encoder`` as `Models`; None finds each table's own model."""
        return encoder if isinstance(encoder, Models) else Models(encoder)

    def find(self, index: IndexTable) -> Encoder:
        """Find the model of an open index.

        Args:
            index: the open table.

        Returns:
            The model.

        Raises:
            ModelMismatchError: the index was made with another model than the one given, or with one that is not known
                here.
        """
        if self.given is not None:
            index.header.check_model(self.given.bundle, index.place())
            return self.given
        fingerprint = index.header.fingerprint
        with self._lock:
            model = self._found.get(fingerprint)
            if model is None:
                model = self._found[fingerprint] = self._load(index)
            return model

    def find_by_name(self, database: DBConnection, name: str) -> Encoder:
        """Find the model of a table by its name.

        Args:
            database: the database.
            name: name of the table.

        Returns:
            The model; `default` if there is no such table.

        Raises:
            ModelMismatchError: as `find`.
            TansakuError: the errors that `open_index_table` lists.
        """
        try:
            index = open_index_table(database, name)
        except TableNotFoundError:
            return self.default()
        return self.find(index)

    def default(self) -> Encoder:
        """The model of what has no table: the one given, or the one that ships with tansaku."""
        if self.given is not None:
            return self.given
        fingerprint = read_description(DEFAULT_BUNDLE).fingerprint
        with self._lock:
            model = self._found.get(fingerprint)
            if model is None:
                model = self._found[fingerprint] = Encoder.load(threads=self._threads)
            return model

    def _load(self, index: IndexTable) -> Encoder:
        given = VectorsOnly(index.codec.dim)
        if given.bundle.made(index.header.fingerprint):
            return given
        folder = find_bundle(index.header.fingerprint)
        if folder is None:  # then it is not the model inside either, and the error names both
            index.header.check_model(read_description(DEFAULT_BUNDLE), index.place(), given=False)
        return Encoder.load(folder, threads=self._threads)


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


def _no_model(remedy: str) -> NoReturn:
    raise InputError(f"the index was made from vectors, so there is no model to encode a text with; {remedy}")
