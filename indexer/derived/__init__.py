"""Arrays on disk beside the table, made from one version of it: memory-mapped, and made again when missing."""
