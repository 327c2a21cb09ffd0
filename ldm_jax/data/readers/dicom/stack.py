"""Image planes of one orientation -> slices and frames in their order, and the affine.

Slices are sorted by their position along the normal of the image plane and frames by a
clock in the headers; file names and acquisition order are ignored. Uneven, missing or
repeated slices are refused with numbers, because voxels would be in the wrong place.
DICOM's LPS becomes RAS: x = columns, y = rows, z = slices.

[PS3.3] DICOM part 3, C.7.6.2: image plane.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from ldm_jax.data.readers.dicom.planes import Plane
from ldm_jax.data.readers.grid import Header, Remark, grid_of_file

# The most reliable first: ms after the R wave, time of day, order of acquisition.
CLOCKS = ('TriggerTime', 'AcquisitionTime', 'InstanceNumber')
# With both limits a voxel 400 mm from the corner is within 0.1 mm of its place.
MAX_TURN = 1e-4
OFF_LINE_MM = 0.05
# Positions that a program wrote with one digit: each is up to 0.05 mm off, and so are
# the two at the ends of the line.
ROUNDED_MM = 0.1
# Planes closer than this are at the same position.
SAME_PLACE_MM = 0.01
NUM_LISTED = 8


@dataclasses.dataclass(frozen=True)
class SeriesHeader(Header):
  """Geometry and times of a scan, from its headers.

  Attributes:
    clock: the element that ordered the frames, one of CLOCKS; '' for one frame.
    times_ms: (f,) of the frames, median over slices; () where the clock has no unit.
    series: number of the series, 0 where there is none.
  """

  clock: str = ''
  times_ms: tuple[float, ...] = ()
  series: int = 0


@dataclasses.dataclass(frozen=True)
class Stack:
  """Planes of one volume in their places.

  Attributes:
    frames: per frame its planes, in the order of slices.
    affine: (4,4), (x,y,z,1) -> world RAS mm.
    clock: as in SeriesHeader.
    times_ms: as in SeriesHeader.
    remarks: on positions that were rounded.
  """

  frames: tuple[tuple[Plane, ...], ...]
  affine: np.ndarray
  clock: str
  times_ms: tuple[float, ...]
  remarks: tuple[Remark, ...] = ()

  def header(self, stack: bool) -> SeriesHeader:
    """Grid and frames; `stack` keeps the through-plane axis as d."""
    shape = (*self.frames[0][0].shape, len(self.frames[0]))
    return SeriesHeader(
      grid_of_file(shape, self.affine, stack),
      len(self.frames),
      self.remarks,
      clock=self.clock,
      times_ms=self.times_ms,
      series=self.frames[0][0].number,
    )


def arrange(planes: list[Plane], path: str) -> Stack:
  """Sorts planes of one orientation into frames of slices.

  Raises:
    ValueError: uneven, missing or repeated slices or frames, with numbers in mm.
  """
  normal = planes[0].normal
  ordered = sorted(planes, key=lambda plane: float(plane.position @ normal))
  heights = np.array([plane.position @ normal for plane in ordered])
  starts = np.flatnonzero(np.diff(heights) > SAME_PLACE_MM) + 1
  places = [list(part) for part in np.split(np.array(ordered, object), starts)]
  at_mm = [float(part[0].position @ normal) for part in places]
  counts = Counter(map(len, places))
  usual = counts.most_common(1)[0][0]
  odd = [
    f'{len(part)} at {mm:.2f} mm'
    for part, mm in zip(places, at_mm, strict=True)
    if len(part) != usual
  ]
  if odd:
    raise _uneven(
      path,
      f'{len(places)} slices of {usual} frames each, but {"; ".join(odd[:NUM_LISTED])}',
      'frames are missing or repeated',
    )
  clock = _clock(places, at_mm, path) if usual > 1 else ''
  if clock:
    places = [sorted(part, key=lambda plane: plane.times[clock]) for part in places]
  frames = tuple(tuple(frame) for frame in zip(*places, strict=True))
  affine, remarks = _affine(frames, at_mm, path)
  return Stack(frames, affine, clock, _times(frames, clock), remarks)


def _affine(
  frames, at_mm: list[float], path: str
) -> tuple[np.ndarray, tuple[Remark, ...]]:
  """(4,4), (x,y,z,1) -> RAS mm of an even stack. [PS3.3] C.7.6.2.1-1"""
  first, count = frames[0][0], len(frames[0])
  positions = np.array([[plane.position for plane in frame] for frame in frames])
  start = first.position
  remarks: tuple[Remark, ...] = ()
  if count > 1:
    step = (positions[0, -1] - positions[0, 0]) / (count - 1)
    even = start + np.arange(count)[:, None] * step
    off_mm = np.abs(positions - even)
    if off_mm.max() > OFF_LINE_MM and _are_rounded(positions, off_mm):
      # The line nearest to all positions errs less than one through two of them.
      place = np.arange(count) - (count - 1) / 2
      step = place @ positions[0] / (place @ place)
      start = positions[0].mean(axis=0) - step * (count - 1) / 2
      text = (
        'slice positions are rounded to 0.1 mm (up to '
        f'{off_mm.max():.2f} mm off the even line); they were evened out'
      )
      remarks = (Remark('positions', text),)
    else:
      _check_even(off_mm.max(axis=(0, 2)), at_mm, path, positions)
  elif first.thickness:
    step = first.normal * first.thickness
    off_mm = np.abs(positions - first.position).max(axis=(0, 2))
    _check_even(off_mm, at_mm, path, positions)
  else:
    raise ValueError(
      f'{path} holds one slice that states no thickness; expected SliceThickness or '
      'SpacingBetweenSlices. Repair the file, or give the whole stack.'
    )
  affine = np.eye(4)
  affine[:3, 0] = first.row * first.spacing[0]
  affine[:3, 1] = first.column * first.spacing[1]
  affine[:3, 2] = step
  affine[:3, 3] = start
  return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, remarks


def _are_rounded(positions: np.ndarray, off_mm: np.ndarray) -> bool:
  """Whether every axis that is off the line has whole tenths of mm and explains it."""
  tenths = np.abs(positions * 10 - np.rint(positions * 10)).max(axis=(0, 1)) < 1e-4
  allowed = np.where(tenths, ROUNDED_MM + 1e-6, OFF_LINE_MM)
  return bool((off_mm.max(axis=(0, 1)) <= allowed).all())


def _digits(positions: np.ndarray) -> str:
  """Words about positions of few digits, '' where they have enough."""
  for digits, word in ((0, 'whole mm'), (1, '0.1 mm')):
    if np.abs(positions - np.round(positions, digits)).max() < 1e-4:
      return f'; the positions are {word} throughout, so rounding may explain it'
  return ''


def _check_even(
  off_mm: np.ndarray, at_mm: list[float], path: str, positions: np.ndarray
) -> None:
  if off_mm.max() <= OFF_LINE_MM:
    return
  gaps = np.diff(at_mm)
  usual = float(np.median(gaps)) if len(gaps) else 0.0
  odd = [
    f'{gap:.2f} mm between {at_mm[k]:.2f} and {at_mm[k + 1]:.2f} mm'
    + (f' ({round(gap / usual) - 1} missing?)' if gap > 1.5 * usual else '')
    for k, gap in enumerate(gaps)
    if abs(gap - usual) > OFF_LINE_MM
  ]
  if odd:
    raise _uneven(
      path,
      f'{len(at_mm)} slices {usual:.2f} mm apart, but {"; ".join(odd[:NUM_LISTED])}',
      'slices are missing or unevenly spaced'
      + (_digits(positions) if np.abs(gaps - usual).max() <= 1 + 1e-6 else ''),
    )
  worst = int(np.argmax(off_mm))
  raise _uneven(
    path,
    f'the slice at {at_mm[worst]:.2f} mm {off_mm[worst]:.2f} mm off the even, straight '
    f'line through the first and the last (allowed {OFF_LINE_MM} mm)',
    'slices are not aligned',
  )


def _clock(places: list[list[Plane]], at_mm: list[float], path: str) -> str:
  """The most reliable clock that distinguishes the frames of every slice."""
  for clock in CLOCKS:
    times = [[p.times.get(clock) for p in part] for part in places]
    if all(None not in t and len(set(t)) == len(t) for t in times):
      return clock
  raise _uneven(
    path,
    f'{len(places[0])} planes at each of {len(places)} positions, the first at '
    f'{at_mm[0]:.2f} mm, and none of {", ".join(CLOCKS)} tells them apart',
    'slices are repeated, or frames have no time',
  )


def _times(frames, clock: str) -> tuple[float, ...]:
  if clock not in CLOCKS[:2]:
    return ()
  times = np.array([[plane.times[clock] for plane in frame] for frame in frames])
  if clock == 'AcquisitionTime':  # slices are acquired one after another
    times = times - times[:1]
  return tuple(np.median(times, axis=1).tolist())


def _uneven(path: str, what: str, reading: str) -> ValueError:
  return ValueError(
    f'{path} holds {what}: {reading}; expected evenly spaced slices, each once per '
    'frame. Complete the series, or remove the files that do not belong to it.'
  )
