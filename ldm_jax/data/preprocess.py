"""One saved specification turns any volume into a (d,h,w) array in [0,1], and back.

The output grid is a box on the volume's own axes: output index o lies at volume index
i = scale * o + offset, per axis. Where the spacing is kept, scale is 1 and the offset
an integer, so that the step is an exact crop and pad; where it changes, the scan is
resampled linearly, without aliasing. Either way `affine` says where every voxel lies in
the world.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax.data.grid import Grid
from ldm_jax.data.volume import Volume

CENTRES = ('grid', 'mass', 'label')


@dataclasses.dataclass(frozen=True)
class Spec:
  """How volumes become arrays.

  Attributes:
    shape: (d,h,w) of the result.
    spacing_mm: (d,h,w) in mm, None per axis or as a whole keeps the scan's own; keep d
      of short-axis stacks, whose slices are too far apart to be resampled.
    percentiles: intensities inside the box that become 0 and 1; beyond, it saturates.
    foreground: measure the upper percentile above the mean only, so that the amount of
      air around the body does not matter.
    centre: what comes to the middle, in plane: 'grid' the middle of the scan, 'mass'
      the foreground's centre of mass, 'label' that of the labels (or of the
      foreground, where a scan has none). Along d it is always the middle of the scan.

  Raises:
    ValueError: an entry out of its limits, naming the config key.
  """

  shape: tuple[int, int, int]
  spacing_mm: tuple[float | None, ...] | None = None
  percentiles: tuple[float, float] = (0.5, 99.5)
  foreground: bool = True
  centre: str = 'grid'

  def __post_init__(self):
    object.__setattr__(self, 'shape', tuple(int(n) for n in self.shape))
    spacing = self.spacing_mm or (None, None, None)
    spacing = tuple(None if mm is None else float(mm) for mm in spacing)
    object.__setattr__(self, 'spacing_mm', spacing)
    object.__setattr__(self, 'percentiles', tuple(float(p) for p in self.percentiles))
    if len(self.shape) != 3 or min(self.shape) < 1:
      raise ValueError(
        f'preprocess.shape is {self.shape}; required are three positive integers '
        '(slices, rows, columns).'
      )
    if len(spacing) != 3 or any(mm is not None and not mm > 0 for mm in spacing):
      raise ValueError(
        f'preprocess.spacing_mm is {spacing}; required are three positive numbers in '
        'mm, None where the spacing of the scan is kept.'
      )
    low, high = self.percentiles if len(self.percentiles) == 2 else (1, 0)
    if not 0 <= low < high <= 100:
      raise ValueError(
        f'preprocess.percentiles is {self.percentiles}; required is '
        '0 <= low < high <= 100.'
      )
    if self.centre not in CENTRES:
      raise ValueError(
        f'preprocess.centre is {self.centre!r}; required is one of {CENTRES}.'
      )

  def to_config(self) -> dict[str, Any]:
    """JSON-able dict from which `from_config` rebuilds the same spec."""
    config = dataclasses.asdict(self)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}

  @classmethod
  def from_config(cls, config: Mapping[str, Any]) -> Spec:
    """Builds a spec; an unknown key is a ValueError."""
    config = dict(config)
    known = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(config) - set(known))
    if unknown or 'shape' not in config:
      raise ValueError(
        f'The preprocess section has the keys {sorted(config)}; required is shape, '
        f'allowed are {known}.'
      )
    return cls(**config)

  def digest(self) -> str:
    """SHA-256 of the spec; part of the key of every stored volume."""
    text = json.dumps(self.to_config(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Processed:
  """A preprocessed volume.

  Attributes:
    array: (d,h,w) float32 in [0,1], 0 where padded.
    mask: (d,h,w) bool, true where the scan reaches.
    label: (d,h,w) uint8 or None, 0 where padded.
    affine: (4,4), (d,h,w,1) of this grid -> world RAS mm.
    record: JSON-able dict that `invert` needs.
  """

  array: np.ndarray
  mask: np.ndarray
  label: np.ndarray | None
  affine: np.ndarray
  record: dict[str, Any]


def apply(spec: Spec, volume: Volume, label: Volume | None = None) -> Processed:
  """Preprocesses one scan (d,h,w) and its labels on the same grid.

  Raises:
    ValueError: labels of another shape, or a scan that keeps no voxel or no contrast.
  """
  if label is not None and label.array.shape != volume.array.shape:
    raise ValueError(
      f'Labels of shape {label.array.shape} came for a scan of {volume.array.shape}; '
      'required is one grid.'
    )
  scale, offset = _placement(spec, volume, label)
  low, high = _window(spec, _box(volume.array, spec.shape, scale, offset))
  scaled = ((volume.array - low) / (high - low)).astype(np.float32)
  array = np.clip(_resample(scaled, spec.shape, scale, offset), 0, 1)
  inside = [
    _nearest(num_in, num_out, s, o)
    for num_in, num_out, s, o in zip(
      volume.array.shape, spec.shape, scale, offset, strict=True
    )
  ]
  real = [index >= 0 for index in inside]
  mask = real[0][:, None, None] & real[1][:, None] & real[2]
  chosen = None
  if label is not None:
    chosen = np.where(mask, label.array[np.ix_(*inside)], 0).astype(np.uint8)
  to_volume = np.diag([*scale, 1.0])
  to_volume[:3, 3] = offset
  affine = volume.affine @ to_volume
  record = {
    'intensity': [low, high],
    'scale': scale.tolist(),
    'offset': offset.tolist(),
    'shape': list(volume.array.shape),
    'affine': affine.tolist(),
    'source': volume.source.to_json(),
  }
  return Processed(array * mask, mask, chosen, affine, record)


def invert(array: np.ndarray, record: Mapping[str, Any], label: bool = False) -> Volume:
  """Puts a processed array back on the grid of the scan it came from.

  Args:
    array: (d,h,w) of the processed grid; intensities in [0,1], or labels.
    record: `Processed.record` of that scan.
    label: nearest neighbour and no intensities, for labels.

  Returns:
    A volume on the original grid with the original affine. Voxels that the processed
    grid does not cover carry the lower intensity (or label 0).
  """
  low, high = record['intensity']
  shape = tuple(record['shape'])
  scale = 1 / np.asarray(record['scale'])
  offset = -np.asarray(record['offset']) * scale
  source = Grid.from_json(record['source'])
  if label:
    index = [
      _nearest(num_in, num_out, s, o)
      for num_in, num_out, s, o in zip(array.shape, shape, scale, offset, strict=True)
    ]
    real = [i >= 0 for i in index]
    mask = real[0][:, None, None] & real[1][:, None] & real[2]
    back = np.where(mask, np.asarray(array)[np.ix_(*index)], 0).astype(np.uint8)
  else:
    back = _resample(np.asarray(array, np.float32), shape, scale, offset)
    back = (back * np.float32(high - low) + np.float32(low)).astype(np.float32)
  return Volume(back, source.oriented_affine(), source)


def _window(spec: Spec, array: np.ndarray) -> tuple[float, float]:
  """Intensities that become 0 and 1."""
  array = np.asarray(array, np.float32)
  low = float(np.percentile(array, spec.percentiles[0]))
  body = array[array > array.mean(dtype=np.float64)] if spec.foreground else array
  high = float(np.percentile(body if body.size else array, spec.percentiles[1]))
  if not low < high:  # a few bright voxels on a flat ground
    low, high = float(array.min()), float(array.max())
  if not low < high:
    raise ValueError(
      f'A scan with the constant value {low:g} came; required is an image. Remove the '
      'file from the cohort.'
    )
  return low, high


def _box(
  array: np.ndarray, shape: Sequence[int], scale: np.ndarray, offset: np.ndarray
) -> np.ndarray:
  """The part of the scan that the output grid covers; all of it if that is flat."""
  cuts = []
  for length, num_out, s, o in zip(array.shape, shape, scale, offset, strict=True):
    cuts.append(slice(max(0, int(o)), min(length, int(o + s * (num_out - 1)) + 1)))
  box = array[tuple(cuts)]
  return box if box.size and box.min() < box.max() else array


def _placement(
  spec: Spec, volume: Volume, label: Volume | None
) -> tuple[np.ndarray, np.ndarray]:
  """Scale and offset per axis: volume index = scale * output index + offset."""
  shape = np.asarray(volume.array.shape, np.float64)
  spacing = volume.spacing
  target = [
    own if wanted is None else wanted
    for own, wanted in zip(spacing, spec.spacing_mm, strict=True)
  ]
  scale = np.asarray(target) / spacing
  scale = np.where(np.abs(scale - 1) < 1e-4, 1.0, scale)
  middle = (shape - 1) / 2
  if spec.centre != 'grid':
    weight = None if label is None else label.array > 0
    if spec.centre == 'mass' or weight is None or not weight.any():
      weight = volume.array > volume.array.mean(dtype=np.float64)
    for axis in (1, 2):
      profile = weight.sum(axis=tuple({0, 1, 2} - {axis}), dtype=np.float64)
      middle[axis] = profile @ np.arange(profile.size) / profile.sum()
  offset = middle - scale * (np.asarray(spec.shape) - 1) / 2
  offset = np.where(scale == 1, np.floor(offset + 0.5), offset)
  return scale, offset


def _resample(
  array: np.ndarray, shape: Sequence[int], scale: np.ndarray, offset: np.ndarray
) -> np.ndarray:
  """(d,h,w) -> `shape`, one matrix per axis; 0 where the array does not reach."""
  for axis in range(3):
    if scale[axis] == 1 and offset[axis] == 0 and array.shape[axis] == shape[axis]:
      continue
    weights = _weights(array.shape[axis], shape[axis], scale[axis], offset[axis])
    array = np.moveaxis(np.tensordot(weights, array, (1, axis)), 0, axis)
  return np.ascontiguousarray(array, np.float32)


def _weights(num_in: int, num_out: int, scale: float, offset: float) -> np.ndarray:
  """(num_out, num_in) weights of the samples at scale * o + offset.

  The linear interpolant is averaged over sqrt(scale^2 - 1) voxels, so that a coarser
  grid does not alias; a ramp stays a ramp, hence nothing moves. Rows sum to 1, or to 0
  where the array does not reach.
  """
  position = scale * np.arange(num_out) + offset
  inside = (position >= -0.5 - 1e-6) & (position <= num_in - 0.5 + 1e-6)
  distance = np.clip(position, 0, num_in - 1)[:, None] - np.arange(num_in)
  half = np.sqrt(max(scale**2 - 1, 0.0)) / 2
  if half < 1e-3:
    weights = np.maximum(1 - np.abs(distance), 0)
  else:
    weights = _hat_integral(distance + half) - _hat_integral(distance - half)
  weights = weights / weights.sum(axis=1, keepdims=True) * inside[:, None]
  return weights.astype(np.float32)


def _hat_integral(x: np.ndarray) -> np.ndarray:
  """Integral of max(1 - |u|, 0) over u < x."""
  x = np.clip(x, -1, 1)
  return 0.5 + x - np.sign(x) * x**2 / 2


def _nearest(num_in: int, num_out: int, scale: float, offset: float) -> np.ndarray:
  """(num_out,) nearest input index of every output index, -1 where there is none."""
  position = scale * np.arange(num_out) + offset
  inside = (position >= -0.5 - 1e-6) & (position <= num_in - 0.5 + 1e-6)
  index = np.clip(np.floor(position + 0.5), 0, num_in - 1).astype(int)
  return np.where(inside, index, -1)
