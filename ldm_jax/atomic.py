"""Files that exist whole or not at all: the one writer of every such file.

A killed process, a full disk or a second writer leaves either the old file or the new
one, never a part of it. `writing` yields the file; the functions below it write the
usual kinds of content.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from ldm_jax import processes

TEMPORARY_PREFIX = '.incomplete-'


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
