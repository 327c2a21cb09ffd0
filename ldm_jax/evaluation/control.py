"""Controllability of the generator: requested against measured values.

Values are measured on a segmentation of the sample by a network trained on public
volumes: volumes in ml from label counts (or summed probabilities), wall thickness in
mm from area-equivalent radii of the short-axis slices.

[Fisher21] Fisher, Metron 1, 1921 (interval of r).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ldm_jax.evaluation import intervals
from ldm_jax.types import Array


def agreement(
  requested: Array, measured: Array, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
  """Correlation and error of measured against requested values: (n,), (n,) -> dict.

  Pairs with a missing value (NaN) are left out and counted.

  Returns:
    dict pearson_r, pearson_r_low, pearson_r_high (Fisher), mae, mae_low, mae_high
    (bootstrap over pairs), bias (mean of measured - requested), n, num_missing.
    pearson_r and its interval are None when a side is constant or n < 3; the
    errors are None when no pair is complete.

  Raises:
    ValueError: for unequal lengths.
  """
  requested = np.asarray(requested, np.float64)
  measured = np.asarray(measured, np.float64)
  if requested.shape != measured.shape or requested.ndim != 1:
    raise ValueError(
      f'Expected two vectors of one length, got requested {requested.shape} and '
      f'measured {measured.shape}; measure every sample once.'
    )
  complete = np.isfinite(requested) & np.isfinite(measured)
  num_missing = int((~complete).sum())
  requested, measured = requested[complete], measured[complete]
  n = len(requested)
  result: dict[str, Any] = dict.fromkeys(
    ('pearson_r', 'pearson_r_low', 'pearson_r_high', 'mae', 'mae_low', 'mae_high')
  )
  result |= {'bias': None, 'n': n, 'num_missing': num_missing}
  if n == 0:
    return result
  errors = np.abs(measured - requested)
  result['mae'] = float(errors.mean())
  result['bias'] = float((measured - requested).mean())
  if n > 1:
    low, high = intervals.bootstrap_mean_interval(errors, num_resamples, seed)
    result['mae_low'], result['mae_high'] = low, high
  if n > 2 and _varies(requested) and _varies(measured):
    r = float(np.clip(np.corrcoef(requested, measured)[0, 1], -1, 1))
    low, high = intervals.correlation_interval(r, n)
    result |= {'pearson_r': r, 'pearson_r_low': low, 'pearson_r_high': high}
  return result


def volume_ml(
  segmentation: Array, classes: int | Sequence[int], voxel_ml: Array
) -> np.ndarray:
  """Volume of some classes: labels or probabilities -> (n,) float64 in ml.

  Args:
    segmentation: integer labels (n,d,h,w), or float probabilities (n,d,h,w,k).
    classes: the class or classes to count.
    voxel_ml: volume of one voxel in ml (mm3 / 1000), scalar or (n,).

  Raises:
    ValueError: for another number of axes, or a class without probabilities.
  """
  areas = _presence(segmentation, classes).sum(axis=(1, 2, 3))
  return areas * np.asarray(voxel_ml, np.float64)


def wall_thickness_mm(
  segmentation: Array,
  cavity: int | Sequence[int],
  myocardium: int | Sequence[int],
  spacing_mm: Array,
  middle: float = 1 / 3,
  min_pixels: float = 4.0,
) -> np.ndarray:
  """Mean wall thickness in the middle of a short-axis stack: -> (n,) float64 in mm.

  The radius of the disc with the area of cavity plus myocardium, minus the radius
  of the disc with the area of the cavity, averaged over the middle slices. Base and
  apex are left out: there the wall is cut obliquely and looks thicker.

  Args:
    segmentation: integer labels (n,d,h,w), or float probabilities (n,d,h,w,k).
    cavity: class or classes of the left-ventricular cavity.
    myocardium: class or classes of its wall.
    spacing_mm: voxel size (slice, row, column) in mm, or (n, 3).
    middle: share of the slices with a cavity to use, from the middle; at least one.
    min_pixels: slices whose cavity has fewer pixels are not used.

  Returns NaN for a stack without cavity. Raises ValueError as `volume_ml`.
  """
  inner = _presence(segmentation, cavity).sum(axis=(2, 3))
  outer = inner + _presence(segmentation, myocardium).sum(axis=(2, 3))
  pixel_mm2 = np.prod(np.asarray(spacing_mm, np.float64)[..., -2:], axis=-1)
  pixel_mm2 = np.broadcast_to(pixel_mm2, (len(inner),))
  thickness = np.full(len(inner), np.nan)
  for i in range(len(inner)):
    slices = np.flatnonzero(inner[i] >= min_pixels)
    if not slices.size:
      continue
    count = max(1, round(middle * slices.size))
    start = (slices.size - count) // 2
    chosen = slices[start : start + count]
    outside, inside = (
      np.sqrt(area[i][chosen] * pixel_mm2[i] / np.pi) for area in (outer, inner)
    )
    thickness[i] = (outside - inside).mean()
  return thickness


def width_ratio(
  segmentation: Array,
  inner: int | Sequence[int],
  outer: int | Sequence[int],
  min_pixels: float = 1.0,
) -> np.ndarray:
  """Width of some classes divided by that of others: -> (n,) float64.

  A width is measured along the last axis, from the first to the last column that has
  the classes. For heart and chest it is the cardiothoracic ratio of a frontal film.

  Args:
    segmentation: integer labels (n,d,h,w), or float probabilities (n,d,h,w,k).
    inner, outer: class or classes whose widths are divided.
    min_pixels: columns with fewer pixels of the classes are not counted.

  Returns NaN where one of them is absent. Raises ValueError as `volume_ml`.
  """
  widths = []
  for classes in (inner, outer):
    held = _presence(segmentation, classes).sum(axis=(1, 2)) >= min_pixels
    columns = np.arange(held.shape[1])
    last = np.where(held, columns, -1).max(1)
    first = np.where(held, columns, held.shape[1]).min(1)
    widths.append(np.where(held.any(1), last - first + 1.0, np.nan))
  return widths[0] / widths[1]


def _presence(segmentation, classes):
  """(n,d,h,w) float64: 1, or the summed probability, of the classes in each voxel."""
  segmentation = np.asarray(segmentation)
  classes = np.atleast_1d(classes).astype(int)
  if np.issubdtype(segmentation.dtype, np.floating):
    if segmentation.ndim != 5 or classes.max() >= segmentation.shape[-1]:
      raise ValueError(
        'Expected probabilities (n,d,h,w,k) with k above every class of '
        f'{classes.tolist()}, got the shape {segmentation.shape}; pass integer labels '
        'for a hard segmentation.'
      )
    return segmentation[..., classes].sum(axis=-1, dtype=np.float64)
  if segmentation.ndim != 4:
    raise ValueError(
      f'Expected labels (n,d,h,w), got the shape {segmentation.shape}; add the axis '
      'of examples or drop the one of channels.'
    )
  return np.isin(segmentation, classes).astype(np.float64)


def _varies(x):
  return bool(np.ptp(x) > 1e-12 * max(1.0, float(np.abs(x).max())))
