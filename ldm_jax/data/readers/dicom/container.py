"""A folder, one file or a zip of DICOM files -> members that are read in turn.

A path may end in '#2', the second volume of what lies there, or '#NAME', all series
whose description matches NAME (wildcards *, ?). Nothing is extracted to disk: a zip's
members are streamed. A zip that lies about its sizes, holds paths that lead out of it,
or unpacks to more than images do is refused by its directory alone; no more is unpacked
than was announced there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from ldm_jax.data.readers import streams

SUFFIXES = ('.dcm', '.dicom', '.ima')
NUM_DEPTHS = 12
MAX_MEMBERS = 100_000
MAX_MEMBER_BYTES = 2**29  # a member is unpacked in memory, whole
MAX_ZIP_BYTES = 2**35
MAX_ZIP_RATIO = 100  # of all members together; cine images reach about 4
SMALL_ZIP_BYTES = 2**26  # an empty phantom of this size may be packed tighter
MARK = b'DICM'
REQUIRED = 'a DICOM file, or a folder or zip of them'
ADVICE = 'Correct the path in the table or the pattern in options.image.'
# A name like this identifies the study and is kept out of messages.
UID = re.compile(r'\d+(\.\d+){4,}')


@dataclasses.dataclass(frozen=True)
class Member:
  """One file of a folder or zip.

  Attributes:
    name: as the folder or zip has it.
    size: bytes once unpacked, as announced.
    shown: its name in messages, or its number where the name identifies the study.
  """

  name: str
  size: int
  shown: str


def split_choice(path: str | os.PathLike) -> tuple[pathlib.Path, str]:
  """'x.zip#2' -> (x.zip, '2'); a path that exists as it is has no choice."""
  whole = pathlib.Path(path)
  before, mark, choice = str(path).rpartition('#')
  if not mark or not before or os.path.exists(whole):
    return whole, ''
  return pathlib.Path(before), choice


def is_dicom(path: str | os.PathLike) -> bool:
  """Whether a path is read as DICOM: a folder, a zip, or a file with DICOM's mark."""
  path, _ = split_choice(path)
  name = path.name.lower()
  if name.endswith((*SUFFIXES, '.zip')) or os.path.isdir(path):
    return True
  if name.endswith(('.nii', '.nii.gz', '.hdr', '.img')) or not os.path.isfile(path):
    return False
  try:
    with path.open('rb') as file:
      return file.read(132)[128:] == MARK
  except OSError:
    return False


def digest(path: str | os.PathLike) -> bytes:
  """SHA-256 of all bytes at a path, and of the choice among them.

  Raises:
    ValueError: there is nothing readable.
  """
  path, choice = split_choice(path)
  found = hashlib.sha256(f'dicom:{choice}'.encode())
  for file in _files(path) if os.path.isdir(path) else [path]:
    found.update(streams.digest(file, REQUIRED, ADVICE))
  return found.digest()


def listing(path: str | os.PathLike) -> tuple[str, ...]:
  """Every file of a path, NIfTI too; the path itself where it cannot be listed."""
  path, _ = split_choice(path)
  try:
    return tuple(map(str, _files(path))) if os.path.isdir(path) else (str(path),)
  except (OSError, ValueError):
    return (str(path),)


def stamp(path: str | os.PathLike) -> list[str | int]:
  """Name, size and time of change of every file at a path; [] when there is none."""
  files = listing(path)
  try:
    states = [(file, os.stat(file)) for file in files]
  except (OSError, ValueError):
    return []
  return [part for f, s in states for part in (f, s.st_size, s.st_mtime_ns)]


class Container:
  """The files at a path, to be opened one at a time.

  Attributes:
    path: folder, file or zip.
    members: its files, sorted by name.

  Raises:
    ValueError: nothing there, a damaged or hostile zip, a folder too deep or full.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path)
    self._zip = None
    if self.path.is_dir():
      found = [(str(f.relative_to(self.path)), _size(f)) for f in _files(self.path)]
    elif self.path.name.lower().endswith('.zip'):
      self._zip = _open_zip(self.path)
      try:
        found = _checked(self.path, self._zip)
      except ValueError:
        self._zip.close()
        raise
    else:
      found = [('', _size(self.path))]
    self.members = [
      Member(name, size, _shown(self.path, name, number, self._zip is not None))
      for number, (name, size) in enumerate(sorted(found))
    ]

  def __enter__(self) -> Container:
    return self

  def __exit__(self, *error) -> None:
    if self._zip is not None:
      self._zip.close()

  def open(self, member: Member) -> BinaryIO:
    """Opens one file for reading. Raises ValueError when it cannot be."""
    try:
      if self._zip is not None:
        stream: Any = self._zip.open(member.name)
        stream.name = ''  # pydicom's log would quote it, and it may hold a UID
        return stream
      stream = (self.path / member.name if member.name else self.path).open('rb')
      stream.raw.name = ''
      return stream
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
      raise damaged(member, error) from None

  def read(self, member: Member, limit: int = MAX_MEMBER_BYTES) -> bytes:
    """The first `limit` bytes of a file. Raises ValueError when it is damaged."""
    with self.open(member) as stream:
      try:
        return stream.read(limit)
      except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(member, error) from None

  def images(self) -> Iterator[Member]:
    """The members that carry DICOM's mark.

    Raises:
      ValueError: a file that is named like DICOM but has no mark: skipping it would
        drop a slice unnoticed.
    """
    for member in self.members:
      if os.path.basename(member.name) == 'DICOMDIR':
        continue
      if self.read(member, 132)[128:] == MARK:
        yield member
      elif (member.name or self.path.name).lower().endswith(SUFFIXES):
        raise ValueError(
          f'{member.shown} is not a DICOM file ({member.size} bytes, without the mark '
          'DICM at byte 128); expected a whole DICOM file with its preamble. Copy '
          'it again, or remove it.'
        )


def damaged(member: Member, error: Exception) -> ValueError:
  """The error about a member that cannot be read; never quotes its content."""
  return ValueError(
    f'{member.shown} is truncated or damaged ({type(error).__name__}); expected a '
    'whole DICOM file. Copy it again, or remove it.'
  )


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Regular files below a folder, sorted; hidden ones and linked folders are not."""
  found, waiting = [], [(folder, 0)]
  while waiting:
    current, depth = waiting.pop()
    try:
      entries = list(os.scandir(current))
    except (OSError, ValueError) as error:
      raise streams.unreadable(current, error, REQUIRED, ADVICE) from error
    for entry in entries:
      path = pathlib.Path(entry.path)
      if entry.name.startswith('.'):
        continue
      if entry.is_dir(follow_symlinks=False) and depth < NUM_DEPTHS:
        waiting.append((path, depth + 1))
      elif path.is_file():  # False for a loop of links, where the entry would raise
        found.append(path)
    if len(found) > MAX_MEMBERS:
      raise ValueError(
        f'{folder} holds more than {MAX_MEMBERS} files; expected the folder of one '
        'scan. Name a deeper folder in the table or in options.image.'
      )
  return sorted(found)


def _shown(path: pathlib.Path, name: str, number: int, packed: bool) -> str:
  if not name:
    return str(path)
  if packed or UID.search(name):
    return f'{path}, file {number + 1} by name'
  return str(path / name)


def _size(path: pathlib.Path) -> int:
  return streams.require_file(path, REQUIRED, ADVICE).st_size


def _open_zip(path: pathlib.Path) -> zipfile.ZipFile:
  """Opens a zip. Raises ValueError when it is missing or no whole zip."""
  try:
    return zipfile.ZipFile(path)
  except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
    if isinstance(error, OSError):
      required = 'a zip of DICOM files'
      raise streams.unreadable(path, error, required, ADVICE) from error
    raise ValueError(
      f'{path} is not a whole zip ({type(error).__name__}); expected a zip of DICOM '
      'files. It is truncated or damaged: copy it again.'
    ) from error


def _checked(path: pathlib.Path, archive: zipfile.ZipFile) -> list[tuple[str, int]]:
  """(name, size) of a zip's files.

  Raises:
    ValueError: paths that lead out of it, links, overlaps, encryption, or sizes that no
      images have.
  """
  entries = [entry for entry in archive.infolist() if not entry.is_dir()]
  names = [entry.filename for entry in entries]
  leaving = [n for n in names if n[:1] in '/\\' or '..' in re.split(r'[/\\]', n)]
  unpacked = sum(entry.file_size for entry in entries)
  packed = sum(entry.compress_size for entry in entries)
  largest = max((entry.file_size for entry in entries), default=0)
  methods = {entry.compress_type for entry in entries}
  links = [e for e in entries if stat.S_ISLNK(e.external_attr >> 16)]
  faults = (
    (len(entries) > MAX_MEMBERS, f'{len(entries)} files, more than {MAX_MEMBERS}'),
    (leaving, f'{len(leaving)} paths that lead out of it'),
    (links, f'{len(links)} links'),
    (len(set(names)) < len(names), 'two files of one name'),
    (any(e.flag_bits & 1 for e in entries), 'encrypted files'),
    (
      methods - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED},
      'files packed by another method than deflate',
    ),
    (
      packed > path.stat().st_size,
      f'{packed} packed bytes in a file of {path.stat().st_size}: its files overlap',
    ),
    (
      largest > MAX_MEMBER_BYTES,
      f'a file of {largest} bytes, more than {MAX_MEMBER_BYTES}',
    ),
    (
      unpacked > MAX_ZIP_BYTES
      or unpacked > max(SMALL_ZIP_BYTES, MAX_ZIP_RATIO * packed),
      f'{unpacked} bytes packed into {packed}, which no images are',
    ),
  )
  for fault, what in faults:
    if fault:
      raise ValueError(
        f'{path} holds {what}; expected a plain zip of the DICOM files of one scan. '
        'Pack it again, or give a folder.'
      )
  return [
    (entry.filename, entry.file_size)
    for entry in entries
    if not os.path.basename(entry.filename).startswith('.')
    and not entry.filename.startswith('__MACOSX')
  ]
