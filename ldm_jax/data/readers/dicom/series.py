"""DICOM files of one scan -> volumes (d,h,w) or cines (f,d,h,w), as `nifti` reads them.

Files are grouped by series and orientation; a path means one group, or several series
that its choice (`dicom.container`) joins, such as UK Biobank's one series per slice.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence

import numpy as np

from ldm_jax.data.readers import padding
from ldm_jax.data.readers.dicom import ukbb_manifest
from ldm_jax.data.readers.dicom.container import Container, split_choice, stamp
from ldm_jax.data.readers.dicom.planes import Plane, read_pixels, read_planes
from ldm_jax.data.readers.dicom.stack import MAX_TURN, SeriesHeader, Stack, arrange
from ldm_jax.data.readers.grid import Remark
from ldm_jax.data.readers.nifti import MAX_VOXELS
from ldm_jax.types import Shape

NUM_LISTED = 8


def read_header(
  path: str | os.PathLike, stack: bool = False, orientation: str = ''
) -> SeriesHeader:
  """Reads shape, geometry and times; no pixels.

  Args:
    path: folder, zip or file; '#2' and '#NAME' choose as in `dicom.container`.
    stack: keep the through-plane axis as d.
    orientation: of `nifti.read_header`, ignored here.

  Raises:
    ValueError: no image, several volumes, or planes that form no even stack.
  """
  del orientation
  return find(path).header(stack)


def read_frame(
  path: str | os.PathLike,
  frame: int | None = None,
  stack: bool = False,
  expected: Shape | None = None,
  orientation: str = '',
) -> tuple[np.ndarray, SeriesHeader]:
  """Reads one frame as float32 (d,h,w), rescaled, with air in place of padding.

  `expected` and `orientation` are arguments of `nifti.read_frame` and ignored here.

  Raises:
    ValueError: as `read_header`; also for truncated pixels or an unknown frame.
  """
  del expected, orientation
  found = find(path)
  count = len(found.frames)
  if not 0 <= (frame or 0) < count or (frame is None and count > 1):
    raise ValueError(
      f'{path} holds {count} frames (by {found.clock or "one time only"}); expected a '
      f'frame from 0 to {count - 1}, got {frame}. Set options.frame.'
    )
  header = found.header(stack)
  array, remarks = _voxels(path, header, [found.frames[frame or 0]])
  return array[0], dataclasses.replace(header, remarks=(*header.remarks, *remarks))


def read_frames(
  path: str | os.PathLike, stack: bool = False
) -> tuple[np.ndarray, SeriesHeader]:
  """Reads all frames as float32 (f,d,h,w). Raises ValueError as `read_frame`."""
  found = find(path)
  header = found.header(stack)
  array, remarks = _voxels(path, header, found.frames)
  return array, dataclasses.replace(header, remarks=(*header.remarks, *remarks))


def find(path: str | os.PathLike) -> Stack:
  """The one stack that a path means. Raises ValueError as `read_header`."""
  return _find(str(path), tuple(stamp(path)))


@functools.lru_cache(maxsize=8)  # both phases of a patient read the same headers
def _find(path: str, stamp: tuple[str | int, ...]) -> Stack:
  del stamp  # a changed file is another entry
  place, choice = split_choice(path)
  with Container(place) as container:
    merged = bool(choice) and not choice.isdigit()
    planes = _named(container, choice) if merged else _planes(container)
  groups = _groups(planes, merged)
  number = int(choice) if choice.isdigit() else 1
  if not 1 <= number <= len(groups) or (len(groups) > 1 and not choice.isdigit()):
    listed = '; '.join(
      f'#{i + 1}: {len(g)} planes of {g[0].shape[0]} x {g[0].shape[1]}, normal '
      f'{(g[0].normal * (-1, -1, 1)).round(2).tolist()}'
      for i, g in enumerate(groups[:NUM_LISTED])
    )
    more = f'; and {len(groups) - NUM_LISTED} more' if len(groups) > NUM_LISTED else ''
    raise ValueError(
      f'{path} holds {len(groups)} volumes ({listed}{more}); expected one. '
      + (f'Choose it: {place}#1.' if groups else 'Name the folder or zip of a scan.')
    )
  return arrange(groups[number - 1], path)


def _planes(container: Container, among: set[str] | None = None) -> list[Plane]:
  planes = []
  for member in container.images():
    if among is None or member.name in among:
      with container.open(member) as stream:
        planes += read_planes(stream, member)
  if not planes:
    raise ValueError(
      f'{container.path} holds {len(container.members)} files but no DICOM image; '
      'expected a scan. Correct the path in the table or in options.image.'
    )
  return planes


def _named(container: Container, choice: str) -> list[Plane]:
  """Planes of the series that `choice` names, by the manifest or by their headers."""
  names = ukbb_manifest.series_of(container)
  if names:
    for patterns in choice.split('|'):
      among = {name for name, text in names.items() if _matches(text, patterns)}
      if among:
        _check_whole(container, among)
        return _planes(container, among)
  planes = _planes(container)
  for patterns in choice.split('|'):
    found = [plane for plane in planes if _matches(plane.description, patterns)]
    if found:
      return found
  raise ValueError(
    f'{container.path} holds {len({p.series for p in planes})} series, none of them '
    f'described as {choice!r}; expected at least one. Change the series in the '
    'options, or remove the file.'
  )


def _check_whole(container: Container, among: set[str]) -> None:
  absent = among - {member.name for member in container.members}
  if absent:
    raise ValueError(
      f'{container.path} lacks {len(absent)} of the {len(among)} files that its '
      'manifest lists for this scan; expected all of them. Download it again.'
    )


def _matches(description: str, patterns: str) -> bool:
  return any(ukbb_manifest.matches(description, p) for p in patterns.split(','))


def _groups(planes: list[Plane], merged: bool) -> list[list[Plane]]:
  """Planes that may form one volume; `merged` ignores which series they are of."""
  groups: dict[tuple, list[list[Plane]]] = {}
  for plane in sorted(planes, key=lambda p: (p.number, p.member.name, p.frame or 0)):
    spacing = tuple(round(mm, 4) for mm in plane.spacing)
    key = (plane.shape, spacing, plane.kind, '' if merged else plane.series)
    turns = groups.setdefault(key, [])
    for group in turns:
      turn = np.abs([plane.row - group[0].row, plane.column - group[0].column])
      if turn.max() <= MAX_TURN:
        group.append(plane)
        break
    else:
      turns.append([plane])
  return [group for turns in groups.values() for group in turns]


def _voxels(
  path: str | os.PathLike, header: SeriesHeader, frames: Sequence[Sequence[Plane]]
) -> tuple[np.ndarray, tuple[Remark, ...]]:
  grid = header.grid
  num_voxels = int(np.prod(grid.shape)) * len(frames)
  if num_voxels > MAX_VOXELS:
    raise ValueError(
      f'{path} announces {num_voxels} voxels; expected at most {MAX_VOXELS}. Split it.'
    )
  array = np.empty((len(frames), *header.shape), np.float32)
  place, _ = split_choice(path)
  with Container(place) as container:
    for index, frame in enumerate(frames):
      target = grid.restore(array[index])  # a view in the file's order: x, y, z
      for z, plane in enumerate(frame):
        with container.open(plane.member) as stream:
          target[..., z] = read_pixels(stream, plane)
  if np.isnan(array).all():
    raise ValueError(
      f'{path} holds padding (PixelPaddingValue) in all its pixels; expected an image. '
      'Repair or remove the scan.'
    )
  return padding.replace_stated(array)
