"""A scan that cannot be used but stays in its cohort, so that it is reported.

Where one patient's table row or header file is broken, a layout must not raise, because
the others are fine, and must not skip it silently. It returns a record with this
source: `prepare` counts it as unreadable (data.max_bad_fraction), and doctor lists it.
"""

from __future__ import annotations

import dataclasses
from typing import NoReturn

from ldm_jax.data.cohorts.cohort import Record


@dataclasses.dataclass(frozen=True)
class FaultySource:
  """Takes the place of a scan's source and says what is wrong.

  Attributes:
    image: the file or folder that is at fault.
    reason: what was found, what is expected, what to change.
  """

  image: str
  reason: str

  @property
  def files(self) -> tuple[str, ...]:
    """The file or folder at fault, so that a run notices when it is repaired."""
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
