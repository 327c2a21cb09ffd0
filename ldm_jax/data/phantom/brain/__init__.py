"""Procedural heads."""
