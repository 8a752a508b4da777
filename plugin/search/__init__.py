"""The path of a query: encode → filter → probe → gather → prune → refine → fetch."""
