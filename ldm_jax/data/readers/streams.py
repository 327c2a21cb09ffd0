"""Untrusted files: which may be opened, and unpacking in bounded memory.

Opening a pipe blocks for ever and unpacking a zip bomb fills the memory, so a path is
checked before it is opened, and a packed stream is read no further than requested.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import Any

from isal import isal_zlib as zlib  # the same streams, two to three times faster

CHUNK = 2**18
# What reading a damaged file raises.
DAMAGED: Any = (EOFError, OSError, zlib.error)
GZIP = b'\x1f\x8b'
# What a file with the wrong name usually is.
KINDS = (
  (b'', 'an empty file'),
  (GZIP, 'a gzip archive'),
  (b'PK\x03\x04', 'a zip archive'),
  (b'BZh', 'a bzip2 archive'),
  (b'\x28\xb5\x2f\xfd', 'a zstd archive'),
  (b'7z\xbc\xaf', 'a 7z archive'),
  (b'\x89PNG', 'a PNG image'),
  (b'\xff\xd8\xff', 'a JPEG image'),
  (b'\x89HDF', 'an HDF5 file'),
  (b'NRRD', 'an NRRD file'),
  (b'%PDF', 'a PDF'),
  (b'<', 'an HTML or XML page'),
  (b'version https://git-lfs', 'a git-lfs pointer: the file was never downloaded'),
  (b'/annex/objects', 'a git-annex pointer: the file was never downloaded'),
)


def require_file(path: str | os.PathLike, required: str, advice: str) -> os.stat_result:
  """Returns the status of a regular file that may be read.

  Args:
    path: of the file; links are followed.
    required: what it should be, for the message: 'a NIfTI file'.
    advice: which key or file to change.

  Raises:
    ValueError: nothing there, a folder, a pipe or device, a loop of links, an
      impossible name, or no permission.
  """
  try:
    found = os.stat(path)
  except (OSError, ValueError) as error:
    raise unreadable(path, error, required, advice) from error
  if not stat.S_ISREG(found.st_mode):
    kind = 'a folder' if stat.S_ISDIR(found.st_mode) else 'a pipe, socket or device'
    raise ValueError(f'{_short(path)} is {kind}; expected {required}. {advice}')
  if not os.access(path, os.R_OK):
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    raise unreadable(path, denied, required, advice)
  return found


def digest(path: str | os.PathLike, required: str, advice: str) -> bytes:
  """SHA-256 of a file's bytes. Arguments and errors as of `require_file`."""
  require_file(path, required, advice)
  try:
    with open(path, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').digest()
  except OSError as error:
    raise unreadable(path, error, required, advice) from error


def unreadable(
  path: str | os.PathLike, error: Exception, required: str, advice: str
) -> ValueError:
  """The error about a file that cannot be opened or read."""
  if isinstance(error, FileNotFoundError | NotADirectoryError):
    return ValueError(
      f'{_short(path)} cannot be read: it does not exist; expected {required}. {advice}'
    )
  reason = getattr(error, 'strerror', None) or error
  return ValueError(
    f'{_short(path)} cannot be read ({reason}); expected {required}. {advice}'
  )


def _short(path: str | os.PathLike) -> str:
  text = os.fspath(path)
  return text if len(text) <= 400 else f'{text[:200]}...{text[-200:]}'


def kind_of(start: bytes) -> str:
  """The kind of file that begins with these bytes, '' when unknown."""
  if start[128:132] == b'DICM':
    return 'a DICOM file'
  for mark, kind in KINDS:
    if start == mark or (mark and start.startswith(mark)):
      return kind
  return ''


class Stream:
  """The bytes of a file, unpacked when they are gzip, whatever the file's name.

  Never holds more than a chunk beside the requested bytes.

  Attributes:
    packed: whether the file is gzip.

  Raises:
    DAMAGED: while reading, for a truncated or damaged file.
  """

  def __init__(self, path: str | os.PathLike):
    self._file = open(path, 'rb')  # noqa: SIM115 (closed by __exit__)
    self.packed = self._file.read(2) == GZIP
    self._file.seek(0)
    self._unpack, self._rest = zlib.decompressobj(31), b''

  def __enter__(self) -> Stream:
    return self

  def __exit__(self, *error) -> None:
    self._file.close()

  def read(self, count: int) -> bytes:
    """Up to `count` bytes; fewer only at the end of the file."""
    content = bytearray(min(count, CHUNK))
    found = bytearray()
    while count > len(found):
      part = memoryview(content)[: count - len(found)]
      filled = self._some(part)
      if not filled:
        break
      found += part[:filled]
    return bytes(found)

  def fill(self, target: memoryview) -> None:
    """Fills `target` with the next bytes. Raises EOFError when the file ends before."""
    done = 0
    while done < len(target):
      filled = self._some(target[done:])
      if not filled:
        raise EOFError(f'{len(target) - done} bytes of voxels are missing')
      done += filled

  def skip(self, count: int) -> None:
    """Skips `count` bytes. Raises EOFError when the file ends before."""
    if not self.packed:
      self._file.seek(count, os.SEEK_CUR)
      return
    scratch = memoryview(bytearray(min(count, CHUNK)))
    while count:
      filled = self._some(scratch[:count])
      if not filled:
        raise EOFError(f'{count} bytes before the voxels are missing')
      count -= filled

  def check_end(self) -> None:
    """Verifies the checksum, if the packed stream ends within the next chunk."""
    if self.packed:
      self.read(CHUNK)

  def _some(self, target: memoryview) -> int:
    """Puts the next bytes into `target`; returns how many, 0 at the end."""
    if not self.packed:
      return self._file.readinto(target)
    while True:
      if self._unpack.eof:  # another member may follow; anything else is padding
        self._rest = self._unpack.unused_data
        if len(self._rest) < len(GZIP):
          self._rest += self._file.read(CHUNK)
        if not self._rest.startswith(GZIP):
          return 0
        self._unpack = zlib.decompressobj(31)
      elif not self._rest:
        self._rest = self._file.read(CHUNK)
        if not self._rest:
          raise EOFError('the packed stream ends in the middle')
      part = self._unpack.decompress(self._rest, min(len(target), CHUNK))
      self._rest = self._unpack.unconsumed_tail
      if part:
        target[: len(part)] = part
        return len(part)
