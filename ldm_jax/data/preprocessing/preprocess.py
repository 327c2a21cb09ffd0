"""One saved specification turns any volume into a (d,h,w) array in [0,1], and back.

The output grid is a box on the volume's own axes: output index o lies at volume index
i = scale * o + offset, per axis. Where the spacing is kept, scale is 1 and the offset
an integer, so that the step is an exact crop and pad; where it changes, the scan is
resampled linearly, without aliasing. Either way `affine` gives the place of every voxel
in the world. Intensities are scaled by a window: percentiles of the scan's foreground,
or two fixed numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from ldm_jax.data.preprocessing import centring, resampling, slice_gains
from ldm_jax.data.readers import nifti
from ldm_jax.data.readers.grid import Grid
from ldm_jax.data.readers.volume import Volume

CENTRES = (*centring.HEURISTICS, 'label')


@dataclasses.dataclass(frozen=True)
class Spec:
  """How volumes become arrays.

  Attributes:
    shape: (d,h,w) of the result.
    spacing_mm: (d,h,w) in mm, None per axis or as a whole keeps the scan's own; keep d
      of short-axis stacks, whose slices are too far apart to be resampled.
    percentiles: intensities inside the box that become 0 and 1; others are clipped.
    window: the two intensities themselves, the same for every scan, such as (-1000,
      800) Hounsfield units of CT; () takes the percentiles.
    foreground: take the upper percentile of the voxels above the mean only, so that the
      amount of air around the body does not matter.
    centre: what is placed in the middle: 'label' or a heuristic of `centring`.
    centre_without_label: the heuristic for scans without labels, where `centre` is
      'label'.
    harmonise_slices: even out jumps of intensity by one gain per slice (`slice_gains`);
      `invert` removes the gains again. Jumps are measured in any case. Scans with
      intensities below 0 (Hounsfield units) are left as they are: a gain would move
      their zero.
    orientation: which statement of a NIfTI header gives a scan's place, one of
      `nifti.ORIENTATIONS`. It is applied when the files are read.
    least_filled: share of the box that a scan must fill, or it is refused.

  Raises:
    ValueError: an entry out of its limits, naming the config key.
  """

  shape: tuple[int, ...]
  spacing_mm: tuple[float | None, ...] = (None, None, None)
  percentiles: tuple[float, float] = (0.5, 99.5)
  foreground: bool = True
  centre: str = 'grid'
  centre_without_label: str = 'mass'
  harmonise_slices: bool = False
  window: tuple[float, ...] = ()
  orientation: str = nifti.DEFAULT_ORIENTATION
  least_filled: float = 0.01

  def __post_init__(self):
    object.__setattr__(self, 'shape', tuple(int(n) for n in self.shape))
    spacing = self.spacing_mm or (None, None, None)
    spacing = tuple(None if mm is None else float(mm) for mm in spacing)
    object.__setattr__(self, 'spacing_mm', spacing)
    object.__setattr__(self, 'percentiles', tuple(float(p) for p in self.percentiles))
    if len(self.shape) != 3 or min(self.shape) < 1:
      raise ValueError(
        f'preprocess.shape is {self.shape}; expected three positive integers (slices, '
        'rows, columns).'
      )
    if len(spacing) != 3 or any(mm is not None and not mm > 0 for mm in spacing):
      raise ValueError(
        f'preprocess.spacing_mm is {spacing}; expected three positive numbers in mm, '
        'or None where the spacing of the scan is kept.'
      )
    low, high = self.percentiles if len(self.percentiles) == 2 else (1, 0)
    if not 0 <= low < high <= 100:
      raise ValueError(
        f'preprocess.percentiles is {self.percentiles}; expected '
        '0 <= low < high <= 100.'
      )
    if self.centre not in CENTRES:
      raise ValueError(
        f'preprocess.centre is {self.centre!r}; expected one of {CENTRES}.'
      )
    if self.centre_without_label not in centring.HEURISTICS:
      raise ValueError(
        f'preprocess.centre_without_label is {self.centre_without_label!r}; expected '
        f'one of {centring.HEURISTICS}.'
      )
    if not isinstance(self.harmonise_slices, bool):
      raise ValueError(
        f'preprocess.harmonise_slices is {self.harmonise_slices!r}; expected True or '
        'False.'
      )

    self._check_window()
    if self.orientation not in nifti.ORIENTATIONS:
      raise ValueError(
        f'preprocess.orientation is {self.orientation!r}; expected one of '
        f'{", ".join(nifti.ORIENTATIONS)}.'
      )
    if not 0 <= self.least_filled <= 1:
      raise ValueError(
        f'preprocess.least_filled is {self.least_filled}; expected a share from 0 to 1.'
      )

  def _check_window(self):
    try:
      window = tuple(float(value) for value in self.window or ())
    except (TypeError, ValueError):
      window = (1.0, 0.0)
    object.__setattr__(self, 'window', window)
    if window and not (
      len(window) == 2 and np.isfinite(window).all() and window[0] < window[1]
    ):
      raise ValueError(
        f'preprocess.window is {self.window}; expected two intensities, low < high, '
        'such as (-1000, 800), or () for percentiles.'
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
        f'The preprocess section has the keys {sorted(config)}; expected shape and '
        f'optionally others of {known}.'
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
    label: (d,h,w) uint8 or None, 0 where padded.
    record: JSON-able dict that `invert` needs; 'centre' is the rule that placed the
      box, 'slices' is `slice_gains.report` of the scan.
  """

  array: np.ndarray
  label: np.ndarray | None
  record: dict[str, Any]

  @property
  def mask(self) -> np.ndarray:
    """(d,h,w) bool, true where the scan reaches."""
    return mask(self.record, self.array.shape)

  @property
  def affine(self) -> np.ndarray:
    """(4,4), (d,h,w,1) of this grid -> world RAS mm."""
    return np.asarray(self.record['affine'], np.float64)


def apply(spec: Spec, volume: Volume, label: Volume | None = None) -> Processed:
  """Preprocesses one scan (d,h,w) and its labels on the same grid.

  Raises:
    ValueError: labels of another shape, a scan that fills too little of the box, or one
      without contrast.
  """
  if label is not None and label.array.shape != volume.array.shape:
    raise ValueError(
      f'expected labels on the grid of the scan, {volume.array.shape}, got '
      f'{label.array.shape}; correct the label file.'
    )
  ratios = slice_gains.log_ratios(volume.array)
  slices = slice_gains.report(volume.array, ratios)
  gains = None
  if spec.harmonise_slices and not slices['signed']:
    gains = slice_gains.gains(ratios)
  scan = volume.array
  if gains is not None:
    scan = scan * gains[:, None, None].astype(np.float32)
  scale, offset, centre = _placement(spec, volume, label)
  within = resampling.reach(scan.shape, spec.shape, scale, offset)
  share = filled(within, spec.shape)
  if share < spec.least_filled or not share:
    raise ValueError(_too_little(spec, scan.shape, volume.spacing, scale, share))
  if spec.window:
    low, high = spec.window
  else:
    box = _box(scan, spec.shape, scale, offset)
    low, high = window(box, spec.percentiles, spec.foreground)
  inside = resampling.linear(scan, within, scale, offset) - np.float32(low)
  inside *= np.float32(1 / (high - low))
  array = np.zeros(spec.shape, np.float32)
  array[within] = np.clip(inside, 0, 1, out=inside)
  chosen = None
  if label is not None:
    chosen = np.zeros(spec.shape, np.uint8)
    chosen[within] = resampling.nearest(label.array, within, scale, offset)
  to_volume = np.diag([*scale, 1.0])
  to_volume[:3, 3] = offset
  record = {
    'intensity': [low, high],
    'scale': scale.tolist(),
    'offset': offset.tolist(),
    'shape': list(scan.shape),
    'affine': (volume.affine @ to_volume).tolist(),
    'source': cast(Grid, volume.source).to_json(),
    'centre': centre,
    'slices': slices,
    'gains': None if gains is None else gains.tolist(),
    'filled': share,
    'remarks': [list(remark) for remark in volume.remarks],
    'labels': {} if label is None else counted(label.array),
  }
  return Processed(array, chosen, record)


def invert(array: np.ndarray, record: Mapping[str, Any], label: bool = False) -> Volume:
  """Puts a processed array back on the grid of the scan it came from.

  Args:
    array: (d,h,w) of the processed grid; intensities in [0,1], or labels.
    record: `Processed.record` of that scan.
    label: nearest neighbour and no intensities, for labels.

  Returns:
    A volume on the original grid with the original affine. Voxels outside the processed
    grid have the lower intensity (or label 0).
  """
  low, high = record['intensity']
  shape = tuple(record['shape'])
  scale = 1 / np.asarray(record['scale'])
  offset = -np.asarray(record['offset']) * scale
  source = Grid.from_json(record['source'])
  within = resampling.reach(array.shape, shape, scale, offset)
  if label:
    back = np.zeros(shape, np.uint8)
    back[within] = resampling.nearest(np.asarray(array), within, scale, offset)
    return Volume(back, source.oriented_affine(), source)
  back = np.full(shape, low, np.float32)
  inside = resampling.linear(np.asarray(array), within, scale, offset)
  back[within] = inside * np.float32(high - low) + np.float32(low)
  if record.get('gains'):
    back /= np.asarray(record['gains'], np.float32)[:, None, None]
  return Volume(back, source.oriented_affine(), source)


def mask(record: Mapping[str, Any], shape: Sequence[int]) -> np.ndarray:
  """Bool of the processed `shape`, true where the scan of the record reaches."""
  found = np.zeros(tuple(shape), bool)
  found[resampling.reach(record['shape'], shape, record['scale'], record['offset'])] = (
    True
  )
  return found


def filled(within: resampling.Reach, shape: Sequence[int]) -> float:
  """Share of a box of `shape` that a scan fills, from its `resampling.reach`."""
  return float(np.prod([axis.stop - axis.start for axis in within]) / np.prod(shape))


def extents_in_words(
  shape: Sequence[int],
  spacing: Sequence[float] | np.ndarray,
  box: Sequence[int],
  box_spacing: Sequence[float] | np.ndarray,
) -> str:
  """'the scan measures 1 x 64 x 64 mm, the box 128 x 128 x 128 mm (slices, ...)'."""
  sizes = [
    ' x '.join(f'{mm:.3g}' for mm in np.asarray(voxels) * np.asarray(each))
    for voxels, each in ((shape, spacing), (box, box_spacing))
  ]
  return f'the scan measures {sizes[0]} mm, the box {sizes[1]} mm (d x h x w)'


def _too_little(spec: Spec, shape, spacing, scale, share: float) -> str:
  sizes = extents_in_words(shape, spacing, spec.shape, spacing * scale)
  return (
    f'{sizes}, so it fills {100 * share:.2g} % of the box; expected at least '
    f'{100 * spec.least_filled:g} % (data.preprocess.least_filled). Check the unit in '
    'the header of the file; otherwise set --config.data.preprocess.spacing_mm and '
    '--config.data.preprocess.shape (--stages=doctor proposes both), or lower '
    '--config.data.preprocess.least_filled.'
  )


def counted(label: np.ndarray) -> dict[str, int]:
  """Label value -> voxels, of those that there are."""
  counts = np.bincount(label.ravel(), minlength=1)
  return {str(value): int(counts[value]) for value in np.flatnonzero(counts)}


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
) -> tuple[np.ndarray, np.ndarray, str]:
  """Scale and offset per axis (volume index = scale * output index + offset), rule."""
  spacing = volume.spacing
  target = [
    own if wanted is None else wanted
    for own, wanted in zip(spacing, spec.spacing_mm, strict=True)
  ]
  scale = np.asarray(target) / spacing
  scale = np.where(np.abs(scale - 1) < 1e-4, 1.0, scale)
  middle, rule = centring.centre(spec.centre, spec.centre_without_label, volume, label)
  offset = middle - scale * (np.asarray(spec.shape) - 1) / 2
  return scale, np.where(scale == 1, np.floor(offset + 0.5), offset), rule


def window(
  array: np.ndarray, percentiles: tuple[float, float], foreground: bool
) -> tuple[float, float]:
  """Intensities (low, high) that become 0 and 1.

  Args:
    array: (d,h,w) float32.
    percentiles: of all voxels, and of the foreground if `foreground` else of all.
    foreground: what is brighter than the mean.

  Raises:
    ValueError: one constant value.
  """
  values = np.asarray(array, np.float32).ravel()
  smallest, largest = float(values.min()), float(values.max())
  if not smallest < largest:
    raise ValueError(
      f'expected an image, got a scan with the constant value {smallest:g}. Remove the '
      'file from the cohort.'
    )
  mean = values.mean(dtype=np.float64)
  # Voxels that each percentile leaves out; the foreground is brighter than the mean.
  skipped = np.array([0, np.sum(values <= mean) if foreground else 0])
  places = np.array(percentiles) / 100 * (len(values) - 1 - skipped)
  below = skipped + np.floor(places).astype(int)
  above = skipped + np.ceil(places).astype(int)
  values = np.partition(values, np.unique([below, above]))
  # In float64, unlike np.percentile of float32.
  first, second = values[below].astype(np.float64), values[above].astype(np.float64)
  low, high = first + (second - first) * (places - np.floor(places))
  # Few bright voxels on a flat ground leave nothing between the percentiles.
  return (float(low), float(high)) if low < high else (smallest, largest)
