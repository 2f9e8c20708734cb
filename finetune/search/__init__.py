"""Which trials come next, where a grid is too large: spaces, points in them, and what earlier results say."""
