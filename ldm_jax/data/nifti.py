"""NIfTI files, distrusted: size and geometry are checked before voxels are read.

An array is allocated only once the header's promise fits the size of the file.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import pathlib
import zlib

import nibabel as nib
import numpy as np
from isal import igzip
from isal.igzip_lib import IsalError
from nibabel.arrayproxy import ArrayProxy

from ldm_jax.data.grid import Grid, grid_of_file, spacing_of

MAX_VOXELS = 2**31
MAX_GZIP_RATIO = 1100  # deflate cannot exceed about 1032 : 1


@dataclasses.dataclass(frozen=True)
class Header:
  """What a file says about itself before its voxels are read."""

  grid: Grid
  num_frames: int

  @property
  def shape(self) -> tuple[int, int, int]:
    """(d,h,w)."""
    return tuple(self.grid.shape[axis] for axis in self.grid.axes)

  @property
  def spacing(self) -> np.ndarray:
    """Voxel size in mm along (d,h,w)."""
    return spacing_of(self.grid.oriented_affine())

  @property
  def voxel_ml(self) -> float:
    return float(abs(np.linalg.det(self.grid.affine[:3, :3]))) / 1000.0


def read_header(path: str | os.PathLike, stack: bool = False) -> Header:
  """Reads shape and geometry only.

  Raises:
    ValueError: the file is missing, damaged or not NIfTI, holds colours or complex
      numbers, has an impossible size or a singular affine.
  """
  return _header(_load(path), pathlib.Path(path), stack)


def read_frame(
  path: str | os.PathLike, frame: int | None = None, stack: bool = False
) -> tuple[np.ndarray, Header]:
  """Reads one 3D frame, unscaled in type, flipped and permuted to (d,h,w).

  Raises:
    ValueError: as `read_header`; also for a truncated body or a frame it has not.
  """
  path = pathlib.Path(path)
  image = _load(path)
  header = _header(image, path, stack)
  count = header.num_frames
  if count > 1 and (frame is None or not 0 <= frame < count):
    raise ValueError(
      f'{path} holds {count} frames and frame {frame} was asked for; required is a '
      f'frame from 0 to {count - 1}. Set options.frame, or give one file per frame.'
    )
  if count == 1 and frame not in (None, 0):
    raise ValueError(
      f'{path} holds one frame and frame {frame} was asked for; unset options.frame.'
    )
  try:
    voxels = _voxels(image, path, frame if count > 1 else None)
  except (EOFError, OSError, IsalError, zlib.error, ValueError) as error:
    raise _truncated(path, error) from error
  return header.grid.orient(voxels.reshape(header.grid.shape)), header


def _voxels(image: nib.Nifti1Image, path: pathlib.Path, frame: int | None):
  """Scaled voxels of one frame of a cine, of the whole file if None."""
  proxy = image.dataobj
  chosen = ... if frame is None else (*[slice(None)] * 3, frame)
  if isinstance(image, nib.Nifti1Image) and path.suffix == '.gz':
    # The same bytes, decompressed two to three times faster than by zlib.
    with igzip.open(path, 'rb') as file:
      own = (proxy.shape, proxy.dtype, proxy.offset, proxy.slope, proxy.inter)
      return ArrayProxy(file, own, mmap=False)[chosen]
  return proxy[chosen]


def _load(path: str | os.PathLike) -> nib.Nifti1Image:
  path = pathlib.Path(path)
  try:
    image = nib.load(path)
  except FileNotFoundError as error:
    raise ValueError(
      f'{path} does not exist; required is a NIfTI file. Correct the path in the table '
      'or the pattern in options.image.'
    ) from error
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise _truncated(path, error) from error
  except Exception as error:  # nibabel raises many kinds for a damaged header
    raise ValueError(
      f'{path} cannot be read as NIfTI ({type(error).__name__}: {error}); required is '
      'a .nii or .nii.gz file. Convert, repair or remove it.'
    ) from error
  if not isinstance(image, nib.Nifti1Pair):
    raise ValueError(
      f'{path} is {type(image).__name__}; required is NIfTI. Convert it to .nii.gz.'
    )
  return image


def _header(image: nib.Nifti1Image, path: pathlib.Path, stack: bool) -> Header:
  dtype = image.get_data_dtype()
  if dtype.names or np.issubdtype(dtype, np.complexfloating):
    raise ValueError(
      f'{path} holds colours or complex numbers ({dtype}); required is one intensity '
      'per voxel. Convert it to a grey-scale image.'
    )
  shape = tuple(int(n) for n in image.shape)
  while len(shape) > 3 and shape[-1] == 1:
    shape = shape[:-1]
  if len(shape) == 2:
    shape = (*shape, 1)
  if len(shape) not in (3, 4) or min(shape) < 1:
    raise ValueError(
      f'{path} has the shape {image.shape}; required are three axes (x,y,z), or four '
      'with time last, each at least 1. Split or repair the file.'
    )
  _check_size(path, image, dtype)
  affine = np.asarray(image.affine, np.float64)
  spacing = spacing_of(affine)
  if (
    not np.isfinite(affine).all()
    or not (spacing > 1e-6).all()
    or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-4
  ):
    raise ValueError(
      f'{path} has the affine {affine[:3].round(4).tolist()}, which is singular: '
      'voxels have no volume; required are three independent axes of positive '
      'spacing. Repair its sform or qform.'
    )
  num_frames = shape[3] if len(shape) == 4 else 1
  return Header(grid_of_file(shape[:3], affine, stack), num_frames)


def _check_size(path: pathlib.Path, image: nib.Nifti1Image, dtype: np.dtype) -> None:
  """Refuses, before any allocation, a header that promises more than the file holds."""
  num_voxels = 1
  for length in image.shape:
    num_voxels *= int(length)
  if num_voxels > MAX_VOXELS:
    raise ValueError(
      f'{path} announces {num_voxels} voxels {image.shape}; allowed are {MAX_VOXELS}. '
      'The header is damaged, or the file must be split.'
    )
  data_path = pathlib.Path(image.file_map['image'].filename or path)
  if not data_path.exists():
    raise ValueError(f'{path} needs its data file {data_path}, which does not exist.')
  size, needed = data_path.stat().st_size, num_voxels * dtype.itemsize
  packed = data_path.suffix in ('.gz', '.bz2', '.zst')
  if needed > size * (MAX_GZIP_RATIO if packed else 1):
    raise ValueError(
      f'{path} announces {needed} bytes of voxels but holds {size} bytes; required is '
      'the whole file. It is truncated or its header is damaged: copy it again.'
    )


def _truncated(path: pathlib.Path, error: Exception) -> ValueError:
  return ValueError(
    f'{path} is truncated or damaged ({type(error).__name__}: {error}); required is '
    'the whole file. Copy it again, or remove it.'
  )
