"""What the autoencoder leaves out of a scan, drawn anew: volumes -> volumes with noise.

A decoder gives the mean of all scans that one latent stands for, which is smoother than
any of them: the scanner's noise is not in the latent. As in the model of the scan that
training assumes, x = decode(z) + e [Kingma14], e is drawn for each voxel. Its standard
deviation follows the decoded intensity, as measured on public scans: by the median of
|x - decode(z)|, which the few voxels at edges that the decoder misplaces do not move.

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
    x, x_hat: public volumes and their reconstructions, of one shape.

  Returns:
    {'level': intensities, increasing, 'std': standard deviations there}; both of at
    most NUM_LEVELS numbers, each from equally many voxels.
  """
  x, x_hat = (np.asarray(values, np.float64).ravel() for values in (x, x_hat))
  groups = np.array_split(np.argsort(x_hat, kind='stable'), NUM_LEVELS)
  groups = [group for group in groups if len(group)]
  level = np.array([x_hat[group].mean() for group in groups])
  size = np.abs(x - x_hat)
  std = OF_MEDIAN * np.array([np.median(size[group]) for group in groups])
  # Groups of one intensity, such as a background of zeros, are one level.
  level, owner = np.unique(level, return_inverse=True)
  std = np.bincount(owner, std) / np.bincount(owner)
  return {'level': level.tolist(), 'std': std.tolist()}


def add(volumes: Array, keys: jax.Array, statistics: Statistics) -> jax.Array:
  """Decoded volumes (b,d,h,w,1) and a key for each (b,) -> volumes in [0, 1]."""
  level, std = (jnp.asarray(statistics[name], jnp.float32) for name in ('level', 'std'))
  # Another stream than the sampler's, which has the same keys.
  keys = jax.vmap(lambda key: jax.random.fold_in(key, 2**32 - 1))(keys)
  noise = jax.vmap(lambda key: jax.random.normal(key, volumes.shape[1:]))(keys)
  return jnp.clip(volumes + jnp.interp(volumes, level, std) * noise, 0, 1)
