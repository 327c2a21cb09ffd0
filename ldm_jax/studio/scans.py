"""A scan that the user loads: its bytes are read in memory and never written to disk.

The readers for untrusted files take a path. They get that of an anonymous file in
memory (memfd), by a link whose name tells them the kind; the link holds no content.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.readers import volume
from ldm_jax.data.readers.volume import Volume
from ldm_jax.sharing.shared_model import SharedModel

MAX_BYTES = 2**28  # 256 MiB of an upload
MAX_VOXELS = 2**27  # 512 MiB as float32; a head at 0.5 mm has half of it
ZIP = b'PK\x03\x04'
DICOM = b'DICM'


@dataclasses.dataclass(frozen=True)
class Scan:
  """A scan as it is and as the model sees it.

  Attributes:
    volume: on the grid of the file.
    x: (d,h,w) in [0,1] on the model's grid.
    record: the way back, of `preprocess.apply`.
  """

  volume: Volume
  x: np.ndarray
  record: dict[str, Any]


def read(content: bytes, model: SharedModel) -> Scan:
  """The scan in the bytes of a NIfTI file, a DICOM file or a zip of DICOM files.

  Raises:
    ValueError: no scan, one that is damaged or too large, or a system without files in
      memory (Linux has them).
  """
  if not hasattr(os, 'memfd_create'):
    raise ValueError(
      'Scans are read here from memory alone, which this system does not offer '
      '(expected Linux). Use model.edit of ldm_jax.load instead, see docs/share.md.'
    )
  if len(content) > MAX_BYTES:
    raise ValueError(
      f'The file has {len(content)} bytes, expected at most {MAX_BYTES}; crop it.'
    )
  descriptor = os.memfd_create('scan')
  try:
    with open(descriptor, 'wb', closefd=False) as file:
      file.write(content)
    with tempfile.TemporaryDirectory(prefix='ldm-jax-studio-') as folder:
      path = pathlib.Path(folder, _name(content))
      path.symlink_to(f'/proc/{os.getpid()}/fd/{descriptor}')
      try:
        return _read(path, model)
      except ValueError as error:
        # The user knows the file by another name.
        raise ValueError(str(error).replace(str(path), 'The file')) from error
  finally:
    os.close(descriptor)


def _read(path: pathlib.Path, model: SharedModel) -> Scan:
  orientation = model.spec.orientation
  header = volume.reader(path).read_header(path, model.stack, orientation=orientation)
  count = int(np.prod([int(n) for n in header.grid.shape], dtype=object))
  if count > MAX_VOXELS:
    raise ValueError(
      f'The file has {count} voxels, expected at most {MAX_VOXELS}; crop it, or use '
      'model.edit of ldm_jax.load.'
    )
  # Of a series in time, the first moment is shown.
  frame = 0 if header.num_frames > 1 else None
  found = volume.read(path, frame, stack=model.stack, orientation=orientation)
  processed = preprocess.apply(model.spec, found)
  return Scan(found, processed.array, processed.record)


def _name(content: bytes) -> str:
  if content.startswith(ZIP):
    return 'scan.zip'
  return 'scan.dcm' if content[128:132] == DICOM else 'scan.nii'
