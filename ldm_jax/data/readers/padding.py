"""Voxels outside the scanned field that hold a number of their own: padding -> air.

A CT scanner reconstructs a circle and fills the square with -2000 or the like, and who
resamples a scan fills what is new. Read as intensities these voxels would set the range
of the whole scan, so they get the lowest value that is not padding. DICOM states the
value (PixelPaddingValue, PixelPaddingRangeLimit); elsewhere a constant border far below
the Hounsfield units of air, or above those of metal, tells it.
"""

from __future__ import annotations

import numpy as np

from ldm_jax.data.readers.grid import Remark

# Hounsfield units: air is -1000, with noise and the lowest value of 12 bits not below.
BELOW_AIR = -1100.0
# 16 bits without a sign hold -2000 as 63536. Metal in an extended scale stays below.
ABOVE_METAL = 2.0**15 - 2048
# A border: share of the outermost voxels, and of all, that hold the padding.
BORDER_SHARE, SHARE = 0.01, 0.001
# Interpolation leaves some voxels between padding and scan; more are a scan's own.
BETWEEN_SHARE = 0.2


def replace_stated(array: np.ndarray) -> tuple[np.ndarray, tuple[Remark, ...]]:
  """The scan with air where it is NaN because its file calls the voxel padding.

  Args:
    array: (..., d,h,w) float32. Where all is padding it is returned as it is.
  """
  return _filled(array, np.isnan(array), 'that the file states')


def replace_border(array: np.ndarray) -> tuple[np.ndarray, tuple[Remark, ...]]:
  """The scan (d,h,w) with air in place of a border that only padding can be."""
  padded, told = border(array)
  return (array, ()) if padded is None else _filled(array, padded, told)


def _filled(
  array: np.ndarray, padded: np.ndarray, told: str
) -> tuple[np.ndarray, tuple[Remark, ...]]:
  count = int(padded.sum())
  if not 0 < count < array.size:
    return array, ()
  air = array[~padded].min()
  text = (
    f'{count} of {array.size} voxels are padding {told}; they count as air, the '
    f'lowest other value {air:g}'
  )
  return np.where(padded, air, array), (Remark('padding', text),)


def border(array: np.ndarray) -> tuple[np.ndarray | None, str]:
  """Where a constant border holds a value that no tissue and no air has, or None.

  Returns:
    (d,h,w) bool or None, and the words for it.
  """
  low, high = float(array.min()), float(array.max())
  if low < BELOW_AIR and np.isfinite(low):
    padded = array < BELOW_AIR
    if _is_border(array, low, padded):
      return padded, f'(a constant border of {low:g}, far below air)'
  if high > ABOVE_METAL and np.isfinite(high):
    rest = array[array < high]
    limit = max(float(rest.max(initial=low)), high / 4) if rest.size else high
    padded = array > min(limit, high / 2)
    # Only Hounsfield units have a reason for it: air is negative in them.
    if rest.size and rest.min() < -500 and _is_border(array, high, padded):
      return padded, f'(a constant border of {high:g}, far above any tissue)'
  return None, ''


def _is_border(array: np.ndarray, value: float, padded: np.ndarray) -> bool:
  """Whether `padded` is little more than a border that holds one value."""
  same = array == value
  count, others = int(same.sum()), int(padded.sum())
  if count < SHARE * array.size or others - count > BETWEEN_SHARE * count:
    return False
  faces = [
    np.take(same, index, axis)
    for axis in range(array.ndim)
    for index in ((0, -1) if array.shape[axis] > 2 else ())
  ]
  outermost = sum(face.size for face in faces)
  return bool(outermost and sum(f.sum() for f in faces) >= BORDER_SHARE * outermost)
