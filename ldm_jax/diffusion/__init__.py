"""The diffusion process as pure functions of arrays."""
