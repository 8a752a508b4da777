"""Query → candidates → MaxSim → hits."""

from .explain import Explanation, Match
from .plan import SearchOptions
from .results import Hit, Hits
from .searcher import Searcher

__all__ = ["Explanation", "Hit", "Hits", "Match", "SearchOptions", "Searcher"]
