"""NIfTI files from untrusted sources: size and geometry are checked before voxels.

The header alone decides how much memory is allocated, so it must agree with the size of
the file, and a large array must not come from a nearly empty one. Voxels are unpacked
and converted a slab at a time, up to the requested frame. Header extensions are
skipped.

[NIfTI1] https://nifti.nimh.nih.gov/nifti-1, nifti1.h.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib

import nibabel as nib
import numpy as np

from ldm_jax.data.readers import streams
from ldm_jax.data.readers.grid import Header, grid_of_file, spacing_of
from ldm_jax.types import Shape

MAX_VOXELS = 2**31
MAX_GZIP_RATIO = 1100  # deflate cannot exceed about 1032 : 1
# A file of more voxels than this (128 MiB as float32) may be compressed at most
# SCAN_RATIO times: scans, which are full of noise, reach about 10, and bombs 1000.
LARGE_VOXELS = 2**25
SCAN_RATIO = 100
MAX_OFFSET = 2**26  # bytes of header extensions before the voxels
SLAB_BYTES = 2**24
SPACING_MM = (1e-6, 1e3)
ADVICE = 'Correct the path in the table or the pattern in options.image.'


@dataclasses.dataclass(frozen=True)
class _Voxels:
  """How the voxels lie in the file: after `offset` bytes, x fastest, then scaled."""

  dtype: np.dtype
  offset: int
  slope: float
  inter: float


def read_header(path: str | os.PathLike, stack: bool = False) -> Header:
  """Reads shape and geometry only.

  Args:
    path: .nii or .nii.gz, recognised by its content.
    stack: keep the through-plane axis as d.

  Raises:
    ValueError: the file is missing, damaged or not NIfTI, holds colours or complex
      numbers, has an impossible size or a singular affine.
  """
  return _read_start(pathlib.Path(path), stack, None)[0]


def read_frame(
  path: str | os.PathLike,
  frame: int | None = None,
  stack: bool = False,
  expected: Shape | None = None,
) -> tuple[np.ndarray, Header]:
  """Reads one 3D frame as float32 (d,h,w), scaled as the header says.

  Args:
    path: .nii or .nii.gz, recognised by its content.
    frame: index along the fourth axis of a file of several frames.
    stack: keep the through-plane axis as d.
    expected: (x,y,z) of the scan that these labels belong to. Labels of this shape may
      be compressed more tightly than any scan.

  Raises:
    ValueError: as `read_header`; also for a truncated body or an unknown frame.
  """
  path = pathlib.Path(path)
  header, voxels = _read_start(path, stack, expected)
  count = header.num_frames
  if count > 1 and (frame is None or not 0 <= frame < count):
    raise ValueError(
      f'{path} holds {count} frames; expected a frame from 0 to {count - 1}, got '
      f'{frame}. Set options.frame, or give one file per frame.'
    )
  if count == 1 and frame not in (None, 0):
    raise ValueError(
      f'{path} holds one frame; expected no frame, got {frame}. Unset options.frame.'
    )
  try:
    return _frame(path, header, voxels, frame or 0), header
  except streams.DAMAGED as error:
    raise _truncated(path, error) from error


def _frame(
  path: pathlib.Path, header: Header, voxels: _Voxels, frame: int
) -> np.ndarray:
  grid, dtype = header.grid, voxels.dtype
  array = np.empty(header.shape, np.float32)
  target = grid.restore(array)  # a view in the file's order: x, y, z
  width, height, depth = grid.shape
  slice_bytes = width * height * dtype.itemsize
  thickness = min(depth, max(1, SLAB_BYTES // slice_bytes))
  buffer = bytearray(thickness * slice_bytes)
  with streams.Stream(path) as stream, np.errstate(over='ignore', invalid='ignore'):
    stream.skip(voxels.offset + frame * depth * slice_bytes)
    for first in range(0, depth, thickness):
      count = min(thickness, depth - first)
      stream.fill(memoryview(buffer)[: count * slice_bytes])
      slab = np.frombuffer(buffer, dtype, count * width * height)
      if (voxels.slope, voxels.inter) != (1.0, 0.0):
        slab = slab.astype(np.float64) * voxels.slope + voxels.inter
      slab = slab.reshape((width, height, count), order='F')
      if count == depth:  # axes are put in order while a voxel is still small
        array = np.ascontiguousarray(grid.orient(slab)).astype(np.float32, copy=False)
      else:
        target[..., first : first + count] = slab
    if frame == header.num_frames - 1:
      stream.check_end()
  return array


def _read_start(
  path: pathlib.Path, stack: bool, expected: Shape | None
) -> tuple[Header, _Voxels]:
  status = streams.require_file(path, 'a NIfTI file', ADVICE)
  try:
    with streams.Stream(path) as stream:
      start, packed = stream.read(540), stream.packed
  except OSError as error:
    raise streams.unreadable(path, error, 'a NIfTI file', ADVICE) from error
  except streams.DAMAGED as error:
    raise _truncated(path, error) from error
  raw = _parse(path, start)
  shape = _shape(path, raw)
  dtype = _dtype(path, raw)
  voxels = _Voxels(dtype, _offset(path, raw), *_scaling(path, raw))
  frames = shape[3] if len(shape) == 4 else 1
  needed = voxels.offset + math.prod(shape) * dtype.itemsize
  _check_size(path, shape, needed, status, packed, expected)
  return Header(grid_of_file(shape[:3], _affine(path, raw), stack), frames), voxels


def _parse(path: pathlib.Path, start: bytes) -> nib.Nifti1Header:
  kinds = {348: (nib.Nifti1Header, 344), 540: (nib.Nifti2Header, 4)}
  sizes = {int.from_bytes(start[:4], order) for order in ('little', 'big')}
  kind, magic = next((kinds[size] for size in sizes if size in kinds), (None, 0))
  if kind is None or len(start) < kind.sizeof_hdr:
    looks = streams.kind_of(start)
    looks = f'it looks like {looks}' if looks else f'it begins with {start[:8]!r}'
    raise ValueError(
      f'{path} cannot be read as NIfTI ({looks}); expected a .nii or .nii.gz file. '
      'Convert, repair or remove it.'
    )
  if not start.startswith(b'n+', magic):
    raise ValueError(
      f'{path} is the header of an Analyze or NIfTI pair (.hdr, .img) and holds no '
      'voxels; expected one .nii or .nii.gz file. Convert it.'
    )
  return kind(start[: kind.sizeof_hdr], check=False)


def _shape(path: pathlib.Path, raw: nib.Nifti1Header) -> Shape:
  dims = [int(n) for n in raw['dim']]
  shape = tuple(dims[1 : 1 + dims[0]]) if 1 <= dims[0] <= 7 else ()
  announced = shape or tuple(dims)
  while len(shape) > 3 and shape[-1] == 1:
    shape = shape[:-1]
  if len(shape) == 2:
    shape = (*shape, 1)
  if len(shape) not in (3, 4) or min(shape) < 1:
    raise ValueError(
      f'{path} has the shape {announced}; expected three axes (x,y,z), or four '
      'with time last, each at least 1. Split or repair the file.'
    )
  return shape


def _dtype(path: pathlib.Path, raw: nib.Nifti1Header) -> np.dtype:
  try:
    dtype = raw.get_data_dtype()
  except (nib.spatialimages.HeaderDataError, KeyError, ValueError) as error:
    raise ValueError(
      f'{path} has the unknown datatype {int(raw["datatype"])} ({error}); expected '
      'integers or floats, as NIfTI defines them. Its header is damaged.'
    ) from error
  if dtype.names or np.issubdtype(dtype, np.complexfloating):
    raise ValueError(
      f'{path} holds colours or complex numbers ({dtype}); expected one intensity '
      'per voxel. Convert it to a grey-scale image.'
    )
  if dtype.itemsize < 1 or dtype.kind not in 'iuf':
    raise ValueError(
      f'{path} holds voxels of type {dtype}; expected integers or floats. Convert it.'
    )
  return dtype


def _offset(path: pathlib.Path, raw: nib.Nifti1Header) -> int:
  least, offset = raw.single_vox_offset, float(raw['vox_offset'])
  if offset == 0:  # some writers leave it out
    return least
  if not (least <= offset <= MAX_OFFSET and offset == int(offset)):
    raise ValueError(
      f'{path} says that its voxels begin at byte {offset:g}; expected a whole '
      f'number from {least} to {MAX_OFFSET}. Its header is damaged: write it again.'
    )
  return int(offset)


def _scaling(path: pathlib.Path, raw: nib.Nifti1Header) -> tuple[float, float]:
  """(slope, intercept); a slope of 0 or NaN means no scaling. [NIfTI1] scl_slope"""
  slope, inter = float(raw['scl_slope']), float(raw['scl_inter'])
  if slope == 0 or not math.isfinite(slope):
    return 1.0, 0.0
  if not math.isfinite(inter):
    raise ValueError(
      f'{path} scales its intensities by {slope:g} and adds {inter:g}; expected '
      'finite numbers. Repair scl_inter in its header.'
    )
  return slope, inter


def _affine(path: pathlib.Path, raw: nib.Nifti1Header) -> np.ndarray:
  with np.errstate(all='ignore'):
    try:
      affine = np.asarray(raw.get_best_affine(), np.float64)
    except (ValueError, ArithmeticError, nib.spatialimages.HeaderDataError) as error:
      raise ValueError(
        f'{path} has a qform that is no rotation ({error}), so its affine is singular; '
        'expected three independent axes. Repair its sform or qform.'
      ) from error
    spacing = spacing_of(affine)
    place = np.abs(affine[:3, 3]).max()
    independent = abs(np.linalg.det(affine[:3, :3] / spacing)) if spacing.all() else 0
  low, high = SPACING_MM
  if not (
    np.isfinite(affine).all()
    and (spacing > low).all()
    and (spacing <= high).all()
    and place < 1e6
    and independent >= 1e-4
  ):
    raise ValueError(
      f'{path} has the affine {affine[:3].round(4).tolist()}, which is singular or '
      f'absurd; expected three independent axes with a spacing up to {high:g} mm. '
      'Repair its sform or qform.'
    )
  return affine


def _check_size(
  path: pathlib.Path,
  shape: Shape,
  needed: int,
  status: os.stat_result,
  packed: bool,
  expected: Shape | None,
) -> None:
  """Refuses a header that announces more than the file holds, before any allocation."""
  num_voxels, size = math.prod(shape), status.st_size
  if num_voxels > MAX_VOXELS:
    raise ValueError(
      f'{path} announces {num_voxels} voxels {shape}; expected at most {MAX_VOXELS}. '
      'The header is damaged, or the file must be split.'
    )
  if needed > size * (MAX_GZIP_RATIO if packed else 1):
    raise ValueError(
      f'{path} announces {needed} bytes of voxels but holds {size} bytes; expected '
      'the whole file. It is truncated or its header is damaged: copy it again.'
    )
  # A sparse file has fewer bytes on the disk than it shows.
  on_disk = min(size, getattr(status, 'st_blocks', 0) * 512 or size)
  large = math.prod(shape[:3]) > LARGE_VOXELS or needed > 4 * LARGE_VOXELS
  if large and needed > SCAN_RATIO * on_disk and shape[:3] != expected:
    raise ValueError(
      f'{path} announces {needed} bytes of voxels but takes {on_disk} bytes on the '
      f'disk, which no scan does (expected at most {SCAN_RATIO} : 1); it is empty, '
      'damaged or a bomb. Remove it, or crop the empty part.'
    )


def _truncated(path: pathlib.Path, error: Exception) -> ValueError:
  return ValueError(
    f'{path} is a truncated or damaged NIfTI file ({error}); expected the whole '
    'file. Copy it again, or remove it.'
  )
