"""What the autoencoder leaves out of a scan, drawn anew: volumes -> volumes with noise.

A decoder gives the mean of all scans that one latent stands for, which is smoother than
any of them: the scanner's noise is not in the latent. As in the model of the scan that
training assumes, x = decode(z) + e [Kingma14], e is drawn for each voxel. Its standard
deviation follows the decoded intensity, as measured on public scans. What the decoder
misplaces is no noise: neighbours share it. So the deviation is that of x - decode(z)
behind a mask to which planes, slopes and straight edges count nothing [Immerkaer96], by
the median of absolute values, which few voxels do not move.

[Immerkaer96] Fast noise variance estimation, Computer Vision and Image Understanding;
[Kingma14] Auto-encoding variational Bayes, Appendix C.2: a Gaussian decoder.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.types import Array

NUM_LEVELS = 16
# Standard deviation of a Gaussian whose absolute values have the median 1.
OF_MEDIAN = 1.4826
Statistics = Mapping[str, Sequence[float]]


def measure(x: Array, x_hat: Array) -> dict[str, list[float]]:
  """Deviation of volumes from their reconstructions, by decoded intensity.

  Args:
    x, x_hat: public volumes (n,d,h,w,1) and their reconstructions; h and w from 3 up.

  Returns:
    {'level': intensities, increasing, 'std': standard deviations there}; both of at
    most NUM_LEVELS numbers, each from equally many voxels.
  """
  x, x_hat = (np.asarray(values, np.float64) for values in (x, x_hat))
  size = np.abs(_independent(x - x_hat)).ravel()
  x_hat = x_hat[:, :, 1:-1, 1:-1].ravel()
  groups = np.array_split(np.argsort(x_hat, kind='stable'), NUM_LEVELS)
  groups = [group for group in groups if len(group)]
  level = np.array([x_hat[group].mean() for group in groups])
  std = OF_MEDIAN * np.array([np.median(size[group]) for group in groups])
  # Groups of one intensity, such as a background of zeros, are one level.
  level, owner = np.unique(level, return_inverse=True)
  std = np.bincount(owner, std) / np.bincount(owner)
  return {'level': level.tolist(), 'std': std.tolist()}


def _independent(e):
  """Residuals (n,d,h,w,1) -> (n,d,h-2,w-2,1): white noise keeps its size."""
  along = e[:, :, :-2] - 2 * e[:, :, 1:-1] + e[:, :, 2:]
  both = along[:, :, :, :-2] - 2 * along[:, :, :, 1:-1] + along[:, :, :, 2:]
  return both / 6  # the mask (1,-2,1) in both directions has the norm 6


def add(volumes: Array, keys: jax.Array, statistics: Statistics) -> jax.Array:
  """Decoded volumes (b,d,h,w,1) and a key for each (b,) -> volumes in [0, 1]."""
  level, std = (jnp.asarray(statistics[name], jnp.float32) for name in ('level', 'std'))
  # Another stream than the sampler's, which has the same keys.
  keys = jax.vmap(lambda key: jax.random.fold_in(key, 2**32 - 1))(keys)
  noise = jax.vmap(lambda key: jax.random.normal(key, volumes.shape[1:]))(keys)
  return jnp.clip(volumes + jnp.interp(volumes, level, std) * noise, 0, 1)
