"""Multistep solvers: second order or higher with one denoiser call per step.

[Lu22] arXiv 2211.01095 (DPM-Solver++), [Zhao23] arXiv 2302.04867 (UniPC). Both solve
  z_s = noise_s / noise_t z_t + signal_s int_0^1 h exp(-h (1 - x)) z_0_hat(x) dx,
where h is the length of the step in log(signal / noise) and x the fraction of it, with
a polynomial through the latents z_0_hat predicted so far. If a step begins without
signal or ends without noise, h is infinite and the step is of first order. Latents are
(b, ..., c), levels as in `process`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import process
from ldm_jax.diffusion.process import AnyLevel
from ldm_jax.types import Array

# Of the beginnings of the two steps before, of t and of s.
FourLevels = tuple[AnyLevel, AnyLevel, AnyLevel, AnyLevel]


class Memory(NamedTuple):
  """Predictions one and two calls ago, UniPC's latents one call ago: (b, ..., c)."""

  z_0_hat: jax.Array
  z_0_hat_before: jax.Array
  z_t: jax.Array


def start(z_T: jax.Array) -> Memory:
  """The memory before the first call."""
  return Memory(jnp.zeros_like(z_T), jnp.zeros_like(z_T), z_T)


def dpmpp_2m(
  memory: Memory, z_t: Array, z_0_hat: Array, levels: FourLevels, i: Array
) -> tuple[jax.Array, Memory]:
  """Moves from t to s by DPM-Solver++(2M). [Lu22] Algorithm 2.

  It is the step of DDIM towards a clean latent extrapolated to the middle of the step.

  Args:
    memory: returned by the step before.
    z_t: latents at time t.
    z_0_hat: the clean latent predicted there.
    levels: of the beginnings of the two steps before, of t and of s.
    i: number of the step; the first is of first order.

  Returns:
    (z_s, memory).
  """
  _, level_1, level_t, level_s = levels
  h, h_before = _length(level_t, level_s), _length(level_1, level_t)
  known = (i > 0) & jnp.isfinite(h)
  weight = jnp.where(known, h / (2 * jnp.where(known, h_before, 1.0)), 0.0)
  towards = z_0_hat + weight * (z_0_hat - memory.z_0_hat)
  eps_hat = process.to_epsilon(towards, z_t, level_t, 'sample')
  z_s = process.add_noise(towards, eps_hat, level_s)
  return z_s, memory._replace(z_0_hat=z_0_hat)


def unipc(
  memory: Memory, z_t: Array, z_0_hat: Array, levels: FourLevels, i: Array
) -> tuple[jax.Array, Memory]:
  """Corrects the latents at t, then moves on to s: UniPC-2, of third order inside.

  [Zhao23] Algorithms 5 and 6: the prediction at t, which the next step needs anyway, is
  first used to repeat the step that led to t with a parabola through three predictions
  (UniC-2); the move to s is `dpmpp_2m` (UniP-2).

  Args:
    memory: returned by the call before.
    z_t: latents at t that the step before returned.
    z_0_hat, levels, i: as in `dpmpp_2m`.

  Returns:
    (z_s, memory).
  """
  corrected = _correct(memory, z_0_hat, *levels[:3], i)
  z_t = jnp.where(i > 0, corrected, z_t)
  z_s, _ = dpmpp_2m(memory, z_t, z_0_hat, levels, i)
  return z_s, Memory(z_0_hat, memory.z_0_hat, z_t)


def _correct(memory, z_0_hat, level_2, level_1, level_t, i):
  """The step from level 1 to t with z_0_hat known at both ends and at level 2."""
  h = jnp.where(i > 0, _length(level_1, level_t), 1.0)
  # Moments int h exp(-h (1 - x)) x^k dx for k = 0, 1, 2.
  moment_0 = -jnp.expm1(-h)
  moment_1 = 1 - moment_0 / h
  moment_2 = 1 - 2 * moment_1 / h
  # The parabola z_0_hat(x) = first + slope x + bend x^2 through x = place, 0, 1.
  rise = z_0_hat - memory.z_0_hat
  place = jnp.where(i > 1, -_length(level_2, level_1) / h, -1.0)
  bend = ((memory.z_0_hat_before - memory.z_0_hat) / place - rise) / (place - 1)
  bend = jnp.where(i > 1, bend, 0.0)
  mean = moment_0 * memory.z_0_hat + moment_1 * (rise - bend) + moment_2 * bend
  _, noise_1 = process.signal_and_noise(level_1, z_0_hat)
  signal_t, noise_t = process.signal_and_noise(level_t, z_0_hat)
  return noise_t / noise_1 * memory.z_t + signal_t * mean


def _length(level_t, level_s):
  """Length of a step in log(signal / noise), infinite from no signal or to no noise."""
  signal_t, noise_t = process.signal_and_noise(level_t, jnp.zeros(()))
  signal_s, noise_s = process.signal_and_noise(level_s, jnp.zeros(()))
  return jnp.log(signal_s / noise_s) - jnp.log(signal_t / noise_t)
