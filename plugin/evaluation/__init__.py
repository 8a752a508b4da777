"""Quality of a search: judgements, measures, BEIR folders, BM25."""
