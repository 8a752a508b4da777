"""Optional packages: whether those that a command needs are installed, looked up without importing them."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from .errors import MissingExtraError

# Extra → name to import → name to install, where they differ. `tests/house` compares this with pyproject.toml.
EXTRAS: dict[str, dict[str, str]] = {
    "client": {"httpx": "httpx"},
    "evaluate": {"bm25s": "bm25s", "ir_measures": "ir-measures"},
    "excel": {"python_calamine": "python-calamine"},
    "export": {
        "huggingface_hub": "huggingface_hub",
        "onnx": "onnx",
        "onnxscript": "onnxscript",
        "safetensors": "safetensors",
        "torch": "torch",
        "transformers": "transformers",
    },
    "mcp": {"mcp": "mcp"},
    "pooling": {"scipy": "scipy"},
    "ray": {"ray": "ray", "lance": "pylance"},
    "serve": {
        "fastapi": "fastapi",
        "prometheus_client": "prometheus-client",
        "structlog": "structlog",
        "uvicorn": "uvicorn",
    },
    "tensorboard": {"tensorboard": "tensorboard"},
    "train": {"schedulefree": "schedulefree", "sentence_transformers": "sentence-transformers"},
}
if sys.version_info < (3, 11):
    EXTRAS["train"]["tomli"] = "tomli"
INCLUDED = {"train": ("evaluate", "export")}  # extras that another one brings


def require_extra(extra: str, *modules: str) -> None:
    """Make sure that the packages of an extra are installed; a command calls it before any work.

    Args:
        extra: name of the extra.
        modules: those of its packages that are needed, by the names they are imported by; none means all.

    Raises:
        MissingExtraError: one of them is not installed; names it and the extra.
    """
    packages = dict(EXTRAS[extra])
    for other in INCLUDED.get(extra, ()):
        packages |= EXTRAS[other]
    for module in modules or packages:
        if not _installed(module):
            raise MissingExtraError(packages[module], extra)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # ValueError: a module without a spec, put there by someone
        return False
