"""Indexes managed over HTTP: what is in them, what is written to them, and the jobs that write."""
