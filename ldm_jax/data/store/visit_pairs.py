"""Longitudinal pairs: two scans of one patient and phase, at two times.

A scan's time is on an axis of the patient's own: the age, or years since some first
day. Only differences of one patient's times are ever taken.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from ldm_jax.data.store.split import Split


class EntryPairs(NamedTuple):
  """Entries (p,) int of the earlier and the later scans, and years (p,) between."""

  earlier: np.ndarray
  later: np.ndarray
  years: np.ndarray


def entry_pairs(
  split: Split,
  min_years: float = 0.0,
  max_years: float | None = None,
  adjacent: bool = False,
) -> EntryPairs:
  """All pairs of a prepared cohort, patient by patient, in order of time.

  Scans whose time is unknown, or that were taken at the same time (two runs of one
  session), make no pair.

  Args:
    split: the prepared cohort.
    min_years: smallest gap.
    max_years: largest gap, None for no limit.
    adjacent: pair each time with the next one only, instead of every later one.
  """
  largest = math.inf if max_years is None else max_years
  found = []
  for entries in split.patient_entries:
    timed = [index for index in entries if split.years[index] is not None]
    timed.sort(key=lambda index: (split.years[index], split.visits[index]))
    for phase in dict.fromkeys(split.phases[index] for index in timed):
      own = [index for index in timed if split.phases[index] == phase]
      times = [split.years[index] for index in own]
      for earlier, later in itertools.combinations(own, 2):
        first, last = split.years[earlier], split.years[later]
        if not (last > first and min_years <= last - first <= largest):
          continue
        if not (adjacent and any(first < time < last for time in times)):
          found.append((earlier, later, last - first))
  table = np.asarray(found, np.float64).reshape(-1, 3)
  return EntryPairs(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2])
