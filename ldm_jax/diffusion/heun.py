"""Heun's method, of second order: the trapezoidal rule along the curve of levels.

[Karras22] arXiv 2206.00364 Algorithm 1 with gamma = 0. In the coordinates (signal,
noise) the probability flow of every schedule is dz = z_0_hat dsignal + eps_hat dnoise,
whose Euler step is DDIM with eta 0 and, on the straight line, Euler's step of
rectified flow. Latents are (b, ..., c), levels as in `process`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import process
from ldm_jax.diffusion.process import AnyLevel
from ldm_jax.types import Array


class Memory(NamedTuple):
  """Latents at the beginning of the step and the pair predicted there, (b, ..., c)."""

  z_t: jax.Array
  z_0_hat: jax.Array
  eps_hat: jax.Array


def start(z_T: jax.Array) -> Memory:
  """The memory before the first call."""
  return Memory(z_T, jnp.zeros_like(z_T), jnp.zeros_like(z_T))


def move(
  memory: Memory,
  z: Array,
  z_0_hat: Array,
  eps_hat: Array,
  level_t: AnyLevel,
  level_s: AnyLevel,
  corrects: Array,
) -> tuple[jax.Array, Memory]:
  """One call: Euler's step to s; if it corrects, the step with the mean of both ends.

  Args:
    memory: returned by the call before.
    z: latents at which the pair was predicted: z_t, or Euler's z_s.
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
