"""Heun's method: the trapezoidal rule along the curve of levels, of second order.

[Karras22] arXiv 2206.00364 Algorithm 1 with gamma = 0. In the coordinates (signal,
noise) the probability flow of every schedule is dz = z_0_hat dsignal + eps_hat dnoise,
whose Euler step is DDIM with eta 0 and, on the straight line, Euler's step of
rectified flow. Latents are (b, ..., c), levels as in `process`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import process


class Memory(NamedTuple):
  """Where the step began, and the pair predicted there, each (b, ..., c)."""

  z_t: jax.Array
  z_0_hat: jax.Array
  eps_hat: jax.Array


def start(z_T):
  """The memory before the first call."""
  return Memory(z_T, jnp.zeros_like(z_T), jnp.zeros_like(z_T))


def move(memory, z, z_0_hat, eps_hat, level_t, level_s, corrects):
  """One call: Euler's step to s or, where it corrects, the step with both ends' mean.

  Args:
    memory: of the call before.
    z: where the pair was predicted: z_t, or Euler's z_s.
    z_0_hat, eps_hat: the predicted pair.
    level_t, level_s: of the step.
    corrects: () bool, whether this is the step's second call.

  Returns:
    (z_s, memory).
  """
  signal_t, noise_t = process.signal_and_noise(level_t, z)
  signal_s, noise_s = process.signal_and_noise(level_s, z)
  euler = process.add_noise(z_0_hat, eps_hat, level_s)
  trapezoid = (
    memory.z_t
    + (signal_s - signal_t) * (memory.z_0_hat + z_0_hat) / 2
    + (noise_s - noise_t) * (memory.eps_hat + eps_hat) / 2
  )
  return jnp.where(corrects, trapezoid, euler), Memory(z, z_0_hat, eps_hat)
