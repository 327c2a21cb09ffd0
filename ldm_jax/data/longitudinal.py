"""Longitudinal pairs: scans of one patient at two times, whatever layout they are from.

A scan's time is on an axis of the patient's own: the age, or years since some first
day. Only differences of one patient's times are ever taken.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from ldm_jax.data.cohort import Cohort, Record


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two scans of one patient, `years` apart, the earlier one first."""

  earlier: Record
  later: Record
  years: float


def pairs(
  cohort: Cohort,
  min_years: float = 0.0,
  max_years: float = math.inf,
  adjacent: bool = False,
) -> list[Pair]:
  """All pairs, patient by patient, in order of time.

  A scan is paired with those of its own phase only. Scans whose time is unknown, or
  that were taken at the same time (two runs of one session), make no pair.

  Args:
    cohort: of patients.
    min_years: smallest gap.
    max_years: largest gap.
    adjacent: only from one time to the next, instead of to every later one.

  Raises:
    ValueError: patients were scanned more than once, but no scan says when; or an age
      that is no number.
  """
  grouped = cohort.patients.values()
  repeated = [r for r in grouped if len({scan.visit for scan in r}) > 1]
  if repeated and all(scan.time is None for r in repeated for scan in r):
    raise ValueError(
      f'{len(repeated)} patients of cohort {cohort.name!r} have several visits, but no '
      'scan says when it was taken; required is the age at each visit. Add a column '
      "with it to the table and an attribute named 'age' to data.schema."
    )
  found = []
  for records in grouped:
    phases = {}
    for record in sorted(
      (r for r in records if r.time is not None), key=lambda r: (r.time, r.visit)
    ):
      phases.setdefault(record.phase, []).append(record)
    for scans in phases.values():
      for earlier, later in itertools.combinations(scans, 2):
        years = later.time - earlier.time
        between = any(earlier.time < s.time < later.time for s in scans)
        wanted = years > 0 and min_years <= years <= max_years
        if wanted and not (adjacent and between):
          found.append(Pair(earlier, later, years))
  return found
