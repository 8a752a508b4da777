"""Japanese late-interaction search on a CPU.

This package is the public face of tansaku: import from here, and the adapters from `tansaku.plugin.hosts`. Every
other module is internal. A name is imported when it is first used, so ``import tansaku`` itself loads nothing.

Example:
    >>> from tansaku import Index, Searcher
    >>> index = Index.create(folder, "docs", [{"id": "kyoto", "text": "京都は794年から都だった。"}])
    >>> [hit.id for hit in Searcher.open(folder, "docs").search("昔の首都はどこ？", k=1)]
    ['kyoto']
"""

import os

import lazy_loader

# ONNX Runtime sends usage data to Microsoft and writes a device id into the user's cache. It reads this when it is
# imported; its own `disable_telemetry_events` comes too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_find, _, _names = lazy_loader.attach_stub(__name__, __file__)
_RENAMED = {"Ranked": "RerankedDocument", "Reranking": "RerankResult"}  # in version 0.2
__all__ = sorted(["__version__", *_names])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("tansaku")
    if name in _RENAMED:
        import warnings

        warnings.warn(f"tansaku.{name} is now tansaku.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        return _find(_RENAMED[name])
    return _find(name)


def __dir__() -> list[str]:
    return __all__
