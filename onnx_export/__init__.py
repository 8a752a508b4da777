"""Checkpoint → ONNX bundle, and running a bundle: text → token vectors.

`Encoder` needs onnxruntime and tokenizers only. The export itself is in `tansaku.onnx_export.export`
and needs the extra ``export`` (torch, transformers, onnx).
"""

from .bundle import Bundle, read_bundle
from .encoder import Encoder
from .errors import BundleError, CheckpointError, InputError, MissingExtraError, TansakuError
from .rules import Expansion, TextRules
from .tokenize import TokenizedText

__all__ = [
    "Bundle",
    "BundleError",
    "CheckpointError",
    "Encoder",
    "Expansion",
    "InputError",
    "MissingExtraError",
    "TansakuError",
    "TextRules",
    "TokenizedText",
    "read_bundle",
]
