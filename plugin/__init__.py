"""Query → candidates → MaxSim → hits."""

from ..onnx_export.old_import_paths import moved_names

__getattr__ = moved_names(
    __name__,
    "Candidate CandidateSource Explanation Hit Hits HostError HostHit HostHits HostSearch Match Ranked Reranker "
    "Reranking ScoreMode SearchOptions Searcher ",
)
