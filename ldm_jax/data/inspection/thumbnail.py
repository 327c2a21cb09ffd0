"""The middle slice of a scan, small enough for a sheet of hundreds."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ldm_jax.data.readers.volume import Volume

SIZE = 96  # pixels


def draw(scan: Volume, size: int = SIZE) -> np.ndarray:
  """The middle slice as (size,size) uint8, in true proportions, anterior at the top."""
  plane = scan.array[scan.array.shape[0] // 2, ::-1]
  extent = np.array(plane.shape) * scan.spacing[1:]
  pixels = np.maximum(1, np.round(size * extent / extent.max())).astype(int)
  step = np.maximum(1, np.array(plane.shape) // (2 * pixels))
  plane = plane[:: step[0], :: step[1]].astype(np.float32)
  low, high = np.percentile(plane, (1, 99.5))
  plane = np.clip((plane - low) / max(high - low, 1e-20), 0, 1)
  ticks = [np.linspace(0, n - 1, m) for n, m in zip(plane.shape, pixels, strict=True)]
  drawn = ndimage.map_coordinates(plane, np.meshgrid(*ticks, indexing='ij'), order=1)
  canvas = np.zeros((size, size), np.uint8)
  top, left = (size - pixels) // 2
  canvas[top : top + pixels[0], left : left + pixels[1]] = np.round(255 * drawn)
  return canvas


def planes(
  array: np.ndarray, spacing: np.ndarray, limits: tuple[float, float], size: int = 144
) -> np.ndarray:
  """Middle slice, row and column, each voxel a block, superior and anterior at the top.

  Args:
    array: (d,h,w).
    spacing: (3,) mm.
    limits: intensities that are black and white.

  Returns:
    (3,size,size) uint8, or (1,size,size) of a single slice.
  """
  d, h, w = (n // 2 for n in array.shape)
  cuts = [
    (array[d, ::-1], (1, 2)),
    (array[::-1, h], (0, 2)),
    (array[::-1, :, w], (0, 1)),
  ]
  drawn = []
  for plane, axes in cuts[: 3 if array.shape[0] > 1 else 1]:
    extent = np.array(plane.shape) * np.asarray(spacing)[list(axes)]
    pixels = np.maximum(1, np.round(size * extent / extent.max())).astype(int)
    rows, columns = (
      np.minimum(((np.arange(m) + 0.5) * n / m).astype(int), n - 1)
      for n, m in zip(plane.shape, pixels, strict=True)
    )
    plane = plane[np.ix_(rows, columns)].astype(np.float32)
    grey = np.clip((plane - limits[0]) / max(limits[1] - limits[0], 1e-20), 0, 1)
    canvas = np.zeros((size, size), np.uint8)
    top, left = (size - pixels) // 2
    canvas[top : top + pixels[0], left : left + pixels[1]] = np.round(255 * grey)
    drawn.append(canvas)
  return np.stack(drawn)
