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
from ldm_jax.data.readers.grid import Header, Remark, grid_of_file, spacing_of
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
LARGEST_MM = 1e4  # extent of a scan; more is metres for millimetres, or the like
# Which statement of the header gives the place of the voxels.
#   nibabel      the sform if it has a code, else the qform if it has one, else only the
#                voxels' sizes, with x to the left: what nibabel does
#   strict       the same, but a header that states no place, or two, is refused
#   trust_sform  the sform where both have a code or none has; else the one that has it
#   trust_qform  the qform where both have a code or none has; else the one that has it
ORIENTATIONS = ('nibabel', 'strict', 'trust_sform', 'trust_qform')
DEFAULT_ORIENTATION = 'nibabel'
# sform and qform agree if they differ at no corner by more than this, or this share of
# the diagonal: a qform cannot hold more digits.
FORMS_MM, FORMS_SHARE = 0.1, 1e-3
# Code in the lowest three bits of xyzt_units -> name, mm. [NIfTI1] NIFTI_UNITS_*
UNITS = {1: ('metres', 1e3), 3: ('microns', 1e-3)}
ADVICE = 'Correct the path in the table or the pattern in options.image.'


@dataclasses.dataclass(frozen=True)
class _Voxels:
  """How the voxels lie in the file: after `offset` bytes, x fastest, then scaled."""

  dtype: np.dtype
  offset: int
  slope: float
  inter: float


def read_header(
  path: str | os.PathLike,
  stack: bool = False,
  orientation: str = DEFAULT_ORIENTATION,
) -> Header:
  """Reads shape and geometry only.

  Args:
    path: .nii or .nii.gz, recognised by its content.
    stack: keep the through-plane axis as d.
    orientation: one of ORIENTATIONS.

  Raises:
    ValueError: the file is missing, damaged or not NIfTI, holds colours or complex
      numbers, has an impossible size or a singular affine.
  """
  return _read_start(pathlib.Path(path), stack, None, orientation)[0]


def read_frame(
  path: str | os.PathLike,
  frame: int | None = None,
  stack: bool = False,
  expected: Shape | None = None,
  orientation: str = DEFAULT_ORIENTATION,
) -> tuple[np.ndarray, Header]:
  """Reads one 3D frame as float32 (d,h,w), scaled as the header says.

  Args:
    path: .nii or .nii.gz, recognised by its content.
    frame: index along the fourth axis of a file of several frames.
    stack: keep the through-plane axis as d.
    expected: (x,y,z) of the scan that these labels belong to. Labels of this shape may
      be compressed more tightly than any scan.
    orientation: one of ORIENTATIONS.

  Raises:
    ValueError: as `read_header`; also for a truncated body or an unknown frame.
  """
  path = pathlib.Path(path)
  header, voxels = _read_start(path, stack, expected, orientation)
  count = header.num_frames
  if count > 1 and (frame is None or not 0 <= frame < count):
    raise ValueError(
      f'{path} holds {count} frames; expected a frame from 0 to {count - 1}, got '
      f'{frame}. Set options.frame, or give one file per frame.'
    )
  if count == 1 and frame not in (None, 0):
    raise ValueError(
      f'{path} holds one frame; expected no frame, got {frame}. Set '
      'options.frame to None.'
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
  path: pathlib.Path, stack: bool, expected: Shape | None, orientation: str
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
  affine, remarks = _affine(path, raw, shape[:3], orientation)
  return Header(grid_of_file(shape[:3], affine, stack), frames, remarks), voxels


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


def _affine(
  path: pathlib.Path, raw: nib.Nifti1Header, shape: Shape, rule: str
) -> tuple[np.ndarray, tuple[Remark, ...]]:
  """(4,4), (x,y,z,1) -> RAS mm, and what had to be decided for it."""
  with np.errstate(all='ignore'):
    try:
      affine, remarks = _placed(path, raw, shape, rule)
    except (ValueError, ArithmeticError, nib.spatialimages.HeaderDataError) as error:
      if isinstance(error, Contradiction):
        raise
      raise ValueError(
        f'{path} has a qform that is no rotation ({error}), so its affine is singular; '
        'expected three independent axes. Repair its sform or qform.'
      ) from error
    affine = np.array(affine, np.float64)
    unit, factor = UNITS.get(int(raw['xyzt_units']) & 7, ('', 1.0))
    affine[:3] *= factor
    spacing = spacing_of(affine)
    place = np.abs(affine[:3, 3]).max()
    independent = abs(np.linalg.det(affine[:3, :3] / spacing)) if spacing.all() else 0
  if unit:
    text = f'lengths are in {unit} and were converted to mm'
    remarks = (*remarks, Remark('unit', text))
  stated = f' (its unit is {unit})' if unit else ''
  low, high = SPACING_MM
  if not (
    np.isfinite(affine).all()
    and (spacing > low).all()
    and (spacing <= high).all()
    and place < 1e6
    and independent >= 1e-4
  ):
    raise ValueError(
      f'{path} has the affine {affine[:3].round(4).tolist()} in mm{stated}, which is '
      'singular or absurd; expected three independent axes with a spacing up to '
      f'{high:g} mm. Repair its sform or qform, or its unit (xyzt_units).'
    )
  extent = spacing * shape
  if extent.max() > LARGEST_MM:
    shown = ' x '.join(f'{mm:.4g}' for mm in extent)
    raise ValueError(
      f'{path} measures {shown} mm{stated}; expected at most {LARGEST_MM:g} mm along '
      'an axis. Correct the unit in its header (xyzt_units), or its sform and qform.'
    )
  return affine, remarks


class Contradiction(ValueError):
  """A header that states no place of its voxels, or two."""


def _placed(
  path: pathlib.Path, raw: nib.Nifti1Header, shape: Shape, rule: str
) -> tuple[np.ndarray, tuple[Remark, ...]]:
  """The affine by one of ORIENTATIONS, in the header's unit."""
  coded_s, coded_q = (int(raw[f'{form}_code']) > 0 for form in ('sform', 'qform'))
  sform = np.asarray(raw.get_sform(), np.float64)
  has_sform = bool(sform[:3, :3].any())
  if not coded_s and not coded_q:
    if rule == 'strict':
      raise Contradiction(
        f'{path} has sform_code and qform_code 0, so nothing states the directions of '
        'its axes; expected one of the two. Repair its header, or set '
        '--config.data.preprocess.orientation=nibabel, trust_sform or trust_qform.'
      )
    affine, how = raw.get_base_affine(), 'by the sizes of its voxels, x to the left'
    if rule == 'trust_sform' and has_sform:
      affine, how = sform, 'by its sform'
    elif rule == 'trust_qform':
      affine, how = raw.get_qform(coded=False), 'by its qform'
    text = f'sform_code and qform_code are 0; it was placed {how}'
    return affine, (Remark('orientation', text),)
  if not (coded_s and coded_q):
    return (sform if coded_s else raw.get_qform(coded=False)), ()
  try:
    qform = np.asarray(raw.get_qform(coded=False), np.float64)
  except (ValueError, nib.spatialimages.HeaderDataError):
    if rule == 'trust_qform':
      raise
    return sform, ()
  away, allowed = _distance(sform, qform, shape)
  if not away > allowed:
    return (qform if rule == 'trust_qform' else sform), ()
  unit = UNITS.get(int(raw['xyzt_units']) & 7, ('mm', 1.0))
  mm = away * unit[1]
  axes = ['/'.join(nib.aff2axcodes(a)) for a in (sform, qform)]
  differ = f'its sform ({axes[0]}) and qform ({axes[1]}) are up to {mm:.4g} mm apart'
  if rule == 'strict':
    raise Contradiction(
      f'{path}: {differ}; expected one place. Repair its header, or set '
      '--config.data.preprocess.orientation=trust_sform or trust_qform.'
    )
  by = 'qform' if rule == 'trust_qform' else 'sform'
  text = f'{differ}; it was placed by the {by}'
  return (qform if by == 'qform' else sform), (Remark('orientation', text),)


def _distance(one: np.ndarray, other: np.ndarray, shape: Shape) -> tuple[float, float]:
  """Largest distance of a corner under both affines, and what rounding explains."""
  corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
  places = [a[:3, :3] @ corners + a[:3, 3:] for a in (one, other)]
  diagonal = np.linalg.norm(np.ptp(places[0], axis=1))
  away = np.linalg.norm(places[0] - places[1], axis=0).max()
  # In the header's unit: the voxel tells how much is a rounding.
  smallest = spacing_of(one).min()
  return float(away), float(max(FORMS_MM * min(1.0, smallest), FORMS_SHARE * diagonal))


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
  of_scan = expected is not None and sorted(shape[:3]) == sorted(expected)
  if large and needed > SCAN_RATIO * on_disk and not of_scan:
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
