"""Files that exist whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import uuid
from typing import Any

TEMPORARY_PREFIX = '.incomplete-'


def write_bytes(path: str | os.PathLike, content: bytes | memoryview) -> None:
  """Writes `content` to `path` through a temporary file in the same folder.

  A killed process, a full disk or a second writer leaves either the old file or the new
  one, never a part of it.

  Raises:
    OSError: the folder cannot be made or written; the message names the path.
  """
  path = pathlib.Path(path)
  temporary = path.parent / f'{TEMPORARY_PREFIX}{uuid.uuid4().hex}'
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(temporary, 'xb') as file:
      file.write(content)
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


def write_json(path: str | os.PathLike, content: Any) -> None:
  """Writes strict JSON (no NaN) atomically."""
  text = json.dumps(content, indent=1, allow_nan=False) + '\n'
  write_bytes(path, text.encode())
