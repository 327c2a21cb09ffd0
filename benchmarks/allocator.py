"""Keeps memory as `ldm-jax` does, for both sides: to be imported before jax."""

from ldm_jax import main

KEEPS_MEMORY = main.keep_memory()
