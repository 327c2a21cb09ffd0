"""Pure functions of the diffusion process: arrays in, arrays out."""
