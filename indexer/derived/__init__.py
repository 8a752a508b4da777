"""Arrays on disk next to the table, made from one version of it: memory-mapped, and made again when missing."""
