"""Scans -> arrays of one shape, spacing and range."""
