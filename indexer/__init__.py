"""Documents → compressed token vectors in a LanceDB table."""

from .build import BuildReport
from .changes import DeleteReport, OptimizeReport
from .codec import ResidualCodec
from .documents import Document, FieldNames
from .errors import (
    BusyError,
    IndexStateError,
    ModelMismatchError,
    NotAnIndexError,
    ResumeError,
    SourceError,
    StorageError,
    TableExistsError,
    TableNotFoundError,
    WriteConflictError,
)
from .index import Index
from .info import Drift, IndexInfo
from .rejects import Rejects
from .scan import Progress
from .sources import BadRecord, Source

__all__ = [
    "BadRecord",
    "BuildReport",
    "BusyError",
    "DeleteReport",
    "Document",
    "Drift",
    "FieldNames",
    "Index",
    "IndexInfo",
    "IndexStateError",
    "ModelMismatchError",
    "NotAnIndexError",
    "OptimizeReport",
    "Progress",
    "Rejects",
    "ResidualCodec",
    "ResumeError",
    "Source",
    "SourceError",
    "StorageError",
    "TableExistsError",
    "TableNotFoundError",
    "WriteConflictError",
]
