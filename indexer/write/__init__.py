"""Documents → rows: a build is staged in chunks, interrupted and resumed, and committed in one transaction."""
