"""Prepared cohorts on disk."""
