"""The errors of the indexer.

TansakuError
├── InputError
│   └── SourceError          a source of documents cannot be read
└── IndexStateError
    ├── TableNotFoundError   the database or the table does not exist
    ├── TableExistsError     the table to be created exists already
    ├── NotAnIndexError      tansaku did not make the table, or it has another format version
    ├── ModelMismatchError   the index was made with another model than the given one
    ├── StorageError         the disk or the object store failed: full, read-only, unreachable, no permission
    ├── WriteConflictError   another writer changed the table at the same time
    ├── ResumeError          an interrupted write cannot be continued: its source or options have changed
    ├── BusyError            another process is building the same table
    ├── WorkerError          the workers of a build cannot be reached or started, or end again and again
    └── ForkedProcessError   the process was forked from one that had opened an index; LanceDB cannot work there
"""

from __future__ import annotations

from ..onnx_export.errors import InputError, TansakuError


class SourceError(InputError):
    """A source of documents cannot be read. The message names the file and, in files of lines, the line."""


class IndexStateError(TansakuError):
    """Base of errors about the state of a database or a table."""


class TableNotFoundError(IndexStateError):
    """The database or the table does not exist."""


class TableExistsError(IndexStateError):
    """The table to be created exists already. ``overwrite=True`` replaces it."""


class NotAnIndexError(IndexStateError):
    """The table was not made by tansaku, or has a format version that this release does not read."""


class ModelMismatchError(IndexStateError):
    """The index was made with another model than the given one. The message names both."""


class StorageError(IndexStateError):
    """The disk or the object store failed: full, read-only, unreachable, or without permission."""


class WriteConflictError(IndexStateError):
    """Another writer changed the table at the same time. Nothing was written unless the message says so."""


class ResumeError(IndexStateError):
    """An interrupted write cannot be continued, because its source or its options have changed."""


class BusyError(IndexStateError):
    """Another process is building the same table."""


class WorkerError(IndexStateError):
    """The workers of a build cannot be reached or started, are not like this process, or end again and again."""


class ForkedProcessError(IndexStateError):
    """The process was forked from one that had opened an index; LanceDB would crash or hang in it."""
