"""One preprocessed scan as a safetensors file: read straight into the caller's array.

  array   (d,h,w) float32 in [0,1]
  label   (d,h,w) uint8, where the scan has labels
  metadata: 'record', the JSON that `preprocess.invert` needs

Written whole through the library; read by the format's own description (eight bytes of
length, a JSON header, raw numbers), because the library copies twice.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
from typing import Any

import numpy as np
from safetensors.numpy import save

from ldm_jax import atomic
from ldm_jax.data.preprocessing.preprocess import Processed

TYPES = {'F32': np.dtype('<f4'), 'U8': np.dtype('u1')}
FIRST_READ = 8192


@dataclasses.dataclass(frozen=True)
class Entry:
  """A file's fields, name -> (offset in bytes, type, shape), and its record."""

  path: str
  size: int
  fields: dict[str, tuple[int, np.dtype, tuple[int, ...]]]
  record: dict[str, Any]

  def read_into(self, field: str, out: np.ndarray) -> None:
    """Fills `out`, C-contiguous and of the field's shape and type.

    Raises:
      ValueError: another shape or type, or a file that was cut or changed since.
      OSError: the file is gone.
    """
    start, dtype, shape = self.fields[field]
    if out.shape != shape or out.dtype != dtype:
      raise ValueError(f'{field} is {dtype}{shape}, wanted is {out.dtype}{out.shape}')
    read_into(self.path, self.size, start, out)


def read_into(path: str, size: int, start: int, out: np.ndarray) -> None:
  """Fills a C-contiguous array with a file's bytes from `start` on.

  Raises:
    ValueError: the file is not `size` bytes long.
    OSError: the file is gone.
  """
  missing = memoryview(out.reshape(-1)).cast('B')
  handle = os.open(path, os.O_RDONLY)
  try:
    if os.fstat(handle).st_size != size:
      raise ValueError(f'{os.fstat(handle).st_size} bytes instead of {size}')
    while missing:
      count = os.preadv(handle, [missing], start)
      if not count:
        raise ValueError(f'{len(missing)} bytes are missing')
      missing, start = missing[count:], start + count
  finally:
    os.close(handle)


def mapped(path: str, size: int, start: int, shape: tuple[int, ...]) -> np.ndarray:
  """The float32 array of a file, read-only and not copied: its pages are the file's.

  Raises:
    ValueError: the file is not `size` bytes long.
    OSError: the file is gone.
  """
  handle = os.open(path, os.O_RDONLY)
  try:
    if os.fstat(handle).st_size != size:
      raise ValueError(f'{os.fstat(handle).st_size} bytes instead of {size}')
    flags = mmap.MAP_SHARED | getattr(mmap, 'MAP_POPULATE', 0)  # Linux: at once
    pages = mmap.mmap(handle, size, flags, mmap.PROT_READ)
  finally:
    os.close(handle)
  count = int(np.prod(shape))
  return np.frombuffer(pages, TYPES['F32'], count, start).reshape(shape)


def write(path: str | os.PathLike, processed: Processed) -> None:
  """Writes a scan, whole or not at all; equal scans give equal bytes."""
  tensors = {'array': np.ascontiguousarray(processed.array, np.float32)}
  if processed.label is not None:
    tensors['label'] = np.ascontiguousarray(processed.label, np.uint8)
  # One item: the library writes several in any order.
  metadata = {'record': json.dumps(processed.record)}
  atomic.write_bytes(path, save(tensors, metadata))


def open_entry(path: str | os.PathLike) -> Entry:
  """Reads the header of a file and checks that the file is as long as it says.

  Raises:
    ValueError: it is not what `write` writes, or cut.
    OSError: there is no such file.
  """
  handle = os.open(path, os.O_RDONLY)
  try:
    start, size = os.pread(handle, FIRST_READ, 0), os.fstat(handle).st_size
    length = int.from_bytes(start[:8], 'little')
    if not 2 <= length <= size - 8:
      raise ValueError(f'a header of {length} bytes in {size}')
    text = start[8 : 8 + length]
    if len(text) < length:
      text = os.pread(handle, length, 8)
  finally:
    os.close(handle)
  try:
    header = json.loads(text)
    record, fields, end = json.loads(header.pop('__metadata__')['record']), {}, 0
    for name, entry in header.items():
      first, end_of_field = entry['data_offsets']
      shape = tuple(entry['shape'])
      fields[name] = (8 + length + first, TYPES[entry['dtype']], shape)
      end = max(end, end_of_field)
  except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
    raise ValueError(f'no header of a stored scan ({error!r})') from error
  if 'array' not in fields or size != 8 + length + end:
    raise ValueError(f'{size} bytes instead of {8 + length + end}')
  return Entry(os.fspath(path), size, fields, record)
