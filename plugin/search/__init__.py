"""The path of one query, from its text to the hits. Each stage hands its result to the next.

    stage    what it does                                                  where
    encode   text -> vectors, float32 (query tokens, dim)                  query_encoder.py
    -        options and size of the index -> a plan                       plan.py
    filter   condition and ids -> mask of allowed rows, bool (rows,)       filters.py
    tables   vectors -> scores of all centroids and residual bytes         kernels/query_layout.py
    text     text -> candidates and BM25 by full-text search, if asked     fulltext.py
    probe    the best centroids of each query token                        candidates.py, kernels/query_loops.py
    gather   inverted lists -> an approximate MaxSim of every row          candidates.py, kernels/index_loops.py
    prune    the best allowed rows: the candidates                         candidates.py, kernels/index_loops.py
    refine   MaxSim of the candidates over stored codes -> ranked rows     refine.py, kernels/index_loops.py
    fetch    ranked rows -> hits with texts and columns                    fetch.py

`Searcher.search` (searcher.py) encodes and fetches; `rank` (pipeline.py) runs the stages between. If few rows are
allowed, or `recall` is "exact", all allowed rows are scored and probe, gather and prune are left out. `Hits.stages` has
the milliseconds of each stage.

A number as `recall` is a promise: `calibrator` measures what searches find in an index, and a search takes the cheapest
step that keeps it (calibration.py).

A row is a document, or a passage in an index of passages; its number counts the rows of all segments (stored_codes.py).
"""
