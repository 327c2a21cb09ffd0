"""Which frame of a cine is end-diastole (ED) and which end-systole (ES).

A layout takes the phases from a table, a header or outlines where there are any. Else
ED is the first frame, and ES the one with the fewest bright voxels in the region that
moves: blood is bright in cine MRI, and the cavities are smallest at ES. The name of the
rule that was used is stored with the record (`Record.phase_by`). Frames are (f,d,h,w).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os

import numpy as np
from scipy import ndimage

from ldm_jax.data.cohorts.cohort import FileSource
from ldm_jax.data.readers import nifti
from ldm_jax.data.readers import volume as volumes
from ldm_jax.data.readers.dicom import container
from ldm_jax.data.readers.grid import Grid

PHASES = ('ED', 'ES')
# Rules that estimate a phase which nothing states.
FIRST_FRAME = 'first_frame'
SMALLEST_POOL = 'smallest_pool'
# Share of the voxels that count as moving: about a heart in a cardiac field of view.
MOVING_SHARE = 0.1
SMOOTH_VOXELS = 2.0


@dataclasses.dataclass(frozen=True)
class Cine:
  """All frames of a scan in one place.

  Attributes:
    frames: (f,d,h,w) float32.
    affine: (4,4), (d,h,w,1) -> world RAS mm.
    source: grid of the file.
    times_ms: (f,) after the R wave, or () where the file does not say.
    clock: what ordered the frames, '' for a NIfTI file.
  """

  frames: np.ndarray
  affine: np.ndarray
  source: Grid
  times_ms: tuple[float, ...] = ()
  clock: str = ''


@dataclasses.dataclass(frozen=True)
class PhaseSource:
  """One phase of a cine that no table describes; found when the scan is read.

  Attributes:
    image: path of the cine, NIfTI or DICOM.
    phase: 'ED' (the first frame: cines start at the R wave) or 'ES' (smallest pool).
    stack: keep the through-plane axis as d.
    orientation: as of a `FileSource`.
  """

  image: str
  phase: str
  stack: bool = True
  orientation: str = nifti.DEFAULT_ORIENTATION

  @property
  def rule(self) -> str:
    """Name of the rule that chooses the frame, for `Record.phase_by`."""
    return FIRST_FRAME if self.phase == 'ED' else SMALLEST_POOL

  def read(self) -> tuple[volumes.Volume, volumes.Volume | None]:
    """Reads the frame of the phase. Raises ValueError as `volume.read` does."""
    header = volumes.reader(self.image).read_header(self.image, self.stack)
    if header.num_frames < 2:
      raise ValueError(
        f'{self.image} holds {header.num_frames} frame; expected a cine, to choose '
        f'{self.phase} from. Remove the file, or read it with configs/folder.py.'
      )
    frame = 0
    if self.phase == 'ES':
      frame = smallest_pool(read(self.image, self.stack).frames)
    rule = self.orientation
    return FileSource(self.image, None, frame, self.stack, orientation=rule).read()

  @property
  def files(self) -> tuple[str, ...]:
    """What `fingerprint` hashes."""
    return container.listing(self.image)

  def fingerprint(self) -> str:
    """SHA-256 of the file's bytes, the phase and the rule."""
    how = f'{self.phase}:{self.rule}:{MOVING_SHARE}:{SMOOTH_VOXELS}:'
    rule = self.orientation
    source = FileSource(self.image, stack=self.stack, orientation=rule)
    scan = source.fingerprint()
    return hashlib.sha256((how + scan).encode()).hexdigest()


def read(path: str | os.PathLike, stack: bool = True) -> Cine:
  """Reads all frames of a NIfTI or DICOM cine.

  Raises:
    ValueError: as `volume.read`; one frame makes a cine of one.
  """
  reader = volumes.reader(path)
  if hasattr(reader, 'read_frames'):
    frames, header = reader.read_frames(path, stack)
  else:
    header = reader.read_header(path, stack)
    indices = range(header.num_frames)
    frames = np.stack([reader.read_frame(path, i, stack)[0] for i in indices])
  return Cine(
    frames.astype(np.float32, copy=False),
    header.grid.oriented_affine(),
    header.grid,
    getattr(header, 'times_ms', ()),
    getattr(header, 'clock', ''),
  )


def smallest_pool(frames: np.ndarray) -> int:
  """ES by the frame with the fewest bright voxels where the cine moves.

  Args:
    frames: (f,d,h,w), blood bright (steady-state free precession).

  Raises:
    ValueError: fewer than two frames, or nothing that moves.
  """
  pools = pool_curve(frames)
  return int(np.argmin(pools))


def pool_curve(frames: np.ndarray) -> np.ndarray:
  """(f,) number of bright voxels in the moving region, smoothed over the cycle.

  The region holds the `MOVING_SHARE` of voxels whose smoothed standard deviation over
  time is largest, within one connected piece. Bright is above the middle of its 5th and
  95th percentile. Both are taken slice by slice, so that a slice's own scaling does not
  matter.

  Raises:
    ValueError: fewer than two frames, or nothing that moves.
  """
  frames = np.asarray(frames, np.float32)
  motion = frames.std(axis=0)
  if len(frames) < 2 or not motion.any():
    raise ValueError(
      f'expected a cine to find end-systole in, got {len(frames)} frames without any '
      'motion. Name the phases in a table, or remove the scan.'
    )
  smooth = (0, SMOOTH_VOXELS, SMOOTH_VOXELS)
  low, high = np.percentile(frames, (1, 99), axis=(0, 2, 3))
  motion = motion / np.where(high > low, high - low, np.inf)[:, None, None]
  motion = ndimage.gaussian_filter(motion, smooth)
  region = _largest_piece(motion >= np.quantile(motion, 1 - MOVING_SHARE))
  pools = np.zeros(len(frames))
  for z in np.flatnonzero(region.any(axis=(1, 2))):
    values = frames[:, z][:, region[z]]
    low, high = np.percentile(values, (5, 95))
    pools += np.sum(values > (low + high) / 2, axis=1)
  if len(pools) < 5:
    return pools
  return ndimage.convolve1d(pools, np.ones(3) / 3, mode='wrap')


def _largest_piece(region: np.ndarray) -> np.ndarray:
  pieces, _ = ndimage.label(region)
  sizes = np.bincount(pieces.ravel())
  sizes[0] = 0
  return pieces == np.argmax(sizes)
