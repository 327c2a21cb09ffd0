"""What leaves the place of the data: a model as a folder, and its use elsewhere."""
