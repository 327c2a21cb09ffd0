"""Helpers of several layouts."""
