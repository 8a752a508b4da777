"""The loops that score: similarities of a query's tokens with the centroids, codes and lists of an index.

`query_layout` lays out the query, `query_loops` computes its score tables, `index_loops` applies them to the index, on
the vector operations of `simd`. `reference` has every loop in plain NumPy. LAYOUT.md draws the arrays.
"""
