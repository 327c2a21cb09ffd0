"""Small pictures of a scan: its middle slice, or its middle plane on each axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ldm_jax.data.readers.volume import Volume

SIZE = 96  # pixels


def draw(scan: Volume, size: int = SIZE) -> np.ndarray:
  """The middle slice as (size,size) uint8, in true proportions, anterior at the top."""
  plane = scan.array[scan.array.shape[0] // 2, ::-1]
  pixels = _pixels(plane.shape, scan.spacing[1:], size)
  step = np.maximum(1, np.array(plane.shape) // (2 * pixels))
  plane = plane[:: step[0], :: step[1]].astype(np.float32)
  low, high = np.percentile(plane, (1, 99.5))
  plane = np.clip((plane - low) / max(high - low, 1e-20), 0, 1)
  ticks = [np.linspace(0, n - 1, m) for n, m in zip(plane.shape, pixels, strict=True)]
  drawn = ndimage.map_coordinates(plane, np.meshgrid(*ticks, indexing='ij'), order=1)
  return _on_canvas(drawn, size)


def planes(
  array: np.ndarray, spacing: np.ndarray, limits: tuple[float, float], size: int = 144
) -> np.ndarray:
  """Middle slice, row and column, each voxel a block, superior and anterior at the top.

  Args:
    array: (d,h,w).
    spacing: (3,) mm.
    limits: intensities that are black and white.
    size: of the pictures, pixels.

  Returns:
    (3,size,size) uint8, or (1,size,size) of a single slice.
  """
  d, h, w = (n // 2 for n in array.shape)
  cuts = [
    (array[d, ::-1], [1, 2]),
    (array[::-1, h], [0, 2]),
    (array[::-1, :, w], [0, 1]),
  ]
  drawn = []
  for plane, axes in cuts[: 3 if array.shape[0] > 1 else 1]:
    pixels = _pixels(plane.shape, np.asarray(spacing)[axes], size)
    rows, columns = (
      np.minimum(((np.arange(m) + 0.5) * n / m).astype(int), n - 1)
      for n, m in zip(plane.shape, pixels, strict=True)
    )
    plane = plane[np.ix_(rows, columns)].astype(np.float32)
    grey = np.clip((plane - limits[0]) / max(limits[1] - limits[0], 1e-20), 0, 1)
    drawn.append(_on_canvas(grey, size))
  return np.stack(drawn)


def _pixels(shape: Sequence[int], spacing: np.ndarray, size: int) -> np.ndarray:
  """(rows, columns) of a plane in true proportions whose longer side is `size`."""
  extent = np.array(shape) * spacing
  return np.maximum(1, np.round(size * extent / extent.max())).astype(int)


def _on_canvas(grey: np.ndarray, size: int) -> np.ndarray:
  """Puts a picture in [0, 1] into the middle of a black square, as uint8."""
  canvas = np.zeros((size, size), np.uint8)
  rows, columns = grey.shape
  top, left = (size - rows) // 2, (size - columns) // 2
  canvas[top : top + rows, left : left + columns] = np.round(255 * grey)
  return canvas
