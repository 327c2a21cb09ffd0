"""Outlines drawn on slices, (n,2) points in pixels -> labels, (x,y) masks.

A point (x, y) counts columns and rows from 0; a pixel belongs to an outline when its
centre lies inside.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
from collections import Counter
from typing import cast

import numpy as np
from matplotlib.path import Path

from ldm_jax.data.cohorts.cohort import FileSource
from ldm_jax.data.readers import volume
from ldm_jax.data.readers.dicom import container, series
from ldm_jax.data.readers.grid import Grid

# Codes as in the other cardiac layouts; later ones are painted over earlier ones.
CAVITY, MYOCARDIUM = 1, 2
LABEL_OF = {'o': MYOCARDIUM, 'i': CAVITY}
MAX_BYTES = 2**20


def read_points(path: str | os.PathLike) -> np.ndarray:
  """Reads one outline, a line 'x y' per point: (n,2) float.

  Raises:
    ValueError: the file is missing, or holds no three points of two numbers.
  """
  try:
    with open(path, encoding='ascii') as file:
      rows = [line.split() for line in file.read(MAX_BYTES).splitlines()]
    points = np.array([row for row in rows if row], np.float64)
  except (OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or 'not two numbers in every line'
    raise ValueError(
      f'{path} cannot be read as an outline ({reason}); expected a line "x y" in '
      'pixels per point. Copy it again, or remove it.'
    ) from error
  if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
    raise ValueError(
      f'{path} holds points of shape {points.shape}; expected three or more of two '
      'numbers, x and y in pixels. Copy it again, or remove it.'
    )
  return points


def area(points: np.ndarray) -> float:
  """Area inside an outline in pixels (shoelace formula)."""
  x, y = np.asarray(points).T
  return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def fill(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """(columns, rows) bool: the pixels whose centre lies inside."""
  centres = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), -1)
  inside = Path(points).contains_points(centres.reshape(-1, 2))
  return inside.reshape(shape)


@dataclasses.dataclass(frozen=True)
class ContourSource:
  """One phase of a DICOM cine whose slices were outlined.

  Attributes:
    image: folder of the cine.
    outlines: (number of the file, 'i' or 'o', path of the points) of the phase.
    stack: keep the through-plane axis as d.
  """

  image: str
  outlines: tuple[tuple[int, str, str], ...]
  stack: bool = True

  def read(self) -> tuple[volume.Volume, volume.Volume]:
    """Reads the frame on which the outlines lie, and their labels.

    Raises:
      ValueError: an outline without its file, or outlines of several frames.
    """
    found = series.find(self.image)
    places = {
      number_of(plane.member.name): (t, z)
      for t, frame in enumerate(found.frames)
      for z, plane in enumerate(frame)
    }
    absent = [n for n, _, _ in self.outlines if n not in places]
    frames = Counter(places[n][0] for n, _, _ in self.outlines if n in places)
    if absent or len(frames) != 1:
      raise ValueError(
        f'{self.image}: its {len(self.outlines)} outlines lie on the frames '
        f'{sorted(frames)}, and {len(absent)} on no file of the series; expected '
        'outlines of one phase. Remove those that belong to another series.'
      )
    (frame,) = frames
    scan = volume.read(self.image, frame, self.stack)
    grid = cast(Grid, scan.source)
    labels = np.zeros(grid.shape, np.uint8)
    for kind, value in LABEL_OF.items():
      for number, own, path in self.outlines:
        if own == kind:
          mask = fill(read_points(path), (grid.shape[0], grid.shape[1]))
          labels[..., places[number][1]][mask] = value
    return scan, volume.Volume(grid.orient(labels), scan.affine, grid)

  @property
  def files(self) -> tuple[str, ...]:
    """What `fingerprint` hashes."""
    return (*container.listing(self.image), *(path for _, _, path in self.outlines))

  def fingerprint(self) -> str:
    """SHA-256 of the bytes of the series and the outlines."""
    digest = hashlib.sha256(b'contours:1:')
    digest.update(FileSource(self.image, stack=self.stack).fingerprint().encode())
    for number, kind, path in self.outlines:
      digest.update(f'{number}{kind}'.encode() + read_points(path).tobytes())
    return digest.hexdigest()


def number_of(name: str) -> int | None:
  """'IM-0003-0048.dcm' -> 48."""
  found = re.search(r'(\d+)$', pathlib.Path(name).stem)
  return int(found[1]) if found else None
