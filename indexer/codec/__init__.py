"""Token vectors → a centroid id and a compressed residual each, and back."""
