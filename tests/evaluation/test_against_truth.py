"""Laws of the figures against the truth, on editors whose result is known."""

import numpy as np
import pytest

from ldm_jax.evaluation import against_truth

RNG = np.random.default_rng(0)
SOURCE = RNG.random((12, 2, 6, 6, 1)) * 0.5
CHANGE = np.zeros_like(SOURCE)
CHANGE[:, :, 2:4, 2:4] = RNG.uniform(0.1, 0.4, (12, 2, 2, 2, 1))
TRUTH = SOURCE + CHANGE


def test_the_oracle_has_no_error_and_changes_nothing_outside():
  found = against_truth.error_to_truth(SOURCE, TRUTH, TRUTH)
  assert found['error']['value'] == found['error_within']['value'] == 0
  assert found['reduction'] == {'value': 1.0, 'low': 1.0, 'high': 1.0, 'n': 12}
  outside = against_truth.change_outside(SOURCE, TRUTH, TRUTH)
  assert outside['change']['value'] == outside['share']['value'] == 0


def test_the_editor_that_does_nothing_reduces_nothing():
  found = against_truth.error_to_truth(SOURCE, SOURCE, TRUTH)
  assert found['reduction']['value'] == found['reduction']['high'] == 0
  assert found['error'] == found['unchanged']
  outside = against_truth.change_outside(SOURCE, SOURCE, TRUTH)
  assert outside['change']['value'] == 0 and outside['share']['value'] is None


def test_half_the_change_halves_the_error():
  found = against_truth.error_to_truth(SOURCE, SOURCE + CHANGE / 2, TRUTH)
  assert found['reduction']['value'] == pytest.approx(0.5)
  assert found['error_within']['value'] == pytest.approx(CHANGE[CHANGE > 0].mean() / 2)


def test_a_baseline_is_the_zero_of_its_own_reduction():
  half = SOURCE + CHANGE / 2
  baselines = {'still': SOURCE, 'same': half, 'worse': SOURCE - CHANGE}
  found = against_truth.error_to_truth(SOURCE, half, TRUTH, baselines=baselines)
  assert found['still'] == found['unchanged']
  assert found['reduction_to_still'] == found['reduction']
  assert found['reduction_to_same']['value'] == 0
  assert found['reduction_to_worse']['value'] == pytest.approx(0.75)


def test_noise_everywhere_is_worse_than_nothing_and_lies_outside():
  noise = RNG.normal(0, 0.3, SOURCE.shape)
  found = against_truth.error_to_truth(SOURCE, SOURCE + noise, TRUTH)
  assert found['reduction']['high'] < 0
  outside = against_truth.change_outside(SOURCE, SOURCE + noise, TRUTH)
  assert outside['share']['value'] == pytest.approx(1 - 4 / 36, abs=0.05)
  still = np.abs(noise[CHANGE == 0]).mean()
  assert outside['change']['value'] == pytest.approx(still)


def test_a_change_of_the_right_size_in_the_wrong_place_lies_outside():
  wrong = SOURCE + np.roll(CHANGE, 2, axis=2)
  assert against_truth.change_outside(SOURCE, wrong, TRUTH)['share']['value'] == 1
  assert against_truth.error_to_truth(SOURCE, wrong, TRUTH)['reduction']['value'] == (
    pytest.approx(-1)
  )


def test_where_the_truth_changes_nothing_there_is_no_reduction():
  found = against_truth.error_to_truth(SOURCE, SOURCE, SOURCE)
  assert found['reduction']['value'] is None
  assert found['error_within'] == {'value': None, 'low': None, 'high': None, 'n': 0}


def test_patients_not_scans_are_resampled():
  edited = SOURCE + CHANGE * RNG.random((12, 1, 1, 1, 1))
  twice = [np.repeat(x, 2, 0) for x in (SOURCE, edited, TRUTH)]
  groups = np.repeat(np.arange(12), 2)
  once = against_truth.error_to_truth(SOURCE, edited, TRUTH)
  assert against_truth.error_to_truth(*twice, groups)['reduction'] == pytest.approx(
    once['reduction']
  )
  wide, narrow = once['reduction'], against_truth.error_to_truth(*twice)['reduction']
  assert narrow['high'] - narrow['low'] < wide['high'] - wide['low']


def test_the_interval_of_the_reduction_covers_the_true_one():
  hits = 0
  for seed in range(100):
    rng = np.random.default_rng(seed)
    source, aim = np.zeros((30, 8)), np.ones((30, 8))
    edited = np.repeat(rng.uniform(0, 1, (30, 1)), 8, 1)
    found = against_truth.error_to_truth(
      source, edited, aim, num_resamples=200, seed=seed
    )
    hits += found['reduction']['low'] <= 0.5 <= found['reduction']['high']
  assert 88 <= hits <= 99


def test_volumes_that_do_not_belong_together_are_refused():
  with pytest.raises(ValueError, match='one shape'):
    against_truth.error_to_truth(SOURCE, SOURCE[:3], TRUTH)
