"""The compiled loops that score: similarities of query tokens with codes, lists and vectors."""
