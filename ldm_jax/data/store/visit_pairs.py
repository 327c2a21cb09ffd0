"""Longitudinal pairs: scans of one patient at two times, whatever layout they are from.

A scan's time is on an axis of the patient's own: the age, or years since some first
day. Only differences of one patient's times are ever taken.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
  from ldm_jax.data.cohorts.cohort import Cohort, Record
  from ldm_jax.data.store.split import Split


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
  return [
    Pair(*found)
    for records in grouped
    for found in _of_patient(records, min_years, max_years, adjacent)
  ]


class EntryPairs(NamedTuple):
  """Pairs of a prepared cohort: entries (p,) int, earlier and later, years (p,)."""

  earlier: np.ndarray
  later: np.ndarray
  years: np.ndarray


class _Entry(NamedTuple):
  index: int
  time: float | None
  visit: str
  phase: str


def entry_pairs(
  split: Split,
  min_years: float = 0.0,
  max_years: float | None = None,
  adjacent: bool = False,
) -> EntryPairs:
  """As `pairs`, of a prepared cohort: which entry goes with which.

  Args:
    split: prepared; patients with visits but without times give no pair.
    min_years, max_years, adjacent: as there, None for no largest gap.
  """
  columns = split.years, split.visits, split.phases
  scans = [_Entry(i, *row) for i, row in enumerate(zip(*columns, strict=True))]
  largest = math.inf if max_years is None else max_years
  found = [
    (earlier.index, later.index, years)
    for entries in split.patient_entries
    for earlier, later, years in _of_patient(
      [scans[index] for index in entries], min_years, largest, adjacent
    )
  ]
  table = np.asarray(found, np.float64).reshape(-1, 3)
  return EntryPairs(*table[:, :2].T.astype(int), table[:, 2])


def _of_patient(scans, min_years, max_years, adjacent):
  phases, found = {}, []
  for scan in sorted(
    (s for s in scans if s.time is not None), key=lambda s: (s.time, s.visit)
  ):
    phases.setdefault(scan.phase, []).append(scan)
  for own in phases.values():
    for earlier, later in itertools.combinations(own, 2):
      years = later.time - earlier.time
      between = any(earlier.time < s.time < later.time for s in own)
      wanted = years > 0 and min_years <= years <= max_years
      if wanted and not (adjacent and between):
        found.append((earlier, later, years))
  return found
