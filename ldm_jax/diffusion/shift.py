"""How far samples lie from a target, and the drift that brings them there.

Pure mathematics of the search for a drift (`ldm_jax/choosing.py`); latents are
(n, ..., c). [Szekely13] Szekely and Rizzo, Energy statistics, J. Stat. Plan. Inference
143 (energy distance); [Yeganeh25] arXiv 2412.20651 (L1 by Monte Carlo).
"""

import jax
import jax.numpy as jnp
import numpy as np

LEAST_GAIN = 1e-2  # below it a drift does not move the mean, whatever its size


def l1_distance(generated, target):
  """Energy distance under L1 of two sets of latents (n, ..., c) and (m, ..., c).

  The mean over cells of E|x - y| - E|x - x'| / 2 - E|y - y'| / 2, each without bias
  [Szekely13]. E|x - y| alone, the L1 distance of [Yeganeh25] read literally, is least
  for samples that all lie at the target's median; what the spread of either side
  contributes is therefore taken off. Zero is met where all cells have the target's
  distribution, and small negative numbers by chance. By sorting: n log n, not n m.

  Returns:
    Scalar, in units of the latents.
  """
  n, m = len(generated), len(target)
  target = target.astype(generated.dtype)
  # Differences matter, not places: around zero float32 keeps more digits.
  middle = jnp.mean(target, axis=0)
  x, y = generated - middle, target - middle
  within_x, within_y = _pair_sum(x), _pair_sum(y)
  # All ordered pairs, so that every distance between the sides counts twice.
  between = (_pair_sum(jnp.concatenate([x, y])) - within_x - within_y) / (n * m)
  spread = within_x / (n * max(n - 1, 1)) + within_y / (m * max(m - 1, 1))
  return jnp.mean(between - spread) / 2


def channel_mean(z):
  """The mean (c,) over samples and cells of latents (n, ..., c)."""
  return z.reshape(-1, z.shape[-1]).mean(0)


def probes(num_channels, size):
  """Drifts (1 + c, c) that tell how each channel's drift moves all means.

  No drift, and `size` in one channel after the other.
  """
  return np.concatenate([np.zeros((1, num_channels)), size * np.eye(num_channels)])


def gains(means, size):
  """Means (1 + c, c) of the samples under `probes` -> (mean (c,), gain (c, c)).

  gain[i, j] is how far a drift of 1 in channel j moves the mean of channel i. Of a
  Gaussian model, of deviation s along the constant image, it is
  s / sqrt((signal_T s)^2 + noise_T^2): near 10 in Stable Diffusion.
  """
  return means[0], (means[1:] - means[0]).T / size


def closed_form(target_mean, model_mean, gain, largest):
  """The drift per channel (c,) that moves the model's mean to the target's.

  Solves gain delta = target_mean - model_mean in the least-squares sense, leaving
  alone what no drift moves (singular values below LEAST_GAIN), and keeps every channel
  within [-largest, largest]: the gain was measured near zero.
  """
  wanted = np.asarray(target_mean, float) - np.asarray(model_mean, float)
  left, values, right = np.linalg.svd(np.asarray(gain, float))
  moved = values > LEAST_GAIN
  inverse = np.where(moved, 1 / np.where(moved, values, 1.0), 0.0)
  return np.clip(right.T @ (inverse * (left.T @ wanted)), -largest, largest)


def over(function, values, at_once=1):
  """Stacked function(value) of values (g,) or (g, c), `at_once` of them as one batch.

  One loop in one program, whatever the length of the grid; what is batched also lies
  in memory at once. A grid that does not divide is filled up with its last value.
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
