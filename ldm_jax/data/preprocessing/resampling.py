"""Linear resampling of a box, axis by axis: index i of the input = scale * o + offset.

A scale of 1 has an integer offset, and is an exact crop. `Reach` is the part of the
output that the input covers, one range of output indices per axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Reach = tuple[slice, ...]
Vector = Sequence[float] | np.ndarray


def reach(
  shape_in: Sequence[int], shape_out: Sequence[int], scale: Vector, offset: Vector
) -> Reach:
  """Per axis the outputs that lie inside the input's outermost voxels."""
  found = []
  for num_in, num_out, s, o in zip(shape_in, shape_out, scale, offset, strict=True):
    position = s * np.arange(num_out) + o
    inside = (position >= -0.5 - 1e-6) & (position <= num_in - 0.5 + 1e-6)
    places = np.flatnonzero(inside)
    found.append(slice(places[0], places[-1] + 1) if places.size else slice(0, 0))
  return tuple(found)


def linear(
  array: np.ndarray, within: Reach, scale: Vector, offset: Vector
) -> np.ndarray:
  """(d,h,w) -> float32 values of the outputs `within`, without aliasing."""
  matrices = {}
  for axis, (outputs, s, o) in enumerate(zip(within, scale, offset, strict=True)):
    if s == 1:
      first = int(outputs.start + o)
      used = slice(first, first + outputs.stop - outputs.start)
    else:
      weights = _weights(array.shape[axis], outputs, s, o)
      columns = np.flatnonzero(weights.any(0))
      used = slice(columns[0], columns[-1] + 1) if columns.size else slice(0, 0)
      matrices[axis] = weights[:, used]
    array = array[(slice(None),) * axis + (used,)]
  array = np.asarray(array, np.float32)
  # The axis that shrinks most is first, so that the others have less to compute.
  for axis in sorted(matrices, key=lambda a: np.divide(*matrices[a].shape)):
    weights = matrices[axis]
    if axis == 0:
      rest = array.shape[1:]
      array = (weights @ array.reshape(len(array), -1)).reshape(-1, *rest)
    elif axis == 1:
      array = np.matmul(weights, array)
    else:
      array = array @ weights.T
  return array


def nearest(
  array: np.ndarray, within: Reach, scale: Vector, offset: Vector
) -> np.ndarray:
  """(d,h,w) -> the input values nearest to the outputs `within`."""
  index = []
  for num_in, outputs, s, o in zip(array.shape, within, scale, offset, strict=True):
    position = s * np.arange(outputs.start, outputs.stop) + o
    index.append(np.clip(np.floor(position + 0.5), 0, num_in - 1).astype(int))
  return array[np.ix_(*index)]


def _weights(num_in: int, outputs: slice, scale: float, offset: float) -> np.ndarray:
  """(len(outputs), num_in) weights of the samples at scale * o + offset.

  The linear interpolant is averaged over sqrt(scale^2 - 1) voxels, so that a coarser
  grid does not alias; a ramp stays a ramp, hence nothing moves. Rows sum to 1.
  """
  position = scale * np.arange(outputs.start, outputs.stop) + offset
  distance = np.clip(position, 0, num_in - 1)[:, None] - np.arange(num_in)
  half = np.sqrt(max(scale**2 - 1, 0.0)) / 2
  if half < 1e-3:
    weights = np.maximum(1 - np.abs(distance), 0)
  else:
    weights = _hat_integral(distance + half) - _hat_integral(distance - half)
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _hat_integral(x: np.ndarray) -> np.ndarray:
  """Integral of max(1 - |u|, 0) over u < x."""
  x = np.clip(x, -1, 1)
  return 0.5 + x - np.sign(x) * x**2 / 2
