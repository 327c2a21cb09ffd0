"""A local page to play with a model: sliders, a 3D viewer, edits of an own scan."""
