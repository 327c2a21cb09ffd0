"""Wavelet coefficients as latents: x (b,*space,1) <-> z (b,*space/s,latent).

The Haar transform of each block of s voxels in place of an autoencoder, as in WDM
[Friedrich24, arXiv 2402.19043]: nothing is learned, and with all bands nothing is lost.
A change that an autoencoder's own error would hide is there.
"""

import itertools
import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np


class Wavelet(nn.Module):
  """Encoder and decoder with the methods of `autoencoder.Autoencoder`.

  Attributes:
    strides: per level, each axis 1 or 2: what a block of voxels is.
    latent_channels: bands that are kept, the coarsest first; at most the voxels of a
      block. Fewer drop the finest detail.
  """

  latent_channels: int = 8
  strides: tuple = ((2, 2, 2),)

  # As `Autoencoder` has them: no codebook; and a latent without deviation.
  num_codes = 0
  is_gaussian = False

  def setup(self):
    bands = haar_bands(self._block())
    if not 0 < self.latent_channels <= len(bands):
      raise ValueError(
        f'latent_channels is {self.latent_channels}, but blocks of {self._block()} '
        f'voxels have {len(bands)} bands. Change autoencoder.model.latent_channels.'
      )
    # A parameter, so that this is saved, hashed and loaded as every autoencoder is.
    kept = bands[: self.latent_channels].T
    self.filters = self.param('filters', lambda key: jnp.asarray(kept, jnp.float32))

  def encode(self, x):
    """Coefficients (b,*space/s,latent_channels) of x, and zeros: their deviation."""
    z = _to_blocks(x, self._block()) @ self.filters
    return z, jnp.zeros_like(z)

  def decode(self, z):
    """Volumes (b,*space,1) in [0, 1] of coefficients (b,*space/s,latent_channels)."""
    return jnp.clip(_from_blocks(z @ self.filters.T, self._block()), 0, 1)

  def __call__(self, x, key=None):
    """Reconstruction, coefficients and zeros; nothing is drawn, whatever the key."""
    z, std = self.encode(x)
    return self.decode(z), z, std

  def _block(self):
    if not self.strides or not {n for level in self.strides for n in level} <= {1, 2}:
      raise ValueError(
        f'autoencoder.model.strides is {self.strides}; wavelets need at least one '
        'level and strides of 1 or 2.'
      )
    return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))


def haar_bands(block) -> np.ndarray:
  """Orthonormal Haar basis of blocks of n_1 x n_2 x ... voxels, (prod n, prod n).

  One row a band, the mean first, then by the sum over axes of how fine each is.

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


def _to_blocks(x, block):
  """(b,*space,1) -> (b,*space/s,prod s)."""
  space = x.shape[1:-1]
  if x.shape[-1] != 1 or len(space) != len(block):
    raise ValueError(f'{x.shape} came; blocks of {block} need (b,*space,1).')
  if any(n % s for n, s in zip(space, block, strict=True)):
    raise ValueError(
      f'Volumes of {space} voxels do not divide into blocks of {block}. Change '
      'data.preprocess.shape or autoencoder.model.strides.'
    )
  parts = [size for n, s in zip(space, block, strict=True) for size in (n // s, s)]
  x = x.reshape(len(x), *parts)
  cells, inner = range(1, x.ndim, 2), range(2, x.ndim, 2)
  x = x.transpose(0, *cells, *inner)
  return x.reshape(*x.shape[: 1 + len(block)], -1)


def _from_blocks(values, block):
  """The inverse of `_to_blocks`."""
  cells = values.shape[1:-1]
  x = values.reshape(*values.shape[:-1], *block)
  num = len(block)
  order = [axis for i in range(num) for axis in (1 + i, 1 + num + i)]
  x = x.transpose(0, *order)
  space = [n * s for n, s in zip(cells, block, strict=True)]
  return x.reshape(len(x), *space, 1)
