"""The indexer: documents → compressed token vectors in a LanceDB table."""

from ..onnx_export.old_import_paths import moved_names

__getattr__ = moved_names(
    __name__,
    "BadRecord BuildReport BusyError DeleteReport Document Drift FieldNames Index IndexInfo IndexStateError "
    "ModelMismatchError NotAnIndexError OptimizeReport Progress Rejects ResidualCodec ResumeError Source "
    "SourceError StorageError TableExistsError TableNotFoundError WriteConflictError ",
)
