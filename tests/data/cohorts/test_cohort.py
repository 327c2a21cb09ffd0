"""Laws of cohorts: the patient is the unit, splits do not depend on the row order."""

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record, check_disjoint

FRACTIONS = {'public': 0.4, 'private': 0.4, 'test': 0.2}
# Parts of p0 ... p9 with these fractions and seed 0.
PARTS = {
  'public': ['p5', 'p7', 'p8'],
  'private': ['p1', 'p2', 'p3', 'p9'],
  'test': ['p0', 'p4', 'p6'],
}


def cohort_of(num_patients, per_patient=2):
  records = [
    Record(f'p{p}_{r}', f'p{p}', FileSource(f'{p}_{r}.nii'), phase=str(r))
    for p in range(num_patients)
    for r in range(per_patient)
  ]
  return Cohort('all', Schema(), tuple(records))


def test_length_counts_patients_not_records():
  cohort = cohort_of(3)
  assert len(cohort) == 3 and len(cohort.records) == 6
  assert [r.id for r in cohort.patients['p1']] == ['p1_0', 'p1_1']


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 5))
def test_a_split_is_a_partition_of_patients(num_patients, seed):
  cohort = cohort_of(num_patients)
  parts = cohort.split(FRACTIONS, seed)
  check_disjoint(parts)
  assert sorted(r.id for part in parts.values() for r in part.records) == sorted(
    r.id for r in cohort.records
  )
  assert all(
    len(records) == 2 for p in parts.values() for records in p.patients.values()
  )
  for name, part in parts.items():
    assert part.name == name


def test_the_parts_of_many_patients_have_about_their_shares():
  parts = cohort_of(2000, 1).split(FRACTIONS, 0)
  for name, part in parts.items():
    spread = (FRACTIONS[name] * (1 - FRACTIONS[name]) / 2000) ** 0.5
    assert abs(len(part) / 2000 - FRACTIONS[name]) < 4 * spread


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 40), st.randoms(use_true_random=False))
def test_a_split_does_not_depend_on_the_row_order(num_patients, rng):
  cohort = cohort_of(num_patients)
  rows = list(cohort.records)
  rng.shuffle(rows)
  shuffled = dataclasses.replace(cohort, records=tuple(rows))
  assert cohort.split(FRACTIONS, 1) == shuffled.split(FRACTIONS, 1)


def test_another_seed_gives_another_split():
  splits = [cohort_of(30).split(FRACTIONS, seed)['test'] for seed in (0, 1)]
  assert set(splits[0].patients) != set(splits[1].patients)


def test_removing_a_patient_changes_the_part_of_nobody_else():
  for num_patients, seed in ((2, 0), (7, 1), (36, 2)):
    cohort = cohort_of(num_patients)
    before = cohort.split(FRACTIONS, seed)
    for removed in cohort.patients:
      kept = tuple(r for r in cohort.records if r.patient != removed)
      after = dataclasses.replace(cohort, records=kept).split(FRACTIONS, seed)
      for name, part in before.items():
        assert set(after[name].patients) == set(part.patients) - {removed}


def test_the_part_of_a_patient_is_fixed_across_versions():
  """Another split of the same cohort would train in the open on private patients."""
  parts = cohort_of(10).split(FRACTIONS, 0)
  assert {name: [*part.patients] for name, part in parts.items()} == PARTS
  backwards = cohort_of(10).split(dict(reversed(FRACTIONS.items())), 0)
  assert parts == backwards, 'the order in which the shares are written counts'


def test_a_share_of_zero_stays_empty():
  parts = cohort_of(5).split({'a': 1.0, 'b': 0.0}, 0)
  assert len(parts['a']) == 5 and len(parts['b']) == 0


@pytest.mark.parametrize('fractions', [{}, {'a': 0.5}, {'a': 1.5, 'b': -0.5}])
def test_impossible_shares_are_an_error(fractions):
  with pytest.raises(ValueError, match='sum to 1'):
    cohort_of(5).split(fractions, 0)


def test_a_repeated_record_is_an_error_that_names_it():
  records = cohort_of(2).records
  with pytest.raises(ValueError, match=r'p1_1.*twice'):
    Cohort('all', Schema(), (*records, records[-1]))


@pytest.mark.parametrize('name', ['', 'a/b'])
def test_a_record_id_must_be_a_file_name(name):
  with pytest.raises(ValueError, match='id'):
    Cohort('all', Schema(), (Record(name, 'p', FileSource('x')),))


def test_a_patient_in_two_cohorts_is_an_error_that_names_both():
  with pytest.raises(ValueError, match=r"p0.*'public'.*'measuring'"):
    check_disjoint({'public': cohort_of(1), 'measuring': cohort_of(2)})


def test_ids_that_differ_by_leading_zeros_alone_are_one_patient_s_in_two_cohorts():
  def of(*patients):
    records = tuple(Record(p, p, FileSource('x')) for p in patients)
    return Cohort('any', Schema(), records)

  for one, other in (('7', '007'), ('7.0', '07'), ('P-7', 'P-07')):
    with pytest.raises(ValueError, match=f'{re.escape(f"{one} ({other})")}.*both'):
      check_disjoint({'public': of(one, '12'), 'measuring': of(other, '13')})
    with pytest.raises(ValueError, match=r'put a prefix.*private-007') as raised:
      check_disjoint({'public': of(one), 'private': of(other)})
    assert raised.value.details['private']
  prefixed = of('private-007', 'private-P-07')  # what the message tells to do
  check_disjoint({'public': of('7', 'P-7'), 'private': prefixed})
  check_disjoint({'public': of('7', 'P70', '1'), 'private': of('70', 'P-7', '10')})


def test_of_a_private_patient_in_two_cohorts_the_message_holds_no_name():
  with pytest.raises(ValueError, match=r"'public'.*'private'") as raised:
    check_disjoint({'public': cohort_of(1), 'private': cohort_of(2)})
  assert 'p0' not in str(raised.value)
  assert raised.value.details == {'private': ('patient p0 is in public and private',)}


def test_the_fingerprint_follows_the_bytes_and_the_way_of_reading(tmp_path, save_nifti):
  one = str(save_nifti(tmp_path / 'a.nii', seed=0))
  same = str(save_nifti(tmp_path / 'b.nii', seed=0))
  other = str(save_nifti(tmp_path / 'c.nii', seed=1))
  prints = [FileSource(path).fingerprint() for path in (one, same, other)]
  assert prints[0] == prints[1] != prints[2]
  variants = [FileSource(one, other), FileSource(one, stack=True), FileSource(one)]
  assert len({source.fingerprint() for source in variants}) == 3


def test_a_missing_file_has_no_fingerprint(tmp_path):
  with pytest.raises(ValueError, match='cannot be read'):
    FileSource(str(tmp_path / 'none.nii')).fingerprint()
