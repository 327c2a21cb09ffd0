"""Building blocks of the phantoms: waves, distances, shares of voxels, noise.

Distances are signed, < 0 inside; a share is the part of a voxel on the inner side of a
border. Points are float32 and carry their coordinates along the first axis, (3, ...).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Size = float | np.ndarray
TOLERANCE = 2e-3  # of a volume that is solved for


class Waves(NamedTuple):
  """A random smooth field of deviation 1, the same on every grid.

  A sum of plane waves of random direction: a Gaussian field with a narrow band.
  """

  vectors: np.ndarray  # (m, axes) radians per mm
  phases: np.ndarray  # (m,)

  @property
  def _scale(self) -> np.float32:
    return np.float32(np.sqrt(2 / len(self.phases)))

  def at(self, points: np.ndarray) -> np.ndarray:
    """Values at points (axes, n): -> (n,)."""
    return self._scale * np.cos(self._angle(points)).sum(1)

  def at_with_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values at points (axes, n): -> (n,), and their gradient (axes, n) per mm."""
    angle = self._angle(points)
    slope = -self._scale * (np.sin(angle) @ self.vectors)
    return self._scale * np.cos(angle).sum(1), slope.T

  def _angle(self, points: np.ndarray) -> np.ndarray:
    return points.T @ self.vectors.T + self.phases

  def on_grid(self, *axes: np.ndarray) -> np.ndarray:
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
    return self._scale * total.reshape([len(axis) for axis in axes])


def waves(
  rng: np.random.Generator,
  wavelength_mm: float,
  num: int = 24,
  axes: int = 3,
  spread: float = 0.3,
) -> Waves:
  """Draws `Waves` of about this wavelength; `spread` is the band's relative width."""
  directions = rng.standard_normal((num, axes))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  lengths = wavelength_mm * np.exp(spread * rng.uniform(-1, 1, (num, 1)))
  vectors = directions * 2 * np.pi / lengths
  return Waves(vectors.astype(np.float32), np.float32(2 * np.pi) * rng.random(num, 'f'))


def ellipsoid(
  points: np.ndarray | Sequence[np.ndarray],
  centre: Sequence[float],
  axes: Sequence[Any],
  power: float = 2.0,
) -> np.ndarray:
  """Distance to a (super)ellipsoid, exact to first order at its surface.

  Args:
    points: (3, ...) or (2, ...).
    centre, axes: one number a coordinate; an axis may be a pair (towards negative,
      towards positive) or an array.
    power: 2 for an ellipsoid, more for a box with round corners.
  """
  total, slope = np.float32(0), np.float32(0)
  for point, middle, axis in zip(points, centre, axes, strict=True):
    offset = point - np.float32(middle)
    if isinstance(axis, tuple):
      axis = np.where(offset < 0, np.float32(axis[0]), np.float32(axis[1]))
    width = axis if isinstance(axis, np.ndarray) else np.float32(axis)
    part = np.abs(offset) / width
    # A square is ten times as fast as a power.
    steep = part if power == 2 else part ** np.float32(power - 1)
    total = total + steep * part
    steep = steep / width
    slope = slope + steep * steep
  if power == 2:
    radius = np.sqrt(total)
    steepness = np.sqrt(slope) / np.maximum(radius, np.float32(1e-3))
  else:
    radius = total ** np.float32(1 / power)
    steepness = np.sqrt(slope) / np.maximum(radius, 1e-3) ** np.float32(power - 1)
  return ((radius - 1) / np.maximum(steepness, 1e-4)).astype(np.float32)


def tube(
  points: np.ndarray, path: np.ndarray | Sequence[Sequence[float]]
) -> tuple[np.ndarray, np.ndarray]:
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


def smooth_union(a: np.ndarray, b: np.ndarray, reach: float) -> np.ndarray:
  """Distance to both together, their crease rounded over `reach`."""
  mix = np.clip(0.5 + 0.5 * (b - a) / np.float32(reach), 0, 1)
  return b + mix * (a - b) - np.float32(reach) * mix * (1 - mix)


def share(distance: np.ndarray, pixel: float) -> np.ndarray:
  """Share of a voxel of this width on the inner side of a border."""
  return np.clip(np.float32(0.5) - distance * np.float32(1 / pixel), 0, 1)


def sheet_share(distance: np.ndarray, half_width: float, pixel: float) -> np.ndarray:
  """Share of a voxel within a sheet, whose distance from its middle is given.

  Unlike `share` it is right for a sheet thinner than the voxel.
  """
  half = np.float32(pixel / 2)
  width = np.float32(half_width)
  upper = np.clip(distance + half, -width, width)
  return (upper - np.clip(distance - half, -width, width)) / np.float32(pixel)


def mix(image: Size, value: Size, amount: np.ndarray) -> np.ndarray:
  """Lays a value over an image by its share, `amount`."""
  return image + amount * (value - image)


def pool(field: np.ndarray, refine: tuple[int, int, int]) -> np.ndarray:
  """Means over blocks: (..., d*r, h*r, w*r) -> (..., d, h, w) for refine (r, r, r)."""
  *lead, d, h, w = field.shape
  a, b, c = refine
  if refine == (1, 1, 1):
    return field
  blocks = field.reshape(*lead, d // a, a, h // b, b, w // c, c)
  return blocks.mean((-5, -3, -1), dtype=np.float32)


def centres(num: int, pitch_mm: float, refine: int = 1) -> np.ndarray:
  """Coordinates in mm of `num` voxels in a row, each divided by `refine`; middle 0."""
  places = (np.arange(num * refine) + 0.5) * (pitch_mm / refine)
  return (places - num * pitch_mm / 2).astype(np.float32)


def rician(
  rng: np.random.Generator, signal: np.ndarray, deviation: float
) -> np.ndarray:
  """Magnitude of a signal with noise of this deviation in two channels."""
  noise = rng.standard_normal((2, *signal.shape), np.float32) * np.float32(deviation)
  return np.sqrt((signal + noise[0]) ** 2 + noise[1] ** 2)


def solve(
  shares: Callable[[float], np.ndarray],
  voxel: float,
  target: float,
  start: float,
  power: float = 2.0,
  most_power: float = 6.0,
  step: tuple[float, float] = (0.5, 2.0),
) -> tuple[float, np.ndarray]:
  """Finds the size at which the voxels' shares add up to the target.

  Secants in the logarithms, since a volume grows like a power of the size; three or
  four evaluations, usually.

  Args:
    shares: size -> shares of the voxels, growing with the size.
    voxel: volume of a voxel, in the unit of the target.
    target: the wanted sum.
    start: first guess of the size.
    power: first guess of the power.
    most_power: limit of the power, against wild steps.
    step: limits of the factor from one size to the next.

  Returns:
    The size and its shares, within 0.2 % of the target.

  Raises:
    ValueError: no size that can be reached has the target.
  """
  size, before = float(start), None
  for _ in range(24):
    field = shares(size)
    value = max(float(field.sum(dtype=np.float64)) * voxel, 1e-6)
    if abs(value / target - 1) < TOLERANCE:
      return size, field
    if before and abs(np.log(size / before[0])) > 1e-9:
      power = np.log(value / before[1]) / np.log(size / before[0])
      power = float(np.clip(power, 0.5, most_power))
    before = size, value
    size *= float(np.clip((target / value) ** (1 / power), *step))
  raise ValueError(f'reached {value / target:.0%} of the requested volume')
