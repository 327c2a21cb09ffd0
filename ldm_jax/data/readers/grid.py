"""Grids: how a file's axes (x,y,z) become (d,h,w), exactly, and back.

Axes are flipped and permuted, never resampled. An affine is a (4,4) matrix that maps
homogeneous array indices to world RAS millimetres.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from ldm_jax.types import Shape


@dataclasses.dataclass(frozen=True)
class Grid:
  """A file's own grid and how it was turned into (d,h,w).

  Attributes:
    shape: (x,y,z) of the file.
    affine: (4,4), (x,y,z,1) -> world RAS mm.
    axes: the file axis that became d, h and w.
    flips: whether d, h and w run in the opposite direction of that file axis.
  """

  shape: Shape
  affine: np.ndarray
  axes: tuple[int, ...] = (2, 1, 0)
  flips: tuple[bool, ...] = (False, False, False)

  def orient(self, array: np.ndarray) -> np.ndarray:
    """(x,y,z) in the file's order -> (d,h,w)."""
    turned = np.transpose(array, self.axes)
    return turned[tuple(slice(None, None, -1 if f else 1) for f in self.flips)]

  def restore(self, array: np.ndarray) -> np.ndarray:
    """(d,h,w) -> (x,y,z) in the file's order; the exact inverse of `orient`."""
    turned = array[tuple(slice(None, None, -1 if f else 1) for f in self.flips)]
    return np.transpose(turned, np.argsort(self.axes))

  def oriented_affine(self) -> np.ndarray:
    """(4,4), (d,h,w,1) -> world RAS mm."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for index, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
      turn[axis, index] = -1 if flip else 1
      turn[axis, 3] = self.shape[axis] - 1 if flip else 0
    return self.affine @ turn

  def to_json(self) -> dict[str, Any]:
    """JSON-able dict from which `from_json` rebuilds the grid."""
    return {
      'shape': list(self.shape),
      'affine': np.asarray(self.affine, float).tolist(),
      'axes': list(self.axes),
      'flips': list(self.flips),
    }

  @classmethod
  def from_json(cls, entry: Mapping[str, Any]) -> Grid:
    """Inverse of `to_json`."""
    return cls(
      tuple(entry['shape']),
      np.asarray(entry['affine'], np.float64),
      tuple(entry['axes']),
      tuple(bool(flip) for flip in entry['flips']),
    )


def spacing_of(affine: np.ndarray) -> np.ndarray:
  """Voxel size in mm along the three array axes of a (4,4) affine."""
  return np.linalg.norm(np.asarray(affine, np.float64)[:3, :3], axis=0)


def centred_affine(
  shape: Sequence[int], spacing_mm: Sequence[float] | np.ndarray
) -> np.ndarray:
  """(4, 4): index (d, h, w, 1) -> world (x, y, z, 1) in mm, RAS, centred at 0."""
  affine = np.zeros((4, 4))
  for axis in range(3):
    affine[2 - axis, axis] = spacing_mm[axis]
    affine[2 - axis, 3] = -spacing_mm[axis] * (shape[axis] - 1) / 2
  affine[3, 3] = 1
  return affine


def own_grid(shape: Shape, affine: np.ndarray) -> Grid:
  """The grid of a (d,h,w) array that is from no file: as if its file were (w,h,d)."""
  file_affine = np.asarray(affine, np.float64)[:, [2, 1, 0, 3]]
  return Grid(tuple(int(n) for n in shape[::-1]), file_affine)


def grid_of_file(shape: Shape, affine: np.ndarray, stack: bool = False) -> Grid:
  """Chooses the axes and flips that turn a file's (x,y,z) into (d,h,w).

  Args:
    shape: (x,y,z) of the file.
    affine: (4,4), (x,y,z,1) -> world RAS mm; may be oblique.
    stack: d is the through-plane axis (the one of clearly largest spacing, else the
      file's z); otherwise d, h, w are the axes nearest to S, A, R.

  Returns:
    The grid; its (d,h,w) increase towards superior, anterior and right, as far as the
    file's axes allow.
  """
  orientation = nib.io_orientation(affine).astype(int)
  world_axis, signs = orientation[:, 0], orientation[:, 1]
  axes = [int(np.flatnonzero(world_axis == world)[0]) for world in (2, 1, 0)]
  if stack:
    spacing = spacing_of(affine)
    thickest = int(np.argmax(spacing))
    unique = np.sum(spacing > 0.99 * spacing[thickest]) == 1
    through = thickest if unique else 2
    axes = [through, *(axis for axis in axes if axis != through)]
  flips = tuple(bool(signs[axis] < 0) for axis in axes)
  return Grid(tuple(int(n) for n in shape), np.array(affine, float), tuple(axes), flips)


class Remark(NamedTuple):
  """What had to be decided to read a scan.

  Attributes:
    kind: 'orientation', 'unit', 'padding' or 'positions'; remarks of one kind are told
      together.
    text: about this scan, without its name.
  """

  kind: str
  text: str


@dataclasses.dataclass(frozen=True)
class Header:
  """What a file says about itself before its voxels are read."""

  grid: Grid
  num_frames: int
  remarks: tuple[Remark, ...] = ()

  @property
  def shape(self) -> Shape:
    """(d,h,w)."""
    return tuple(self.grid.shape[axis] for axis in self.grid.axes)

  @property
  def spacing(self) -> np.ndarray:
    """Voxel size in mm along (d,h,w)."""
    return spacing_of(self.grid.oriented_affine())

  @property
  def voxel_ml(self) -> float:
    """Volume of one voxel in millilitres."""
    return float(abs(np.linalg.det(self.grid.affine[:3, :3]))) / 1000.0
