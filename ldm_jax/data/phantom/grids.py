"""The grid of a rendered volume."""

from __future__ import annotations

import dataclasses

import numpy as np

from ldm_jax.data.readers.grid import centred_affine


@dataclasses.dataclass(frozen=True)
class VolumeGrid:
  """A grid of voxels, centred at the origin of the world.

  Attributes:
    shape: (d, h, w) voxels.
    spacing_mm: their pitch.

  Raises:
    ValueError: other than three positive numbers each.
  """

  shape: tuple[int, ...]
  spacing_mm: tuple[float, ...]

  def __post_init__(self):
    object.__setattr__(self, 'shape', tuple(int(n) for n in self.shape))
    object.__setattr__(self, 'spacing_mm', tuple(float(s) for s in self.spacing_mm))
    for name in ('shape', 'spacing_mm'):
      value = getattr(self, name)
      if len(value) != 3 or min(value) <= 0:
        raise ValueError(
          f'phantom: expected {name} to be three positive numbers (slices, rows, '
          f'columns), got {value}; change the options of the data section'
        )

  @property
  def affine(self) -> np.ndarray:
    """(4, 4): index (d, h, w, 1) -> world (x, y, z, 1) in mm, RAS, centred at 0."""
    return centred_affine(self.shape, self.spacing_mm)

  @property
  def voxel_ml(self) -> float:
    """Volume of a voxel."""
    return float(np.prod(self.spacing_mm)) / 1000
