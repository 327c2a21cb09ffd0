"""Laws of the chest phantom as a cohort of radiographs."""

import numpy as np
import pytest

from ldm_jax.data.phantom.chest import cohort
from tests.data.phantom.renderings import (
  DETECTOR,
  HEART,
  chest,
)


def test_a_null_change_is_no_change():
  made = cohort.cohort('c', 1, shape=DETECTOR.shape)
  (record,) = made.records
  scan, labels = record.source.read()
  again, _ = record.source.counterfactual({}).read()
  np.testing.assert_array_equal(scan.array, again.array)
  assert scan.array.shape == labels.array.shape == (1, 64, 64)
  # Rows run downwards, columns to the patient's left, as a film is looked at.
  np.testing.assert_allclose(np.sign(scan.affine[[1, 2, 0], [0, 1, 2]]), (1, -1, -1))
  other = record.source.counterfactual({'cardiothoracic_ratio': 0.66})
  assert other.fingerprint() != record.source.fingerprint()


def test_fractions_are_shares_and_the_heart_lies_to_the_patients_left():
  found = chest(0)
  assert found.fractions.min() >= -1e-6
  np.testing.assert_allclose(found.fractions.sum(0), 1, atol=1e-5)
  assert np.argwhere(found.labels == HEART)[:, 2].mean() > 32
  assert np.isfinite(found.image).all() and found.image.max() < 1.6


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'cardiothoracic_ratio': 0.9}, '0.3 to 0.75'),
    ({'consolidation': 'maybe'}, 'no'),
    ({'age': 'old'}, '18 to 95'),
    ({'weight': 3}, 'weight'),
  ],
)
def test_impossible_attributes_are_refused(changes, words):
  with pytest.raises(ValueError, match=words):
    chest(0, **changes)


def test_impossible_options_are_refused():
  with pytest.raises(ValueError, match='rows, columns'):
    cohort.Detector((2, 64, 64))
  with pytest.raises(ValueError, match='at least 1'):
    cohort.cohort('c', 0)
