"""Distance of samples from a target distribution, and the drift that reduces it.

The mathematics of the search for a drift; latents are (n, ..., c). [Szekely13] Szekely
and Rizzo, Energy statistics, J. Stat. Plan. Inference 143 (energy distance);
[Yeganeh25] arXiv 2412.20651 (L1 by Monte Carlo).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.types import Array

# Smaller gains count as none: such a drift does not move the mean.
LEAST_GAIN = 1e-2


def l1_distance(generated: jax.Array, target: jax.Array) -> jax.Array:
  """Energy distance under L1 of two sets of latents (n, ..., c) and (m, ..., c).

  The mean over cells of E|x - y| - E|x - x'| / 2 - E|y - y'| / 2, each estimated
  without bias [Szekely13]. E|x - y| alone, the L1 distance of [Yeganeh25] taken
  literally, is smallest for samples that all lie at the target's median, so the
  contribution of the spread of either side is subtracted. It is zero if all cells have
  the target's distribution; small negative numbers occur by chance. Computed by
  sorting, in n log n instead of n m.

  Returns:
    Scalar, in units of the latents.
  """
  n, m = len(generated), len(target)
  target = target.astype(generated.dtype)
  # Only differences matter, and float32 is more accurate around zero.
  middle = jnp.mean(target, axis=0)
  x, y = generated - middle, target - middle
  within_x, within_y = _pair_sum(x), _pair_sum(y)
  # All ordered pairs, so that every distance between the sides counts twice.
  between = (_pair_sum(jnp.concatenate([x, y])) - within_x - within_y) / (n * m)
  spread = within_x / (n * max(n - 1, 1)) + within_y / (m * max(m - 1, 1))
  return jnp.mean(between - spread) / 2


def channel_mean(z: Array) -> Array:
  """The mean (c,) over samples and cells of latents (n, ..., c)."""
  return z.reshape(-1, z.shape[-1]).mean(0)


def probes(num_channels: int, size: float) -> np.ndarray:
  """Drifts (1 + c, c) to measure how each channel's drift moves all means.

  The first row is zero, row 1 + i has `size` in channel i.
  """
  return np.concatenate([np.zeros((1, num_channels)), size * np.eye(num_channels)])


def gains(means: Array, size: float) -> tuple[Array, Array]:
  """Means (1 + c, c) of the samples under `probes` -> (mean (c,), gain (c, c)).

  gain[i, j] is how far a drift of 1 in channel j moves the mean of channel i. For a
  Gaussian model with deviation s along the constant image it is
  s / sqrt((signal_T s)^2 + noise_T^2): near 10 in Stable Diffusion.
  """
  return means[0], (means[1:] - means[0]).T / size


def closed_form(
  target_mean: Array, model_mean: Array, gain: Array, largest: float
) -> np.ndarray:
  """The drift per channel (c,) that moves the model's mean to the target's.

  Solves gain delta = target_mean - model_mean in the least-squares sense, ignoring
  directions that no drift moves (singular values below LEAST_GAIN), and clips every
  channel to [-largest, largest], because the gain was measured near zero.
  """
  wanted = np.asarray(target_mean, float) - np.asarray(model_mean, float)
  left, values, right = np.linalg.svd(np.asarray(gain, float))
  moved = values > LEAST_GAIN
  inverse = np.where(moved, 1 / np.where(moved, values, 1.0), 0.0)
  return np.clip(right.T @ (inverse * (left.T @ wanted)), -largest, largest)


def over(
  function: Callable[[Array], Array], values: Array, at_once: int = 1
) -> jax.Array:
  """Stacked function(value) of values (g,) or (g, c), `at_once` of them as one batch.

  One loop in one program for any number of values; a batch is in memory at once. If g
  is no multiple of `at_once`, the last value is repeated to fill the last batch.
  """
  values = jnp.asarray(values)
  count = len(values)
  filled = np.minimum(np.arange(-(-count // at_once) * at_once), count - 1)
  batches = values[filled].reshape(-1, at_once, *values.shape[1:])
  found = jax.lax.map(jax.vmap(function), batches)
  return found.reshape(-1, *found.shape[2:])[:count]


def _pair_sum(x):
  """Sum over ordered pairs of |x_i - x_j| for each cell of x (n, ...)."""
  rank = 2.0 * jnp.arange(len(x)) - (len(x) - 1)
  rank = rank.reshape(-1, *(1,) * (x.ndim - 1))
  return 2 * jnp.sum(rank * jnp.sort(x, axis=0), axis=0)
