"""Counterfactual editors."""
