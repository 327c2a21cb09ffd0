"""Flax modules, 2D and 3D by the length of the kernel."""
