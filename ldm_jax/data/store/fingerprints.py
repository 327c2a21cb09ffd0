"""Fingerprints of files that have not changed since they were last read.

Hashing every byte of a large cohort takes minutes; comparing size, time of change and
inode takes microseconds. As in git's index, a file that changed less than the clock's
resolution before it was hashed is hashed again the next time.
"""

from __future__ import annotations

import json
import os
import pathlib

from ldm_jax import atomic
from ldm_jax.data.cohorts.cohort import Source

# FAT, the coarsest file system in use, keeps times to 2 s.
RESOLUTION_SECONDS = 3.0


class Fingerprints:
  """Fingerprints of sources that name their `files`; other sources are never known."""

  def __init__(self, path: str | os.PathLike):
    self._path, self._changed = pathlib.Path(path), False
    try:
      self._known = json.loads(self._path.read_text())
    except (OSError, ValueError):
      self._known = {}

  def of(self, source: Source) -> str | None:
    """The source's fingerprint if its files are unchanged, else None."""
    known = self._known.get(repr(source))
    return known[1] if known and known[0] == _state(source) else None

  def remember(self, source: Source, fingerprint: str, before: float) -> None:
    """Keeps a fingerprint that was taken after the time `before` (s since 1970)."""
    state = _state(source)
    if state and max(file[1] for file in state) / 1e9 < before - RESOLUTION_SECONDS:
      self._known[repr(source)] = [state, fingerprint]
      self._changed = True

  def learn(self, other: Fingerprints) -> None:
    """Takes over what another one knows."""
    self._known |= other._known
    self._changed = True

  def save(self, path: str | os.PathLike | None = None) -> None:
    """Writes the file, or another one, if something was added. Raises OSError."""
    if self._changed:
      atomic.write_bytes(path or self._path, json.dumps(self._known).encode())


def _state(source: Source) -> list | None:
  """[[size, ns of writing, inode, ns of any change], ...] of the source's files."""
  files = getattr(source, 'files', None)
  if not files:
    return None
  try:
    stats = [os.stat(file) for file in files]
  except OSError:
    return None
  return [[s.st_size, s.st_mtime_ns, s.st_ino, s.st_ctime_ns] for s in stats]
