"""Procedural chest films."""
