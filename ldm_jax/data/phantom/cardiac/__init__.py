"""Procedural short-axis stacks of the heart."""
