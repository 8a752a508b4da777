"""Documents → compressed token vectors in a LanceDB table."""

from .build import BuildReport, Progress
from .codec import ResidualCodec
from .documents import Document, FieldNames
from .errors import (
    IndexStateError,
    ModelMismatchError,
    NotAnIndexError,
    SourceError,
    TableExistsError,
    TableNotFoundError,
)
from .index import Index
from .info import IndexInfo
from .sources import SourceFile

__all__ = [
    "BuildReport",
    "Document",
    "FieldNames",
    "Index",
    "IndexInfo",
    "IndexStateError",
    "ModelMismatchError",
    "NotAnIndexError",
    "Progress",
    "ResidualCodec",
    "SourceError",
    "SourceFile",
    "TableExistsError",
    "TableNotFoundError",
]
