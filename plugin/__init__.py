"""Query → candidates → MaxSim → hits."""

from .searcher import Hit, Searcher

__all__ = ["Hit", "Searcher"]
