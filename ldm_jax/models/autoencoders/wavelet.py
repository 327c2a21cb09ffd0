"""Wavelet coefficients as latents: x (b,*space,1) <-> z (b,*space/s,latent).

The Haar transform of each block of s voxels in place of an autoencoder, as in WDM
[Friedrich24, arXiv 2402.19043]: nothing is learned, and with all bands it is lossless.
It preserves small changes that the reconstruction error of an autoencoder would hide.
"""

import itertools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.models.blocks import from_blocks, to_blocks
from ldm_jax.types import Array


class Wavelet(nn.Module):
  """Encoder and decoder with the methods of `autoencoder.Autoencoder`.

  Attributes:
    strides: per level, 1 or 2 along each axis; their product is the size of a block.
    latent_channels: number of bands, the coarsest first; at most the voxels of a block.
      With fewer the finest detail is lost.
  """

  latent_channels: int = 8
  strides: tuple = ((2, 2, 2),)

  # As in `Autoencoder`: no codebook, no labels and no standard deviation.
  num_codes = 0
  num_labels = 0
  is_gaussian = False

  def setup(self) -> None:
    bands = haar_bands(self._block())
    if not 0 < self.latent_channels <= len(bands):
      raise ValueError(
        f'latent_channels is {self.latent_channels}, expected 1 to {len(bands)}, the '
        f'number of bands of blocks of {self._block()} voxels. Change '
        'autoencoder.model.latent_channels.'
      )
    # A parameter, so that it is saved, hashed and loaded like any autoencoder.
    kept = bands[: self.latent_channels].T
    self.filters = self.param('filters', lambda key: jnp.asarray(kept, jnp.float32))

  def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Coefficients (b,*space/s,latent_channels) of x and their deviation, zero."""
    z = to_blocks(x, self._block()) @ self.filters
    return z, jnp.zeros_like(z)

  def decode(self, z: Array) -> jax.Array:
    """Volumes (b,*space,1) in [0, 1] of coefficients (b,*space/s,latent_channels)."""
    return jnp.clip(from_blocks(z @ self.filters.T, self._block()), 0, 1)

  def __call__(
    self, x: jax.Array, key: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Reconstruction, coefficients and zeros; the key is not used."""
    z, std = self.encode(x)
    return self.decode(z), z, std

  def _block(self):
    if not self.strides or not {n for level in self.strides for n in level} <= {1, 2}:
      raise ValueError(
        f'autoencoder.model.strides is {self.strides}, expected strides of 1 or 2 for '
        'at least one level.'
      )
    return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))


def haar_bands(block: Sequence[int]) -> np.ndarray:
  """Orthonormal Haar basis of blocks of n_1 x n_2 x ... voxels, (prod n, prod n).

  One row per band, the mean first, then ordered by fineness, summed over the axes.

  Args:
    block: voxels per axis, powers of 2.
  """
  axes = [_haar(n) for n in block]
  rows = []
  for chosen in itertools.product(*(range(n) for n in block)):
    fineness = sum(index.bit_length() for index in chosen)
    band = np.ones(())
    for basis, index in zip(axes, chosen, strict=True):
      band = np.multiply.outer(band, basis[index])
    rows.append((fineness, chosen, band.ravel()))
  return np.stack([band for _, _, band in sorted(rows, key=lambda row: row[:2])])


def _haar(n):
  """Rows 0, 1, 2-3, 4-7, ...: the mean, then differences of ever smaller parts."""
  if n == 1:
    return np.ones((1, 1))
  coarse = np.kron(_haar(n // 2), [1, 1])
  fine = np.kron(np.eye(n // 2), [1, -1])
  return np.concatenate([coarse, fine]) / math.sqrt(2)
