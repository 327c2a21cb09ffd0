"""Files on disk -> patients -> arrays. NumPy only."""
