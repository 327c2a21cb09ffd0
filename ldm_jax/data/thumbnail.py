"""The middle slice of a scan, small enough for a sheet of hundreds."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ldm_jax.data.volume import Volume

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
