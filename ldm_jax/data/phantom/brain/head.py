"""Geometry of a head that neither age nor disease changes: points -> distances in mm.

Coordinates (x, y, z) = (right, anterior, superior) in mm of a template head with its
origin near the anterior commissure; a subject's head is the template scaled, stretched,
turned and gently bent; the inside of its skull holds the requested volume within 5 %.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from ldm_jax.data.phantom import fields
from ldm_jax.data.phantom.draws import Values, generator
from ldm_jax.data.phantom.fields import ellipsoid, smooth_union, tube
from ldm_jax.data.phantom.grids import VolumeGrid

FINE_MM = 3.4  # coarser voxels are divided
MIDDLE = (0.0, -17.0, 8.0)  # of the template head, comes to the middle of the grid
TEMPLATE_ML = 1815.0  # within its skull, above the foramen magnum
SMALLEST_MM = (135.0, 165.0, 135.0)  # field of view (d, h, w) that holds a head


@dataclasses.dataclass(frozen=True)
class View(VolumeGrid):
  """Grid of a head scan: slices to superior, rows to anterior, columns to the right.

  Raises:
    ValueError: a field of view that would cut the brain.
  """

  shape: tuple[int, ...] = (64, 80, 64)
  spacing_mm: tuple[float, ...] = (2.5, 2.5, 2.5)

  def __post_init__(self):
    super().__post_init__()
    if np.any(np.multiply(self.shape, self.spacing_mm) < SMALLEST_MM):
      raise ValueError(
        f'brain phantom: expected at least {SMALLEST_MM} mm (slices, rows, columns) to '
        f'hold a head, got shape={self.shape} of spacing_mm={self.spacing_mm}; change '
        'the options of the data section'
      )

  @property
  def refine(self) -> tuple[int, int, int]:
    """How many fine voxels make one voxel, an axis each."""
    d, h, w = (int(np.ceil(mm / FINE_MM)) for mm in self.spacing_mm)
    return d, h, w

  @property
  def fine_mm(self) -> np.ndarray:
    """(d, h, w) pitch of the fine voxels."""
    return np.divide(self.spacing_mm, self.refine)

  def axes(self, fine: bool = True) -> list[np.ndarray]:
    """Coordinates in mm of the (fine) voxels: vectors for d, h and w."""
    refine = self.refine if fine else (1, 1, 1)
    return list(map(fields.centres, self.shape, self.spacing_mm, refine))


class Head(NamedTuple):
  """Fine voxels of one head, and distances in mm of the template, < 0 inside."""

  points: np.ndarray  # (3, d, h, w) right, anterior, superior
  half: np.ndarray  # the same, mirrored to the right half
  scale: float  # mm of this head per mm of the template
  hull: np.ndarray  # (d, h, w) smooth outside of the cerebrum, fissures filled
  cerebellum: np.ndarray
  stem: np.ndarray  # midbrain, pons, medulla
  cistern: np.ndarray  # pool of CSF around the midbrain and above the sella
  cavity: np.ndarray  # inside of the skull
  pixel: float  # mean pitch of the fine voxels, mm of the template


def build(subject: Values, intracranial_ml: float, view: View) -> Head:
  """Builds the head of a subject whose skull holds this volume."""
  points, scale = template_points(subject, intracranial_ml, view)
  half = np.concatenate([np.abs(points[:1]), points[1:]])
  hull, leaves, stem = cerebral_hull(half), cerebellum(half), brainstem(half)
  cistern = ellipsoid(half, (0, -13, -21), (17, 27, 12))
  cavity = smooth_union(hull - 1, leaves - 3, 10)
  cavity = smooth_union(cavity, cistern - 1, 10)
  cavity = smooth_union(cavity, stem - 4, 8)
  pixel = float(np.mean(view.fine_mm)) / scale
  return Head(points, half, scale, hull, leaves, stem, cistern, cavity, pixel)


def template_points(
  subject: Values, intracranial_ml: float, view: View
) -> tuple[np.ndarray, float]:
  """Where the fine voxels lie in the template head: (3, d, h, w), and its scale."""
  z, y, x = view.axes()
  grid = np.stack(np.broadcast_arrays(x, y[:, None], z[:, None, None]))
  grid = grid - np.array(subject['shift_mm'], np.float32)[:, None, None, None]
  stretch = np.exp(np.array(subject['shape']) - np.mean(subject['shape']))
  scale = (intracranial_ml / TEMPLATE_ML) ** (1 / 3)
  matrix = _turn(subject['turn_deg']).T / (scale * stretch)[:, None]
  points = np.tensordot(matrix.astype(np.float32), grid, 1)
  points += np.array(MIDDLE, np.float32)[:, None, None, None]
  rng = generator(subject['form_seed'], 'bend')
  for axis in range(3):
    bend = fields.waves(rng, 110.0).on_grid(z, y, x)
    points[axis] += np.float32(1.6) * bend
  return points, float(scale)


def cerebral_hull(half: np.ndarray) -> np.ndarray:
  """Distance to the smooth outside of the cerebrum, fissures filled."""
  x, y, z = half
  # Narrower in front.
  width = 66 - 8 * np.clip((y + 25) / 95, 0, 1) ** 2
  above = ellipsoid((x, y, z), (0, -16, 8), (width, 86, (34, 70)), 2.4)
  temporal = ellipsoid((x, y, z), (40, -18, -18), (23, 44, 27), 2.2)
  return smooth_union(above, temporal, 8)


def cerebellum(half: np.ndarray) -> np.ndarray:
  """Distance to the cerebellum: two hemispheres and the vermis."""
  lateral = ellipsoid(half, (25, -64, -36), (28, 28, 20))
  return smooth_union(lateral, ellipsoid(half, (0, -62, -34), (12, 24, 20)), 8)


def brainstem(half: np.ndarray) -> np.ndarray:
  """Distance to midbrain, pons and medulla."""
  path = [
    (0, -22, -4, 13),
    (0, -25, -22, 13),
    (0, -34, -48, 11),
    (0, -42, -72, 8),
    (0, -46, -96, 7),
  ]
  distances, radii = tube(half.reshape(3, -1), path)
  stem = (distances - radii).min(0).reshape(half.shape[1:])
  return smooth_union(stem, ellipsoid(half, (0, -19, -30), (17, 11, 14)), 6)


def outline(half: np.ndarray, cavity: np.ndarray) -> np.ndarray:
  """Distance to the skin: the scalp, the face and the neck."""
  x, y, z = half
  face = ellipsoid(half, (0, 32, -46), (56, (50, 52), (80, 42)), 2.4)
  nose = ellipsoid(half, (0, 84, -48), (11, 14, 18))
  neck = ellipsoid((x, y), (0, -34), (55, 60), 2.4)
  neck = np.maximum(neck, z + 40)
  skin = smooth_union(cavity - 13, smooth_union(face, nose, 10), 12)
  return smooth_union(skin, neck, 22)


def _turn(degrees):
  """Rotation matrix about x, then y, then z."""
  matrix = np.eye(3)
  for axis, angle in enumerate(np.deg2rad(degrees)):
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
    matrix = turn @ matrix
  return matrix
