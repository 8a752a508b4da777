"""A client of the HTTP service with the verbs and results of `Index` and `Searcher`."""
