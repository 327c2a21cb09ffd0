"""Laws of longitudinal pairs: one patient, one phase, in the order of time."""

import types

import numpy as np

from ldm_jax.data.store.visit_pairs import entry_pairs


def split_of(*entries):
  """A split of entries (patient, years, visit, phase)."""
  patients, years, visits, phases = zip(*entries, strict=True)
  found = [np.flatnonzero(np.array(patients) == p) for p in dict.fromkeys(patients)]
  return types.SimpleNamespace(
    years=years, visits=visits, phases=phases, patient_entries=found
  )


THREE_VISITS = split_of(*(('a', 70.0 + n, f'v{n}', '') for n in (2, 0, 1)))


def test_pairs_join_scans_of_one_patient_and_phase_earlier_first():
  found = entry_pairs(
    split_of(
      ('a', 72.0, 'v2', ''),
      ('b', 60.0, 'v1', 'ED'),
      ('a', 70.0, 'v1', ''),
      ('b', 61.5, 'v2', 'ED'),
      ('b', 61.5, 'v2', 'ES'),
      ('c', None, 'v1', ''),
    )
  )
  assert found.earlier.tolist() == [2, 1] and found.later.tolist() == [0, 3]
  assert found.years.tolist() == [2.0, 1.5]


def test_three_visits_give_three_pairs_or_two_adjacent_ones():
  assert entry_pairs(THREE_VISITS).years.tolist() == [1, 2, 1]
  assert entry_pairs(THREE_VISITS, adjacent=True).years.tolist() == [1, 1]


def test_limits_choose_pairs_by_their_gap():
  assert entry_pairs(THREE_VISITS, min_years=1.5).years.tolist() == [2]
  assert entry_pairs(THREE_VISITS, max_years=1.5).years.tolist() == [1, 1]
  assert not len(entry_pairs(THREE_VISITS, min_years=9).years)


def test_two_runs_of_one_time_make_no_pair_and_both_pair_with_the_next_visit():
  split = split_of(('a', 70.0, 'v1', ''), ('a', 70.0, 'run2', ''), ('a', 71, 'v2', ''))
  found = entry_pairs(split, adjacent=True)
  assert sorted(zip(found.earlier, found.later, strict=True)) == [(0, 2), (1, 2)]


def test_a_scan_of_unknown_time_makes_no_pair():
  found = entry_pairs(split_of(('a', 70.0, 'v1', ''), ('a', None, 'v2', '')))
  assert found.earlier.shape == found.years.shape == (0,)
