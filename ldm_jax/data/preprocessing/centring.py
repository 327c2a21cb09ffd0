"""The point of a scan (d,h,w) that is placed in the middle of the processed grid: (3,).

  grid    the middle of the scan
  mass    in plane, the centre of mass of what is brighter than the mean
  label   in plane, the centre of mass of the labels
  heart   in plane, the round bright blob of a ventricle's size nearest to the middle,
          for short-axis stacks without labels: on 66 Sunnybrook stacks 4 mm from the
          labelled cavity in the median, 12 mm in the 90th percentile (the middle of the
          scan: 11 and 21 mm), but 42 mm once
  brain   on all axes, the centre of mass of the head down to 170 mm below the crown
          (the extent that FSL's robustfov keeps), for head scans with a neck

`heart` and `brain` are heuristics; the rule that was used is stored in the record.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ldm_jax.data.readers.volume import Volume

HEURISTICS = ('grid', 'mass', 'heart', 'brain')
# Inner radius of a ventricle, and how far a planned stack usually misses the heart.
HEART_RADIUS_MM, HEART_SPREAD_MM = 20.0, 25.0
HEAD_MM = 170.0
COARSE_MM = 3.0


def centre(
  name: str, otherwise: str, volume: Volume, label: Volume | None
) -> tuple[np.ndarray, str]:
  """The point (3,) in voxels, and the name of the rule that found it.

  Args:
    name: 'label' or one of HEURISTICS.
    otherwise: the heuristic for a scan without labels.
    volume, label: the scan and its labels, or None.
  """
  middle = (np.asarray(volume.array.shape, np.float64) - 1) / 2
  if name == 'label':
    if label is not None and label.array.any():
      return _in_plane_mass(label.array > 0, middle), 'label'
    name = otherwise
  if name == 'mass':
    weight = volume.array > volume.array.mean(dtype=np.float64)
    return _in_plane_mass(weight, middle), name
  if name == 'heart':
    return _heart(volume, middle), name
  if name == 'brain':
    return _brain(volume, middle), name
  return middle, 'grid'


def _in_plane_mass(weight: np.ndarray, middle: np.ndarray) -> np.ndarray:
  plane = weight.sum(0, dtype=np.float64)
  for axis, profile in ((1, plane.sum(1)), (2, plane.sum(0))):
    middle[axis] = profile @ np.arange(profile.size) / profile.sum()
  return middle


def _heart(volume: Volume, middle: np.ndarray) -> np.ndarray:
  spacing = volume.spacing[1:]
  steps = np.maximum(1, (COARSE_MM / spacing).astype(int))
  coarse = volume.array[:, :: steps[0], :: steps[1]]
  bright = np.percentile(coarse, 98, axis=(1, 2), keepdims=True)
  low = coarse.min((1, 2), keepdims=True)
  plane = np.clip((coarse - low) / np.maximum(bright - low, 1e-6), 0, 1).mean(0)
  sigma = HEART_RADIUS_MM / np.sqrt(2) / (spacing * steps)
  blob = np.maximum(-ndimage.gaussian_laplace(plane, sigma), 0)
  place = [np.arange(n) * step for n, step in zip(plane.shape, steps, strict=True)]
  away = [(p - m) * mm for p, m, mm in zip(place, middle[1:], spacing, strict=True)]
  distance2 = away[0][:, None] ** 2 + away[1] ** 2
  score = blob * np.exp(-distance2 / (2 * HEART_SPREAD_MM**2))
  if score.any():
    row, column = np.unravel_index(np.argmax(score), score.shape)
    middle[1:] = place[0][row], place[1][column]
  return middle


def _brain(volume: Volume, middle: np.ndarray) -> np.ndarray:
  """d increases towards superior, so the crown is the last slice with foreground."""
  weight = volume.array > volume.array.mean(dtype=np.float64)
  share = weight.mean((1, 2))
  crown = int(np.flatnonzero(share > 0.05 * share.max())[-1])
  lowest = max(0, crown + 1 - round(HEAD_MM / volume.spacing[0]))
  head = weight[lowest : crown + 1]
  middle = _in_plane_mass(head, middle)
  profile = head.sum((1, 2), dtype=np.float64)
  middle[0] = lowest + profile @ np.arange(profile.size) / profile.sum()
  return middle
