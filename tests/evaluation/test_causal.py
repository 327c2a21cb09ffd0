"""Laws of the figures that judge counterfactuals."""

import numpy as np
import pytest

from ldm_jax.evaluation import causal

RNG = np.random.default_rng(0)
VOLUMES = RNG.random((8, 3, 4, 4, 1)).astype(np.float32)


def test_an_exact_return_has_composition_and_reversibility_zero():
  for law in (causal.composition, causal.reversibility):
    figure = law(VOLUMES, VOLUMES)
    assert figure == {'value': 0.0, 'low': 0.0, 'high': 0.0, 'n': 8}


def test_a_known_offset_is_the_composition_distance():
  figure = causal.composition(VOLUMES, VOLUMES + 0.25)
  assert figure['value'] == pytest.approx(0.25, abs=1e-6)


def test_the_interval_covers_the_true_mean_about_95_times_in_100():
  hits = 0
  for seed in range(200):
    noise = np.random.default_rng(seed).exponential(1.0, (40, 1))
    figure = causal.composition(np.zeros((40, 1)), noise, num_resamples=300)
    hits += figure['low'] <= 1 <= figure['high']
  assert 0.87 <= hits / 200 <= 0.99


def test_duplicating_the_volumes_of_a_patient_changes_no_interval():
  changed = VOLUMES + RNG.normal(0, 0.1, (8, 1, 1, 1, 1))
  once = causal.composition(VOLUMES, changed)
  groups = np.repeat(np.arange(8), 3)
  thrice = causal.composition(VOLUMES[groups], changed[groups], groups)
  assert thrice == pytest.approx(once)
  alone = causal.composition(VOLUMES[groups], changed[groups])
  assert alone['high'] - alone['low'] < once['high'] - once['low']


def test_a_perfect_intervention_has_gain_one_error_zero_and_the_right_direction():
  change = np.array([10.0, -5, 20, -20])
  figures = causal.effectiveness(change, change)
  assert figures['error']['value'] == 0
  assert figures['gain']['value'] == pytest.approx(1)
  assert figures['direction']['value'] == 1
  assert figures['direction']['low'] < 1


def test_half_an_effect_is_gain_one_half_and_no_effect_is_gain_zero():
  change = np.array([10.0, -5, 20, -20])
  assert causal.effectiveness(change, change / 2)['gain']['value'] == pytest.approx(0.5)
  none = causal.effectiveness(change, np.zeros(4))
  assert none['gain']['value'] == 0 and none['direction']['value'] == 0


def test_the_correlation_is_that_of_the_patients_means():
  asked = np.array([1.0, 1, 2, 2, 3, 3, 4, 4])
  measured = 5 * asked + np.tile([1.0, -1], 4)
  figure = causal.effectiveness(asked, measured, list('aabbccdd'))['pearson_r']
  assert figure['value'] == pytest.approx(1) and figure['n'] == 4
  assert causal.effectiveness(asked, -measured)['pearson_r']['value'] < -0.9
  assert causal.effectiveness(asked, np.ones(8))['pearson_r']['value'] is None


def test_the_psnr_of_a_return_is_in_decibels_and_ends_at_100():
  figure = causal.composition_psnr(VOLUMES, VOLUMES + 0.01)
  assert figure['value'] == pytest.approx(40, abs=0.01)
  assert causal.composition_psnr(VOLUMES, VOLUMES)['value'] == 100


def test_missing_measurements_are_left_out():
  figures = causal.effectiveness([1.0, 2, np.nan], [1.0, np.nan, 3], list('aab'))
  assert figures['error'] == {'value': 0.0, 'low': None, 'high': None, 'n': 1}
  nothing = causal.effectiveness([], [])
  assert nothing['gain']['value'] is nothing['direction']['value'] is None


def test_volumes_that_do_not_pair_up_are_refused():
  with pytest.raises(ValueError, match='same order'):
    causal.composition(VOLUMES, VOLUMES[:3])
  with pytest.raises(ValueError, match='one length'):
    causal.effectiveness([1.0], [1.0, 2.0])
