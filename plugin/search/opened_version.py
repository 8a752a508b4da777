"""One version of an index as a searcher has it open, and how it is opened."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...indexer.derived.array_files import arrays_folder
from ...indexer.derived.arrays import load_arrays
from ...indexer.errors import StorageError
from ...indexer.table.model import Models
from ...indexer.table.table import IndexTable, open_index_table
from ...onnx_export.retry import retrying
from .calibrator import Calibrator
from .query_encoder import QueryEncoder
from .stored_codes import StoredCodes


@dataclass(frozen=True)
class OpenedVersion:
    """One version of an index, the model that encodes queries for it, and what is known of its recall."""

    codes: StoredCodes
    encode: QueryEncoder
    calibrator: Calibrator

    @classmethod
    def read(
        cls, index: IndexTable, models: Models, *, derived: bool, before: OpenedVersion | None = None
    ) -> OpenedVersion:
        """Model and codes of ``index``, or of a later version if `optimize` removes that one while it is read.

        Args:
            index: The open table.
            models: Where its model is found.
            derived: Whether arrays are kept on disk next to the table.
            before: The version that was open until now: its model remembers queries.

        Raises:
            StorageError: The database cannot be read.
            ModelMismatchError: The index was made with another model.
        """
        try:
            return cls._of(index, models, derived, before)
        except StorageError:
            return retrying(StorageError)(lambda: cls._of(latest(index), models, derived, before))

    @classmethod
    def _of(cls, index: IndexTable, models: Models, derived: bool, before: OpenedVersion | None) -> OpenedVersion:
        encoder = models.find(index)
        codes = StoredCodes(index, load_arrays(index, derived=derived), encoder.bundle.phrase_weight)
        folder = arrays_folder(index) if derived else None
        calibrator = Calibrator(codes, folder, None if before is None else before.calibrator)
        if before is not None and before.encode.encoder is encoder:
            return cls(codes, before.encode, calibrator)
        return cls(codes, QueryEncoder(encoder), calibrator)


def latest(index: IndexTable) -> IndexTable:
    """The latest version of the table of ``index``."""
    table = retrying(StorageError)(lambda: open_index_table(index.database, index.name))
    return replace(table, shard=index.shard)
