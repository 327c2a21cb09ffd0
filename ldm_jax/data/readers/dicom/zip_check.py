"""Zips that strangers packed: refused from their directory, before they are unpacked.

Members are streamed and never extracted. A directory that lies about a member's size
cannot make it larger: no more is unpacked than was announced here.
"""

from __future__ import annotations

import os
import pathlib
import re
import stat
import zipfile

MAX_MEMBERS = 100_000
MAX_MEMBER_BYTES = 2**29  # a member is unpacked in memory, whole
MAX_ZIP_BYTES = 2**35
MAX_ZIP_RATIO = 100  # of all members together; cine images reach about 4
SMALL_ZIP_BYTES = 2**26  # an empty phantom of this size may be packed tighter


def open_zip(path: pathlib.Path) -> zipfile.ZipFile:
  """Opens a zip. Raises ValueError when it is missing or no whole zip."""
  try:
    return zipfile.ZipFile(path)
  except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
    if isinstance(error, OSError):
      raise ValueError(
        f'{path} cannot be read ({error.strerror}); required is a zip of DICOM files. '
        'Correct the path in the table or the pattern in options.image.'
      ) from error
    raise ValueError(
      f'{path} is no whole zip ({type(error).__name__}); required is a zip of DICOM '
      'files. It is truncated or damaged: copy it again.'
    ) from error


def checked(path: pathlib.Path, archive: zipfile.ZipFile) -> list[tuple[str, int]]:
  """(name, size) of a zip's files, once its directory is found honest.

  Raises:
    ValueError: names that leave it, links, overlaps, encryption, or sizes that no
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
        f'{path} holds {what}; required is a plain zip of the DICOM files of one scan. '
        'Pack it again, or give a folder.'
      )
  return [
    (entry.filename, entry.file_size)
    for entry in entries
    if not os.path.basename(entry.filename).startswith('.')
    and not entry.filename.startswith('__MACOSX')
  ]
