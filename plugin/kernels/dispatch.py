"""The inner loops that a search runs: the compiled ones, or plain NumPy where numba cannot be imported."""

try:
    from .index_loops import code_tables, gather, probe, products, refine, rescore, residual_bound, select
except ImportError:  # no numba for this platform: the same results, slower
    from .reference import code_tables, gather, probe, products, refine, rescore, residual_bound, select

__all__ = ["code_tables", "gather", "probe", "products", "refine", "rescore", "residual_bound", "select"]
