"""Keeps memory as `ldm-jax` does, for both sides: to be imported before jax."""

from ldm_jax import jax_environment

KEEPS_MEMORY = jax_environment.keep_memory()
