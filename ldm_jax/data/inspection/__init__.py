"""Checks of a cohort before training: findings for `ldm-jax doctor`."""
