"""Building blocks of the brain and chest phantoms: waves, distances, shares.

Distances are signed, < 0 inside; a share is the part of a voxel on the inner side of a
border. Points are float32 and carry their coordinates along the first axis, (3, ...).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np


class Waves(NamedTuple):
  """A random smooth field of deviation 1, the same on every grid.

  A sum of plane waves of random direction: a Gaussian field with a narrow band.
  """

  vectors: np.ndarray  # (m, axes) radians per mm
  phases: np.ndarray  # (m,)

  def at(self, points):
    """Values at points (axes, n): -> (n,), and their gradient (axes, n) per mm."""
    angle = points.T @ self.vectors.T + self.phases
    scale = np.float32(np.sqrt(2 / len(self.phases)))
    slope = -scale * (np.sin(angle) @ self.vectors)
    return scale * np.cos(angle).sum(1), slope.T

  def on_grid(self, *axes):
    """Values on the grid spanned by coordinates in mm, one vector an axis."""
    factors = [
      np.exp(1j * np.outer(vector, axis)).astype(np.complex64)
      for vector, axis in zip(self.vectors.T, axes, strict=True)
    ]
    first = factors[0] * np.exp(1j * self.phases)[:, None]
    for factor in factors[1:-1]:
      first = (first[:, :, None] * factor[:, None]).reshape(len(first), -1)
    last = factors[-1]
    # The real part of a complex product, as two real ones.
    left = np.concatenate([first.real, -first.imag]).T.copy()
    total = left @ np.concatenate([last.real, last.imag])
    scale = np.float32(np.sqrt(2 / len(self.phases)))
    return scale * total.reshape([len(axis) for axis in axes])


def waves(rng, wavelength_mm, num=24, axes=3, spread=0.3):
  """Draws `Waves` of about this wavelength; `spread` is the band's relative width."""
  directions = rng.standard_normal((num, axes))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  lengths = wavelength_mm * np.exp(spread * rng.uniform(-1, 1, (num, 1)))
  vectors = directions * 2 * np.pi / lengths
  return Waves(vectors.astype(np.float32), np.float32(2 * np.pi) * rng.random(num, 'f'))


def ellipsoid(points, centre, axes, power=2.0):
  """Distance to a (super)ellipsoid, exact to first order at its surface.

  Args:
    points: (3, ...) or (2, ...).
    centre, axes: one number a coordinate; an axis may be a pair (towards negative,
      towards positive) or an array.
    power: 2 for an ellipsoid, more for a box with round corners.
  """
  total, slope = 0.0, 0.0
  for point, middle, axis in zip(points, centre, axes, strict=True):
    offset = point - np.float32(middle)
    if isinstance(axis, tuple):
      axis = np.where(offset < 0, np.float32(axis[0]), np.float32(axis[1]))
    part = np.abs(offset) / (np.float32(axis) if np.isscalar(axis) else axis)
    # A square is ten times as fast as a power.
    steep = part if power == 2 else part ** np.float32(power - 1)
    total = total + steep * part
    steep = steep / (np.float32(axis) if np.isscalar(axis) else axis)
    slope = slope + steep * steep
  if power == 2:
    radius = np.sqrt(total)
    steepness = np.sqrt(slope) / np.maximum(radius, np.float32(1e-3))
  else:
    radius = total ** np.float32(1 / power)
    steepness = np.sqrt(slope) / np.maximum(radius, 1e-3) ** np.float32(power - 1)
  return ((radius - 1) / np.maximum(steepness, 1e-4)).astype(np.float32)


def tube(points, path):
  """Distance to the axis of a bent tube and its radius there, per stretch.

  Args:
    points: (3, n) or (2, n).
    path: rows (x, y, [z,] radius) along the axis.

  Returns:
    distances (m, n), radii (m, n) of the m stretches; the tube scaled in thickness by k
    is where (distances - k * radii).min(0) < 0.
  """
  path = np.asarray(path, np.float32)
  distances, radii = [], []
  for start, stop in itertools.pairwise(path):
    along = stop[:-1] - start[:-1]
    offset = points - start[:-1, None]
    position = np.clip((along @ offset) / (along @ along), 0, 1)
    offset -= along[:, None] * position
    distances.append(np.sqrt((offset * offset).sum(0)))
    radii.append(start[-1] + (stop[-1] - start[-1]) * position)
  return np.stack(distances), np.stack(radii)


def smooth_union(a, b, reach):
  """Distance to both together, their crease rounded over `reach`."""
  mix = np.clip(0.5 + 0.5 * (b - a) / np.float32(reach), 0, 1)
  return b + mix * (a - b) - np.float32(reach) * mix * (1 - mix)


def share(distance, pixel):
  """Share of a voxel of this width on the inner side of a border."""
  return np.clip(np.float32(0.5) - distance * np.float32(1 / pixel), 0, 1)


def sheet_share(distance, half_width, pixel):
  """Share of a voxel within a sheet, whose distance from its middle is given.

  Unlike `share` it is right for a sheet thinner than the voxel.
  """
  half = np.float32(pixel / 2)
  width = np.float32(half_width)
  upper = np.clip(distance + half, -width, width)
  return (upper - np.clip(distance - half, -width, width)) / np.float32(pixel)


def mix(image, value, amount):
  """Lays a value over an image by its share."""
  return image + amount * (value - image)


def pool(field, refine):
  """Means over blocks: (..., d*r, h*r, w*r) -> (..., d, h, w) for refine (r, r, r)."""
  *lead, d, h, w = field.shape
  a, b, c = refine
  if refine == (1, 1, 1):
    return field
  blocks = field.reshape(*lead, d // a, a, h // b, b, w // c, c)
  return blocks.mean((-5, -3, -1), dtype=np.float32)


def solve(total, target, start, power=2.0, tolerance=2e-3):
  """Size at which the growing function `total(size)` meets the target.

  Secants in the logarithms, since a volume grows like a power of the size.

  Raises:
    ValueError: if no size within a factor of about a hundred does.
  """
  size, before = float(start), None
  for _ in range(24):
    value = max(float(total(size)), 1e-6)
    if abs(value / target - 1) < tolerance:
      return size
    if before and abs(np.log(size / before[0])) > 1e-9:
      power = np.log(value / before[1]) / np.log(size / before[0])
      power = float(np.clip(power, 0.5, 6))
    before = size, value
    size *= float(np.clip((target / value) ** (1 / power), 0.5, 2))
  raise ValueError(f'reached {value:.3g} where {target:.3g} is required')
