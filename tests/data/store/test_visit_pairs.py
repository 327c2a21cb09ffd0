"""Laws of longitudinal pairs: one patient, one phase, in the order of time."""

import types

import numpy as np
import pytest

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.store import visit_pairs

AGE = Schema((Attribute('AGE', low=0, high=99),))


def cohort_of(*scans):
  """Scans (patient, visit, years, phase) in any order."""
  records = [
    Record(f'{p}-{v}-{phase}', p, FileSource('x'), {}, v, phase, years)
    for p, v, years, phase in scans
  ]
  return Cohort('c', Schema(), tuple(records))


def names(pairs):
  return [(p.earlier.id, p.later.id, p.years) for p in pairs]


def test_pairs_join_scans_of_one_patient_and_phase_earlier_first():
  cohort = cohort_of(
    ('a', 'v2', 73.0, 'ED'), ('b', 'v1', 60.0, ''), ('a', 'v1', 70.5, 'ED'),
    ('a', 'v1', 70.5, 'ES'), ('b', 'v2', 61.0, ''),
  )  # fmt: skip
  assert names(visit_pairs.pairs(cohort)) == [
    ('a-v1-ED', 'a-v2-ED', 2.5),
    ('b-v1-', 'b-v2-', 1.0),
  ]


def test_three_visits_give_three_pairs_or_two_adjacent_ones_within_limits():
  cohort = cohort_of(*(('a', f'v{n}', 70.0 + n, '') for n in (2, 0, 1)))
  assert [p.years for p in visit_pairs.pairs(cohort)] == [1, 2, 1]
  assert [p.years for p in visit_pairs.pairs(cohort, adjacent=True)] == [1, 1]
  assert [p.years for p in visit_pairs.pairs(cohort, min_years=1.5)] == [2]
  assert [p.years for p in visit_pairs.pairs(cohort, max_years=1.5)] == [1, 1]


def test_scans_of_one_time_or_of_no_known_time_make_no_pair():
  cohort = cohort_of(
    ('a', 'v1', 70.0, ''), ('a', 'run2', 70.0, ''), ('a', 'v2', 71, '')
  )
  assert [p.years for p in visit_pairs.pairs(cohort, adjacent=True)] == [1, 1]
  cohort = cohort_of(('a', 'v1', 70.0, ''), ('a', 'v2', None, ''))
  assert visit_pairs.pairs(cohort) == []


def test_without_a_time_of_its_own_a_scan_is_as_old_as_its_age_says():
  records = [Record(f'a{v}', 'a', FileSource('x'), {'AGE': v}, f'v{v}') for v in (9, 7)]
  assert names(visit_pairs.pairs(Cohort('c', AGE, tuple(records)))) == [
    ('a7', 'a9', 2.0)
  ]


def test_visits_without_any_time_are_an_error_and_single_visits_none():
  with pytest.raises(ValueError, match=r"2 patients.*attribute named 'age'"):
    visit_pairs.pairs(cohort_of(*((p, v, None, '') for p in 'ab' for v in 'xy')))
  assert visit_pairs.pairs(cohort_of(('a', '', None, ''), ('b', '', None, ''))) == []


def prepared(*rows):
  """A split of entries (patient, years, visit, phase)."""
  patients, years, visits, phases = zip(*rows, strict=True)
  names = list(dict.fromkeys(patients))
  entries = [np.flatnonzero(np.array(patients) == name) for name in names]
  return types.SimpleNamespace(
    years=years, visits=visits, phases=phases, patient_entries=entries
  )


def test_a_prepared_cohort_has_the_same_pairs_as_entries():
  split = prepared(
    ('a', 72.0, 'v2', ''), ('b', 60.0, 'v1', 'ED'), ('a', 70.0, 'v1', ''),
    ('b', 61.5, 'v2', 'ED'), ('b', 61.5, 'v2', 'ES'), ('c', None, 'v1', ''),
  )  # fmt: skip
  found = visit_pairs.entry_pairs(split)
  assert found.earlier.tolist() == [2, 1] and found.later.tolist() == [0, 3]
  assert found.years.tolist() == [2.0, 1.5]
  assert visit_pairs.entry_pairs(split, min_years=1.8).years.tolist() == [2.0]
  assert visit_pairs.entry_pairs(split, max_years=1.8).years.tolist() == [1.5]
  assert not len(visit_pairs.entry_pairs(split, min_years=9).years)
