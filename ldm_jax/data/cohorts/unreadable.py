"""A scan that cannot be used, kept in its cohort so that nobody loses it in silence.

A layout that finds one patient's table row or header file broken cannot raise, because
the others are fine, and must not skip, because then nobody would know. It returns a
record with this source: `prepare` counts it among the unreadable scans, under
data.max_bad_fraction, and doctor lists it.
"""

from __future__ import annotations

import dataclasses
from typing import NoReturn

from ldm_jax.data.cohorts.cohort import Record


@dataclasses.dataclass(frozen=True)
class FaultySource:
  """Stands in the place of a scan and says what is wrong with it.

  Attributes:
    image: the file or folder that is at fault.
    reason: what came, what is required, what to change.
  """

  image: str
  reason: str

  @property
  def files(self) -> tuple[str, ...]:
    """The file or folder at fault, so that a run notices when it is mended."""
    return (self.image,)

  def read(self) -> NoReturn:
    """Raises ValueError with the reason."""
    raise ValueError(self.reason)

  def fingerprint(self) -> NoReturn:
    """Raises ValueError with the reason."""
    raise ValueError(self.reason)


def record(patient: str, path: object, error: ValueError, part: str = '') -> Record:
  """The record of a patient whose table row or files are at fault."""
  return Record(patient, patient, FaultySource(str(path), str(error)), part=part)
