"""Where documents are encoded: processes of this machine, or actors of a Ray cluster."""
