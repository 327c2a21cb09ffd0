"""Keeps inverted noise white: little correlation, mean 0 and variance 1.

[Parmar23] Pix2Pix-Zero, arXiv 2302.03027, Sec. 3.1: gradient descent on the noise
predicted along an inversion, with two losses: the correlation of neighbours on a
pyramid of coarser copies, and the divergence from N(0, 1). Latents are (b, ..., c), and
each example has its own losses. With a drift it is the centred noise that should be
white: whiten what `drift.centred` returns, otherwise the drift would be removed.
"""

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import process
from ldm_jax.diffusion.process import Denoiser
from ldm_jax.diffusion.schedules import AnySchedule

# Levels of the pyramid besides the finest.
NUM_POOLINGS = 3
# Axes with fewer voxels are not pooled: too few neighbours would remain.
SMALLEST_AXIS = 4


def correlation(eps: jax.Array) -> jax.Array:
  """Squared correlation of neighbours: (b, ..., c) -> (b,).

  The mean over space of the product with the next voxel (cyclically), squared and
  averaged over channels, summed over the axes and the levels of the pyramid.
  """
  total, level = jnp.zeros(eps.shape[0]), eps
  for _ in range(1 + NUM_POOLINGS):
    space = tuple(range(1, level.ndim - 1))
    for axis in space:
      if level.shape[axis] > 1:
        product = (level * jnp.roll(level, 1, axis)).mean(space)
        total += (product**2).mean(-1)
    pooled = _pool(level)
    if pooled is level:
      break
    level = pooled
  return total


def divergence(eps: jax.Array) -> jax.Array:
  """Twice the divergence of N(mean, variance of eps) from N(0, 1): -> (b,)."""
  axes = tuple(range(1, eps.ndim))
  mean, variance = eps.mean(axes), eps.var(axes)
  return mean**2 + variance - 1 - jnp.log(variance + 1e-7)


def whiten(
  eps: jax.Array, auto_correlation: float, kl: float, num_rounds: int = 5
) -> jax.Array:
  """`num_rounds` steps of gradient descent on eps (b, ..., c).

  Args:
    eps: noise.
    auto_correlation, kl: rates for `correlation` and `divergence`. Gradients are
      multiplied by the number of entries of an example, so that a rate has the same
      effect on small and large latents. [Parmar23] use weights 20 and 20 on
      64 x 64 x 4 entries, 5 rounds: rates of 0.005 and 0.0012.
    num_rounds: number of steps.
  """

  def loss(eps):
    total = auto_correlation * correlation(eps) + kl * divergence(eps)
    return eps[0].size * total.sum()

  def move(_, eps):
    return eps - jax.grad(loss)(eps)

  return jax.lax.fori_loop(0, num_rounds, move, eps)


def whitened(
  denoise: Denoiser,
  schedule: AnySchedule,
  prediction: str,
  auto_correlation: float,
  kl: float,
  num_rounds: int = 5,
) -> Denoiser:
  """Wraps denoise (z_t, t) -> output so that the noise it predicts is whitened.

  The clean latent is changed to match, so that the pair is consistent with z_t; where
  no signal is left the output is unchanged.
  """
  process.check_prediction(prediction)
  if not (auto_correlation or kl):
    return denoise

  def wrapped(z_t, t):
    level_t, output = schedule.at(t), denoise(z_t, t)
    eps = process.to_epsilon(output, z_t, level_t, prediction)
    eps = whiten(eps, auto_correlation, kl, num_rounds)
    signal, noise = process.signal_and_noise(level_t, z_t)
    z_0 = (z_t - noise * eps) / jnp.where(signal > 0, signal, 1)
    changed = process.training_target(z_0, eps, level_t, prediction)
    return jnp.where(signal > 0, changed, output)

  return wrapped


def _pool(level):
  """Means of pairs along every axis long enough; `level` itself if none is."""
  for axis in range(1, level.ndim - 1):
    half = level.shape[axis] // 2
    if half >= SMALLEST_AXIS // 2:
      level = jax.lax.slice_in_dim(level, 0, 2 * half, axis=axis)
      split = (*level.shape[:axis], half, 2, *level.shape[axis + 1 :])
      level = level.reshape(split).mean(axis + 1)
  return level
