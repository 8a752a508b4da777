"""What can go wrong with an index, below `tansaku.onnx_export.TansakuError`.

TansakuError
├── InputError
│   └── SourceError          a source of documents: names the file and, where it has lines, the line
└── IndexStateError
    ├── TableNotFoundError   no such table in the database
    ├── TableExistsError     the table to be created is there already
    ├── NotAnIndexError      a table that tansaku did not make, or one of another format version
    ├── ModelMismatchError   an index made with another model than the one given
    ├── StorageError         the disk or the object store refused: full, read-only, unreachable, no permission
    ├── WriteConflictError   another writer came in between; nothing of this write was stored, unless it says so
    ├── ResumeError          an interrupted build cannot be continued: its source or options have changed
    └── BusyError            another process is at the same work
"""

from __future__ import annotations

from ..onnx_export.errors import InputError, TansakuError


class SourceError(InputError):
    """A source that cannot be read; the message names the file and, where it has lines, the line."""


class IndexStateError(TansakuError):
    """Base of errors about the state of a database or table."""


class TableNotFoundError(IndexStateError):
    """The database or the table does not exist."""


class TableExistsError(IndexStateError):
    """The table to be created exists already."""


class NotAnIndexError(IndexStateError):
    """The table is no tansaku index, or one of a format version that this release does not read."""


class ModelMismatchError(IndexStateError):
    """The index was made with another model than the one given."""


class StorageError(IndexStateError):
    """The disk or the object store refused: full, read-only, unreachable, or without permission."""


class WriteConflictError(IndexStateError):
    """Another writer changed the table at the same time."""


class ResumeError(IndexStateError):
    """An interrupted build cannot be continued, because its source or its options have changed."""


class BusyError(IndexStateError):
    """Another process is at the same work on the same table."""
