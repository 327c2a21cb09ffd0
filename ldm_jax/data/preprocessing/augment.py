"""Random rigid motion and contrast of volumes: (b,d,h,w,1) -> the same.

Label maps beside them, one-hot (b,d,h,w,1 + k), move along.

For public cohorts of few patients, whose scans a network would otherwise memorise. The
transformations keep volumes and thicknesses, so attributes stay true unless one of them
is a position or an angle. Scans of the private cohort are not transformed here: all
that is drawn for one patient belongs inside one clipped gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def augment(
  volumes: np.ndarray,
  rng: np.random.Generator,
  shift: Sequence[float] = (0, 0, 0),
  rotation_deg: Sequence[float] = (0, 0, 0),
  gamma: float = 0.0,
) -> np.ndarray:
  """Transforms every volume by its own draw; beyond the border it is mirrored.

  Args:
    volumes: (b,d,h,w,1) float32 in [0, 1], or (b,d,h,w,1 + k) with one-hot labels.
    rng: numpy.random.Generator.
    shift: largest translation in voxels along d, h and w.
    rotation_deg: largest rotation about the axes d, h and w through the centre; about
      an axis the other two should have one voxel size.
    gamma: intensities become x**exp(u) with u uniform in [-gamma, gamma].
  """
  moved = np.empty_like(volumes)
  for i, volume in enumerate(volumes[..., 0]):
    angles = np.radians(rng.uniform(-1, 1, 3) * rotation_deg)
    matrix = _rotation(angles)
    centre = (np.array(volume.shape) - 1) / 2
    offset = centre - matrix @ (centre + rng.uniform(-1, 1, 3) * np.asarray(shift))
    exponent = math.exp(rng.uniform(-gamma, gamma))
    volume = ndimage.affine_transform(volume, matrix, offset, order=1, mode='mirror')
    moved[i, ..., 0] = np.clip(volume, 0, 1) ** exponent
    if volumes.shape[-1] > 1:
      moved[i, ..., 1:] = _moved_labels(volumes[i, ..., 1:], matrix, offset)
  return moved


def _moved_labels(labels, matrix, offset):
  """One-hot label map (d,h,w,k) moved and one-hot again: the nearest class wins."""
  parts = [
    ndimage.affine_transform(part, matrix, offset, order=1, mode='mirror')
    for part in np.moveaxis(labels, -1, 0)
  ]
  return np.argmax(parts, 0)[..., None] == np.arange(labels.shape[-1])


def _rotation(angles: np.ndarray) -> np.ndarray:
  """Rotation matrix (3,3) about axis 0, then 1, then 2."""
  matrix = np.eye(3)
  for axis, angle in enumerate(angles):
    i, j = [other for other in range(3) if other != axis]
    turn = np.eye(3)
    turn[i, i] = turn[j, j] = math.cos(angle)
    turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
    matrix = turn @ matrix
  return matrix
