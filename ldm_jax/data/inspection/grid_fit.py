"""How well the preprocessed grid fits the scans, and a proposal of a grid that fits.

A scan fits if it keeps enough voxels and fills its box. The proposed grid covers the
extent of most scans, in multiples that the networks need, and is as fine as a number of
voxels allows: the finest axes are coarsened first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ldm_jax.data.preprocessing import centring, resampling
from ldm_jax.data.preprocessing.preprocess import Spec, extents_in_words
from ldm_jax.data.readers.grid import spacing_of
from ldm_jax.data.readers.volume import Volume
from ldm_jax.data.store.split import Split

FEW = 16  # voxels along an axis; fewer are poor where the file has clearly more
CLEARLY = 1.25
EMPTY = 0.02  # share of the box; a foreground that fills less is lost in it
COVERED = 95  # percent of the scans whose extent the proposed box covers, per axis
WHOLE_SCAN = ('grid', 'mass')  # values of `centre` for which the box covers all
WHOLE = 0.8  # share of the extent of most scans that a fitting box covers
THICK = 2  # times the finest spacing of a scan
COARSER = 2  # a fitting grid has voxels of at most so many times the proposed volume
AROUND_LABEL = 1.5  # times the labels' extent is covered where these are centred
# Multiples of the finest spacing that are tried in turn.
STEPS = (*(1, 1.1, 1.2, 1.25, 1.4, 1.5, 1.6, 1.75), *(2, 2.5, 3, 3.5), *(4, 5, 6, 7))


@dataclasses.dataclass(frozen=True)
class Geometry:
  """Size of a scan on its own grid, axes (d,h,w).

  Attributes:
    shape: in voxels.
    spacing: in mm.
    extent: mm that a box about the centre must cover.
    bright: share of the voxels that are brighter than the mean.
  """

  shape: tuple[int, ...]
  spacing: tuple[float, ...]
  extent: tuple[float, ...]
  bright: float


def measure(scan: Volume, label: Volume | None, spec: Spec | None = None) -> Geometry:
  """The geometry of a scan.

  The extent to be covered is all of the scan; where labels are centred, these and their
  surroundings; where an organ is searched for, the planned box.
  """
  spacing = np.asarray(scan.spacing, np.float64)
  extent = np.array(scan.array.shape) * spacing
  if spec is not None and spec.centre not in WHOLE_SCAN:
    if spec.centre == 'label' and label is not None and label.array.any():
      middle, _ = centring.centre('label', 'grid', scan, label)
      half = np.abs(np.argwhere(label.array > 0) - middle).max(0) + 0.5
      wanted = AROUND_LABEL * 2 * half * spacing
    else:
      own = zip(spec.spacing_mm, spacing, strict=True)
      wanted = np.array([mm or kept_mm for mm, kept_mm in own]) * spec.shape
    extent = np.minimum(extent, wanted)
  return Geometry(
    scan.array.shape,
    tuple(spacing.tolist()),
    tuple(extent.tolist()),
    float((scan.array > scan.array.mean(dtype=np.float64)).mean()),
  )


def kept(spec: Spec, geometry: Geometry) -> tuple[int, ...]:
  """Voxels (d,h,w) that are left of a scan in the middle of the box."""
  scale = _target(spec, geometry) / geometry.spacing
  scale = np.where(np.abs(scale - 1) < 1e-4, 1.0, scale)
  offset = (np.array(geometry.shape) - 1) / 2 - scale * (np.array(spec.shape) - 1) / 2
  offset = np.where(scale == 1, np.floor(offset + 0.5), offset)
  reach = resampling.reach(geometry.shape, spec.shape, scale, offset)
  return tuple(int(axis.stop - axis.start) for axis in reach)


def filled(spec: Spec, geometry: Geometry) -> float:
  """Share of the box that a scan in its middle fills."""
  return float(np.prod(kept(spec, geometry)) / np.prod(spec.shape))


def inside(spec: Spec, geometry: Geometry) -> float:
  """Share of the extent that the box covers, on its worst axis."""
  box = _target(spec, geometry) * spec.shape
  return float(np.minimum(1, box / geometry.extent).min())


def is_poor(spec: Spec, geometry: Geometry) -> bool:
  """Whether few voxels are left of a scan, or it is lost in its box."""
  size = np.array(geometry.shape) * geometry.spacing
  voxels = np.floor(size / _target(spec, geometry) + 1e-6)
  coarse = (voxels < FEW) & (np.array(geometry.shape) > CLEARLY * np.maximum(voxels, 1))
  filled = geometry.bright * np.prod(kept(spec, geometry)) / np.prod(spec.shape)
  return bool(coarse.any() or filled < EMPTY)


def poor(spec: Spec, geometries: Sequence[Geometry]) -> list[str]:
  """One message about the scans of which few voxels are left; none where none is."""
  found = [geometry for geometry in geometries if is_poor(spec, geometry)]
  if not found:
    return []
  found.sort(key=lambda geometry: np.prod(kept(spec, geometry)))
  usual = found[len(found) // 2]
  return [
    f'preprocessing leaves few voxels of {len(found)} of {len(geometries)} scans: a '
    f'scan of {in_words(usual.shape, usual.spacing)} becomes '
    f'{times(kept(spec, usual))} voxels in the box of '
    f'{in_words(spec.shape, _target(spec, usual))} ('
    + extents_in_words(usual.shape, usual.spacing, spec.shape, _target(spec, usual))
    + ')'
    + _refused(spec, geometries)
  ]


def _refused(spec: Spec, geometries: Sequence[Geometry]) -> str:
  """Words on scans that `prepare` will refuse, '' where there are none."""
  shares = [filled(spec, geometry) for geometry in geometries]
  count = sum(share < spec.least_filled or not share for share in shares)
  if not count:
    return ''
  return (
    f'; prepare refuses {count}, which fill less than {100 * spec.least_filled:g} % of '
    'the box (data.preprocess.least_filled): check the unit in their headers'
  )


def cut_off(spec: Spec, geometry: Geometry) -> list[str]:
  """Message about a stack with more slices than the box; none where all fit."""
  size = geometry.shape[0] * geometry.spacing[0]
  needed = int(np.ceil(size / _target(spec, geometry)[0] - 1e-6))
  if needed <= spec.shape[0]:
    return []
  return [f'{needed} slices, preprocess.shape keeps the middle {spec.shape[0]}']


def fits(spec: Spec, geometries: Sequence[Geometry], proposed: Spec) -> bool:
  """Whether the planned grid is good enough to be kept beside the proposed one.

  It cuts off little, leaves enough voxels, and these are not much larger than needed.
  """
  size = lambda grid: np.median([np.prod(_target(grid, g)) for g in geometries])
  return bool(
    not any(is_poor(spec, geometry) for geometry in geometries)
    and np.percentile([inside(spec, g) for g in geometries], 100 - COVERED) >= WHOLE
    and size(spec) <= COARSER * size(proposed)
  )


def of_split(split: Split, limit: int = 50) -> list[Geometry]:
  """Geometries of prepared scans, evenly chosen."""
  chosen = np.linspace(0, len(split) - 1, min(limit, len(split))).round().astype(int)
  found = []
  for index in chosen:
    record, array = split.record(index), split.volume(index)
    inside = array[split.masks(np.array([index]))[0]]
    shape = tuple(record['shape'])
    spacing = spacing_of(np.array(record['affine'])) / np.array(record['scale'])
    extent = spacing * shape
    bright = float((inside > inside.mean()).mean()) if inside.size else 0.0
    found.append(Geometry(shape, tuple(spacing), tuple(extent), bright))
  return found


def propose(
  geometries: Sequence[Geometry],
  spec: Spec,
  multiples: Sequence[int],
  max_voxels: int,
) -> Spec:
  """The finest grid that covers these scans with at most so many voxels.

  Args:
    geometries: of public scans; at least one.
    spec: the planned one; an axis on which scans keep their spacing stays so, and all
      entries but shape and spacing are copied.
    multiples: (d,h,w); the shape must be a multiple of these.
    max_voxels: of the box.
  """
  spacings = np.array([geometry.spacing for geometry in geometries])
  extents = np.array([geometry.extent for geometry in geometries])
  keeps = np.array([mm is None for mm in spec.spacing_mm])
  usual = np.array([_rounded(mm) for mm in np.median(spacings, 0)])
  covered = lambda sizes: np.percentile(sizes, COVERED, axis=0, method='higher')
  # An axis that keeps its spacing is measured in voxels, each scan in its own.
  length, own = covered(extents), covered(extents / spacings)
  # A box that keeps all spacings may be too large; then only thick slices keep theirs.
  if keeps.all() and np.prod(own) > max_voxels:
    keeps = usual >= THICK * usual.min()
  finest = usual[~keeps].min() if not keeps.all() else 1.0
  number = 0
  while True:
    step = STEPS[number % len(STEPS)] * 8 ** (number // len(STEPS))
    spacing = np.maximum(usual, _rounded(finest * step))
    voxels = np.where(keeps, own, length / spacing)
    shape = np.ceil(np.round(voxels, 3) / multiples).astype(int) * multiples
    smallest = (shape == multiples) | keeps
    if shape.prod() <= max_voxels or smallest.all():
      break
    number += 1
  pairs = zip(keeps, spacing, strict=True)
  wanted = tuple(None if keep else float(mm) for keep, mm in pairs)
  return dataclasses.replace(spec, shape=tuple(shape.tolist()), spacing_mm=wanted)


def in_words(shape: Sequence[int], spacing: Sequence[float | None] | np.ndarray) -> str:
  """'35 x 51 x 35 voxels of 1 x 1 x 1 mm', or of the scan's own size."""
  if all(mm is None for mm in spacing):
    return f"{times(shape)} voxels of the scan's own size"
  return f'{times(shape)} voxels of {times(spacing)} mm'


def times(numbers: Sequence[float | None] | np.ndarray) -> str:
  """'1 x 1 x 2.5', with 'own' for a spacing that a scan keeps."""
  return ' x '.join('own' if number is None else f'{number:.3g}' for number in numbers)


def _target(spec: Spec, geometry: Geometry) -> np.ndarray:
  pairs = zip(spec.spacing_mm, geometry.spacing, strict=True)
  return np.array([own if wanted is None else wanted for wanted, own in pairs])


def _rounded(mm: float) -> float:
  return float(f'{mm:.3g}')
