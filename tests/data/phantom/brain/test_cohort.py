"""Laws of the brain phantom as a cohort of scans."""

import numpy as np
import pytest

from ldm_jax.data.phantom.brain import cohort
from tests.data.phantom.renderings import (
  CSF,
  GREY,
  HINDBRAIN,
  VENTRICLES,
  VIEW,
  WHITE,
  brain,
)


def test_what_age_and_disease_do_not_drive_stays_bit_for_bit():
  young = brain(0, age=30.0, diagnosis='CN')
  old = brain(0, age=88.0, diagnosis='AD')
  for label in (0, HINDBRAIN):
    alone = (young.fractions[label] == 1) & (old.fractions[label] == 1)
    assert alone.sum() > 100
    np.testing.assert_array_equal(young.image[alone], old.image[alone])
  assert np.abs(young.image - old.image).max() > 0.2
  skull = young.fractions[0] == old.fractions[0]
  assert skull.mean() > 0.999  # the inside of the skull is the same


def test_a_later_visit_is_the_true_older_brain_of_the_same_subject():
  options = {'shape': VIEW.shape, 'spacing_mm': VIEW.spacing_mm, 'num_visits': 2}
  made = cohort.cohort('c', 3, seed=4, interval_years=6.0, **options)
  assert len(made) == 3 and len(made.records) == 6
  for first, second in zip(made.records[::2], made.records[1::2], strict=True):
    assert first.patient == second.patient and first.visit != second.visit
    grown = second.attributes['age'] - first.attributes['age']
    assert grown == pytest.approx(6)
    ventricles = [r.attributes['ventricles_ml'] for r in (first, second)]
    assert ventricles[1] > ventricles[0]
  first, second = made.records[:2]
  changes = {name: second.attributes[name] for name in ('age', 'diagnosis')}
  truth = first.source.counterfactual(changes)
  np.testing.assert_array_equal(truth.read()[1].array, second.source.read()[1].array)
  assert truth.fingerprint() != first.source.fingerprint()


def test_fractions_are_disjoint_shares_and_labels_the_largest_one():
  found = brain(1)
  assert found.fractions.min() >= -1e-6
  np.testing.assert_allclose(found.fractions.sum(0), 1, atol=1e-4)
  np.testing.assert_array_equal(found.labels, found.fractions.argmax(0))
  assert {CSF, GREY, WHITE, VENTRICLES, HINDBRAIN} <= set(np.unique(found.labels))


def test_impossible_options_are_refused():
  for options in ({'num_patients': 0}, {'num_patients': 1, 'num_visits': 0}):
    with pytest.raises(ValueError, match='at least 1'):
      cohort.cohort('c', **options)
  with pytest.raises(ValueError, match='interval_years'):
    cohort.cohort('c', 1, interval_years=0)
