"""The benchmarks by their names."""

from __future__ import annotations

from ....onnx_export.errors import InputError
from .esci import read_esci, read_esci_corpus
from .jacwir import read_jacwir
from .jqara import read_jqara
from .jsquad import read_jsquad
from .miracl import read_miracl
from .mldr import read_mldr
from .mr_tydi import read_mr_tydi
from .nano import ALL, read_nano
from .nlp_journal import read_nlp_journal
from .task import Benchmark

BENCHMARKS = {
    "jqara": Benchmark("test", read_jqara),
    "jacwir": Benchmark("eval", read_jacwir),
    "miracl-ja": Benchmark("dev", read_miracl),
    "mr-tydi-ja": Benchmark("test", read_mr_tydi),
    "mldr-ja": Benchmark("test", read_mldr),
    "jsquad": Benchmark("valid", read_jsquad),
    "esci-ja": Benchmark("test", read_esci),
    "esci-ja-corpus": Benchmark("test", read_esci_corpus),
    "nlp-journal": Benchmark("test", read_nlp_journal),
    "nanobeir-ja": Benchmark(ALL, read_nano),
    "nanojmteb": Benchmark(ALL, read_nano),
    "hakari": Benchmark(ALL, read_nano),
}


def benchmark_named(name: str) -> Benchmark:
    """The benchmark of a name; capitals do not matter.

    Raises:
        InputError: there is none of this name; names all.
    """
    found = BENCHMARKS.get(name.lower())
    if found is None:
        raise InputError(f"no benchmark {name!r}; use one of {', '.join(BENCHMARKS)}")
    return found
