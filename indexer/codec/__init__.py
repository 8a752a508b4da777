"""Compress token vectors: each becomes a centroid id and a quantized residual."""
