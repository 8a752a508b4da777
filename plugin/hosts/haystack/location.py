"""Where Haystack's components find an index and its model, and how they write that down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ....indexer.errors import TableNotFoundError
from ....indexer.index import Index
from ....indexer.table.database import DBConnection, connect
from ....indexer.table.model import bundle_of_table
from ....onnx_export.encode.encoder import Encoder
from ....onnx_export.errors import MissingExtraError
from ...search.latest_searcher import LatestSearcher
from ...search.searcher import Searcher

try:
    from haystack.utils import Secret
except ImportError as error:
    raise MissingExtraError("haystack-ai", "haystack") from error

StorageOptions = Mapping[str, "str | Secret"]


@lru_cache(maxsize=4)
def shared_encoder(model: str | None, threads: int | None) -> Encoder:
    """The encoder in the bundle folder ``model`` (None: the one that ships inside), one for all components."""
    return Encoder.load(model, threads=threads)


@dataclass(frozen=True)
class Location:
    """An index and its model, by names that can be written down.

    Attributes:
        db: database folder or URI.
        table: name of the table.
        model: folder of the encoder bundle; None is the model that ships inside.
        threads: number of threads that encode; None is the number of usable cores.
        storage_options: LanceDB's options for object stores; a value may be a `Secret`.
    """

    db: str
    table: str
    model: str | None
    threads: int | None
    storage_options: StorageOptions | None = field(repr=False)

    def encoder(self) -> Encoder:
        """The model, loaded once in a process: that of the table, unless a folder is given."""
        return shared_encoder(self.model or as_path(self._model_of_table()), self.threads)

    def _model_of_table(self) -> Path | None:
        if self.model is not None:
            return None
        try:
            return bundle_of_table(self.database(), self.table)
        except TableNotFoundError:  # no database yet
            return None

    def database(self) -> DBConnection:
        """A connection to the database; raises TableNotFoundError if its folder does not exist."""
        return connect(self.db, storage_options=self.plain_options())

    def index(self) -> Index:
        """The index, to be changed; raises as `Index.open` does."""
        return Index.open(self.database(), self.table, encoder=self.encoder())

    def latest_searcher(self) -> LatestSearcher:
        """Follows the table, which others may change, replace, or have yet to make."""
        return LatestSearcher(self.searcher)

    def searcher(self) -> Searcher:
        """Searches the table as it is now; raises as `Searcher.open` does."""
        return Searcher.open(self.database(), self.table, encoder=self.encoder())

    def plain_options(self) -> dict[str, str] | None:
        """The storage options with the values of secrets."""
        if self.storage_options is None:
            return None
        return {
            name: str(value.resolve_value()) if isinstance(value, Secret) else value
            for name, value in self.storage_options.items()
        }


def as_path(path: str | Path | None) -> str | None:
    """A path as it is written down."""
    return None if path is None else str(path)


def written_options(options: StorageOptions | None) -> dict[str, Any] | None:
    """Storage options as a component's `to_dict` has them; raises ValueError for a secret that is a plain token."""
    if options is None:
        return None
    return {name: value.to_dict() if isinstance(value, Secret) else value for name, value in options.items()}


def read_options(written: Mapping[str, Any] | None) -> StorageOptions | None:
    """Storage options as `written_options` has written them."""
    if written is None:
        return None
    return {name: Secret.from_dict(value) if isinstance(value, dict) else value for name, value in written.items()}
