"""Checkpoint → ONNX bundle, and running a bundle: text → token vectors."""

from .old_import_paths import moved_names

__getattr__ = moved_names(
    __name__,
    "Bundle BundleError CheckpointError Encoder Expansion InputError MissingExtraError TansakuError TextRules "
    "TokenizedText read_bundle ",
)
