"""Decoding in overlapping tiles: z (b,*space,c) -> x (b,*space*f,c'), bounded memory.

For volumes whose decoder activations do not fit on a device. Overlaps are blended
linearly, so that no seam is visible. The result is not the same as decoding the whole
volume, because norms over space use each tile's own statistics.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ldm_jax.types import Array


def tiled(
  decode: Callable[[Array], Array], tile: Sequence[int | None], overlap: int
) -> Callable[[Array], np.ndarray]:
  """Returns a decoder that calls `decode` tile by tile, all tiles of one shape.

  Args:
    decode: z (b,*tile,c) -> x (b,*tile*f,c') with whole factors f per axis.
    tile: latent voxels per axis; None, or more than the axis has, takes the whole axis.
    overlap: least number of latent voxels that neighbouring tiles share.

  Returns:
    z (b,*space,c) -> x (b,*space*f,c') float32, in host memory.

  Raises:
    ValueError: a tile that is not longer than the overlap or has another number of
      axes; a decoder that does not enlarge by whole factors.
  """
  check(tile, overlap)

  def decode_tiled(z):
    space = z.shape[1:-1]
    if len(tile) != len(space):
      raise ValueError(
        f'sample.decode_tile is {tuple(tile)}, but a latent has the axes {space}; give '
        'one number, or None, per axis.'
      )
    sizes = [n if t is None else min(t, n) for t, n in zip(tile, space, strict=True)]
    starts = [_starts(n, t, overlap) for n, t in zip(space, sizes, strict=True)]
    total = weights = None
    for corner in itertools.product(*starts):
      here = tuple(slice(a, a + t) for a, t in zip(corner, sizes, strict=True))
      x = np.asarray(decode(z[(slice(None), *here)]), np.float32)
      if total is None:
        factors = _factors(x.shape[1:-1], sizes)
        full = [n * f for n, f in zip(space, factors, strict=True)]
        total = np.zeros((x.shape[0], *full, x.shape[-1]), np.float32)
        weights = np.zeros((*full, 1), np.float32)
      there = tuple(
        slice(s.start * f, s.stop * f) for s, f in zip(here, factors, strict=True)
      )
      weight = _weight(x.shape[1:-1], overlap, factors)
      total[(slice(None), *there)] += x * weight
      weights[there] += weight
    return total / weights

  return decode_tiled


def _starts(length, tile, overlap):
  """Evenly spaced first voxels of the tiles that cover an axis."""
  if tile == length:
    return [0]
  count = -(-(length - overlap) // (tile - overlap))
  return np.round(np.linspace(0, length - tile, count)).astype(int).tolist()


def _factors(size, latent_size):
  if any(n % m for n, m in zip(size, latent_size, strict=True)):
    raise ValueError(
      f'Expected a decoder that enlarges every axis by a whole factor, got '
      f'{tuple(size)} from a latent tile of {tuple(latent_size)}; unset '
      'sample.decode_tile.'
    )
  return [n // m for n, m in zip(size, latent_size, strict=True)]


def _weight(size, overlap, factors):
  """(*size,1): rises linearly from each face over the overlap, then is constant."""
  weight = np.ones((*size, 1), np.float32)
  for axis, (n, factor) in enumerate(zip(size, factors, strict=True)):
    inward = np.minimum(np.arange(n), np.arange(n)[::-1]) + 1.0
    ramp = np.minimum(inward / (overlap * factor + 1), 1.0)
    weight *= ramp.reshape([-1 if i == axis else 1 for i in range(len(size) + 1)])
  return weight.astype(np.float32)


def check(tile: Sequence[int | None], overlap: int) -> None:
  """Raises ValueError for a tile that is not longer than the overlap."""
  if overlap < 0 or any(t is not None and t <= overlap for t in tile):
    raise ValueError(
      f'sample.decode_tile is {tuple(tile)} with sample.decode_overlap {overlap}; a '
      'tile must be longer than the overlap, and the overlap 0 or more.'
    )
