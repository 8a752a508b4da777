"""Documents in a database's own rows: a row vector, which the database searches, and codes, which MaxSim ranks."""
