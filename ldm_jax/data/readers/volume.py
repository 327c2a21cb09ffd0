"""Volumes with their place in the world: NIfTI or DICOM <-> (d,h,w) array and affine.

A file's axes (x,y,z) are flipped and permuted, never resampled, into (d,h,w) = (slices,
rows, columns) that increase towards superior, anterior, right. `affine` maps (d,h,w,1)
to world RAS millimetres; `source` is the file's own grid, for an exact way back.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import types

import nibabel as nib
import numpy as np

from ldm_jax import atomic
from ldm_jax.data.readers import label_faults, nifti, padding
from ldm_jax.data.readers.dicom import container, series
from ldm_jax.data.readers.grid import Grid, Header, Remark, own_grid, spacing_of

DESCRIP_BYTES = 79  # of the header's field, which ends in a zero
SAME_VOXELS_MM = 0.1  # largest distance of labels from the voxels of their scan
# Remarks that may explain why labels and scan do not lie on each other.
UNSURE = ('orientation', 'unit')


@dataclasses.dataclass(frozen=True)
class Volume:
  """An array with its place in the world.

  Attributes:
    array: (d,h,w), float32 for scans, integers for labels.
    affine: (4,4), (d,h,w,1) -> world RAS mm.
    source: the grid of the file it came from; the array's own grid when None.
    remarks: what had to be decided to read it.
  """

  array: np.ndarray
  affine: np.ndarray
  source: Grid = None  # type: ignore[assignment]  # never None once made
  remarks: tuple[Remark, ...] = ()

  def __post_init__(self):
    if self.source is None:
      object.__setattr__(self, 'source', own_grid(self.array.shape, self.affine))

  @property
  def spacing(self) -> np.ndarray:
    """Voxel size in mm along (d,h,w)."""
    return spacing_of(self.affine)

  @property
  def voxel_ml(self) -> float:
    """Volume of one voxel in millilitres."""
    return abs(float(np.linalg.det(np.asarray(self.affine)[:3, :3]))) / 1000.0


def reader(path: str | os.PathLike) -> types.ModuleType:
  """The module that reads a path: it has `read_header` and `read_frame`."""
  return series if container.is_dicom(path) else nifti


def read(
  path: str | os.PathLike,
  frame: int | None = None,
  stack: bool = False,
  orientation: str = nifti.DEFAULT_ORIENTATION,
) -> Volume:
  """Reads a scan as float32 (d,h,w); padding outside the scanned field becomes air.

  Args:
    path: .nii or .nii.gz, or DICOM: a folder, a zip or a file (see `dicom.container`).
    frame: index along the fourth axis; required when the file holds several frames.
    stack: keep the through-plane axis as d.
    orientation: one of `nifti.ORIENTATIONS`.

  Raises:
    ValueError: the file is missing, truncated or not NIfTI, holds colours, complex
      numbers, NaN, one constant value, an impossible size or a singular affine.
  """
  read_by = reader(path)
  array, header = read_by.read_frame(path, frame, stack, orientation=orientation)
  array, padded = padding.replace_border(array)
  low, high = array.min(), array.max()  # NaN and infinity propagate
  if not np.isfinite(low) or not np.isfinite(high):
    bad = array.size - int(np.isfinite(array).sum())
    raise ValueError(
      f'{path} holds {bad} NaN or infinite voxels of {array.size}; expected finite '
      'intensities. Repair or remove the file.'
    )
  if low == high:
    raise ValueError(
      f'{path} holds one constant value ({array.flat[0]:g}) in all voxels; expected '
      'an image. Repair or remove the file.'
    )
  remarks = (*header.remarks, *padded)
  return Volume(array, header.grid.oriented_affine(), header.grid, remarks)


def read_label(
  path: str | os.PathLike,
  frame: int | None = None,
  stack: bool = False,
  like: Volume | None = None,
  orientation: str = nifti.DEFAULT_ORIENTATION,
) -> Volume:
  """Reads integer labels 0..255 as uint8 (d,h,w); `like` is the scan they belong to.

  A 3D label of a 4D scan is that of the chosen frame. Labels on the voxels of `like`
  may be stored in another order of axes and directions: they are reordered exactly.

  Raises ValueError as `read` does (a constant label is allowed), and when the labels
  are not on the voxels of `like`.
  """
  read_by = reader(path)
  num_frames = read_by.read_header(path, stack, orientation=orientation).num_frames
  array, header = read_by.read_frame(
    path,
    frame if num_frames > 1 else None,
    stack,
    expected=None if like is None else like.source.shape,
    orientation=orientation,
  )
  rounded = np.rint(np.asarray(array, np.float64))
  fault = label_faults.found(array, rounded)
  if fault:
    raise ValueError(f'{path} {fault} Or name the label file in options.label.')
  if like is not None:
    # Two spellings of one geometry may round to different axes; the scan decides.
    raw = header.grid.restore(rounded)
    array = like.source.orient(_in_order_of(path, raw, header, like))
    return Volume(array.astype(np.uint8), like.affine, like.source)
  return Volume(rounded.astype(np.uint8), header.grid.oriented_affine(), header.grid)


def write(
  path: str | os.PathLike,
  array: np.ndarray,
  affine: np.ndarray,
  source: Grid | None = None,
  note: str = '',
) -> None:
  """Writes (d,h,w) and its affine as NIfTI, whole or not at all.

  Args:
    path: ends in .nii or .nii.gz.
    array, affine, source, note: of `to_bytes`.

  Raises:
    ValueError: the source's grid is not that of the array.
    OSError: the folder cannot be written.
  """
  try:
    content = to_bytes(array, affine, source, note)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  if str(path).endswith('.gz'):
    content = gzip.compress(content, compresslevel=6, mtime=0)
  atomic.write_bytes(path, content)


def to_bytes(
  array: np.ndarray, affine: np.ndarray, source: Grid | None = None, note: str = ''
) -> bytes:
  """(d,h,w) and its affine as the content of a .nii file.

  Args:
    array: (d,h,w) float or integer.
    affine: (4,4), (d,h,w,1) -> world RAS mm.
    source: write on this grid's axes (the file that the array came from); the world
      coordinate of every voxel is the same with and without it.
    note: what the file is, such as 'SYNTHETIC ...': its start stands in the header's
      `descrip` (79 bytes), the whole in an extension of kind comment; '' for neither.

  Raises:
    ValueError: the source's grid is not that of the array.
  """
  grid = own_grid(array.shape, affine) if source is None else source
  if not np.allclose(grid.oriented_affine(), affine, atol=1e-3):
    raise ValueError(
      'the affine of the array is not that of its source grid; expected an array on '
      'the original grid (preprocess.invert), or source=None.'
    )
  voxels = grid.restore(np.asarray(array))
  if np.issubdtype(voxels.dtype, np.floating):
    voxels = voxels.astype(np.float32)
  elif voxels.dtype not in (np.uint8, np.int16):
    small = voxels.size == 0 or (voxels.min() >= 0 and voxels.max() <= 255)
    voxels = voxels.astype(np.uint8 if small else np.int32)
  image = nib.Nifti1Image(voxels, grid.affine)
  image.set_sform(grid.affine, code=1)
  image.set_qform(grid.affine, code=1)
  image.header.set_xyzt_units('mm')
  if note:
    image.header['descrip'] = note.encode('ascii', 'replace')[:DESCRIP_BYTES]
    comment = nib.nifti1.Nifti1Extension('comment', note.encode())
    image.header.extensions.append(comment)
  return image.to_bytes()


def _in_order_of(
  path: str | os.PathLike, array: np.ndarray, header: Header, scan: Volume
) -> np.ndarray:
  """Labels (x,y,z) of a file, in the order of the axes of the scan's file.

  Raises:
    ValueError: they are on other voxels than the scan.
  """
  shape, grid = scan.source.shape, header.grid
  with np.errstate(all='ignore'):
    turn = np.linalg.inv(scan.source.affine)[:3, :3] @ grid.affine[:3, :3]
  axes = [int(axis) for axis in np.argmax(np.abs(turn), axis=1)]  # of the label
  if sorted(axes) != [0, 1, 2] or tuple(grid.shape[axis] for axis in axes) != shape:
    raise ValueError(
      f'{path} has the shape {grid.shape} but its scan has {shape}; expected '
      'labels on the voxels of the scan, in any order of the axes. Name the matching '
      'label file in options.label, or resample the labels to the scan.'
    )
  flips = [turn[i, axis] < 0 for i, axis in enumerate(axes)]
  # Where the scan's file has its voxel (0,0,0), and its axes, in the label's indices.
  order = np.zeros((4, 4))
  order[3, 3] = 1
  for index, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
    order[axis, index] = -1 if flip else 1
    order[axis, 3] = grid.shape[axis] - 1 if flip else 0
  corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
  corners = np.vstack([corners, np.ones(corners.shape[1])])
  distance = np.abs((grid.affine @ order - scan.source.affine) @ corners).max()
  if not distance <= SAME_VOXELS_MM:
    undecided = [r.text for r in (*header.remarks, *scan.remarks) if r.kind in UNSURE]
    raise ValueError(
      f'{path} lies {distance:.2f} mm away from its scan; expected labels on the '
      f'voxels of the scan ({SAME_VOXELS_MM:g} mm), in any order of the axes. '
      + (f'In the headers: {"; ".join(undecided)}. ' if undecided else '')
      + 'Resample the labels to the scan, or repair the affine that is wrong.'
    )
  turned = np.transpose(array, axes)
  return turned[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
