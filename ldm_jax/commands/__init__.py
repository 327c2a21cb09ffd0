"""Commands beside `ldm-jax`."""
