"""Query → candidates → MaxSim → hits."""

from .explain import Explanation, Match
from .host import Candidate, CandidateSource, HostError, HostHit, HostHits, HostSearch
from .plan import SearchOptions
from .reranker import Ranked, Reranker, Reranking
from .results import Hit, Hits
from .scores import ScoreMode
from .searcher import Searcher

__all__ = [
    "Candidate",
    "CandidateSource",
    "Explanation",
    "Hit",
    "Hits",
    "HostError",
    "HostHit",
    "HostHits",
    "HostSearch",
    "Match",
    "Ranked",
    "Reranker",
    "Reranking",
    "ScoreMode",
    "SearchOptions",
    "Searcher",
]
