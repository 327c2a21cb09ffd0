"""Files that exist whole or not at all: the one writer of every such file.

A killed process, a full disk or a second writer leaves either the old file or the new
one, never a part of it. `writing` yields the file; the functions below it write the
usual kinds of content.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import pathlib
import struct
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from ldm_jax import processes

TEMPORARY_PREFIX = '.incomplete-'
# Arrays of a file with no more bytes are read whole.
SMALL = 2**20


@contextlib.contextmanager
def writing(path: str | os.PathLike, mode: int = 0o666) -> Iterator[IO[bytes]]:
  """Yields a binary file that becomes `path` when the block ends without an error.

  It is written under a temporary name in the same folder, which is created. Of several
  processes only those that `processes.writes` names write; in others it is forgotten.

  Args:
    path: of the file, which may exist.
    mode: permissions of a new file, of which the umask takes some away.

  Raises:
    OSError: the folder cannot be made or written; the message names the path.
  """
  path = pathlib.Path(path)
  if not processes.writes():
    yield io.BytesIO()
    return
  temporary = path.parent / f'{TEMPORARY_PREFIX}{uuid.uuid4().hex}'
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(
      temporary, 'xb', opener=lambda name, flags: os.open(name, flags, mode)
    ) as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except OSError as error:
    raise OSError(
      error.errno,
      f'{path} could not be written ({error.strerror}); required is a writable folder '
      'with free space. Free some space or choose another --workdir; what was written '
      'so far is intact and the same command continues from it',
    ) from error
  finally:
    with contextlib.suppress(OSError):
      os.unlink(temporary)


def destroy(path: str | os.PathLike) -> None:
  """Overwrites and removes a secret file; no error if it does not exist.

  Overwriting erases the old bytes on ordinary disks only; journals, snapshots and flash
  storage may keep a copy.
  """
  path = pathlib.Path(path)
  if not processes.writes():
    return
  try:
    with open(path, 'r+b') as file:
      file.write(b'0' * path.stat().st_size)
      file.flush()
      os.fsync(file.fileno())
  except FileNotFoundError:
    return
  path.unlink()


def write_bytes(
  path: str | os.PathLike, content: bytes | memoryview, mode: int = 0o666
) -> None:
  """Writes bytes; `mode` and errors as in `writing`."""
  with writing(path, mode) as file:
    file.write(content)


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes UTF-8; what is no text, such as an odd file name, comes as its escape."""
  write_bytes(path, text.encode('utf-8', 'backslashreplace'))


def write_json(path: str | os.PathLike, content: Any, allow_nan: bool = False) -> None:
  """Writes JSON, strict (without NaN) by default.

  Raises:
    ValueError: NaN or infinity in strict JSON.
  """
  text = json.dumps(content, indent=1, allow_nan=allow_nan) + '\n'
  write_bytes(path, text.encode())


def write_csv(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes a table; the first row names the columns.

  Args:
    path: of the file.
    rows: {column: value} of each row, at least one.
  """
  text = io.StringIO(newline='')
  writer = csv.DictWriter(text, list(rows[0]))
  writer.writeheader()
  writer.writerows(rows)
  write_text(path, text.getvalue())


def write_arrays(path: str | os.PathLike, /, **arrays: Any) -> None:
  """Writes named arrays as .npz."""
  with writing(path) as file:
    np.savez(file, **arrays)


def write_streamed(
  path: str | os.PathLike,
  name: str,
  length: int,
  parts: Iterable[np.ndarray],
  /,
  **arrays: Any,
) -> None:
  """`write_arrays` with one more array, float32, which comes in parts.

  No more than a part is in memory. Processes that do not write (see `writing`) take the
  parts as well, which may be made by all of them together.

  Args:
    path: of the .npz.
    name: of the array.
    length: of its first axis.
    parts: arrays (m,...), one after the other along the first axis; at least one.
    **arrays: the others, or functions that return them once all parts have come.
  """
  if not processes.writes():
    for _ in parts:
      pass
    return
  write = np.lib.format.write_array
  with writing(path) as file, zipfile.ZipFile(file, 'w') as archive:
    rest = iter(parts)
    first = next(rest)
    with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
      shape = (length, *first.shape[1:])
      header = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
      np.lib.format.write_array_header_2_0(member, header)
      for part in itertools.chain([first], rest):
        member.write(np.ascontiguousarray(part, '<f4').tobytes())
    for other, value in arrays.items():
      value = value() if callable(value) else value
      with archive.open(f'{other}.npy', 'w', force_zip64=True) as member:
        write(member, np.asanyarray(value), allow_pickle=False)


def map_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The arrays of an .npz, read from the disk where they are indexed.

  Every byte is read once, to find damage.

  Raises:
    OSError, ValueError, zipfile.BadZipFile: the file is damaged.
  """
  found: dict[str, np.ndarray] = {}
  with open(path, 'rb') as file, zipfile.ZipFile(file) as archive:
    damaged = archive.testzip()
    if damaged is not None:
      raise zipfile.BadZipFile(f'{damaged} is damaged')
    for member in archive.infolist():
      found[member.filename.removesuffix('.npy')] = _mapped(path, file, member)
  return found


def _mapped(path, file, member):
  """A member of an open archive as an array; it is not compressed."""
  file.seek(member.header_offset + 26)
  name, extra = struct.unpack('<HH', file.read(4))
  file.seek(name + extra, os.SEEK_CUR)
  version = np.lib.format.read_magic(file)
  read = {(1, 0): 'read_array_header_1_0', (2, 0): 'read_array_header_2_0'}.get(version)
  if read is None or member.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f'{member.filename} is stored otherwise than by numpy.savez')
  shape, is_fortran, dtype = getattr(np.lib.format, read)(file)
  if dtype.hasobject:
    raise ValueError(f'{member.filename} holds objects, not numbers')
  order = 'F' if is_fortran else 'C'
  if 0 in shape or not dtype.itemsize:
    return np.zeros(shape, dtype, order)
  found = np.memmap(path, dtype, 'r', file.tell(), shape or (1,), order)
  return np.array(found).reshape(shape) if found.nbytes <= SMALL else found
