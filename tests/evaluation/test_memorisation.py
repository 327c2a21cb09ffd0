"""Laws of the search for copied training patients."""

import numpy as np
import pytest

from ldm_jax.evaluation import memorisation


def sets(seed=0, num_features=6):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=(n, num_features)) for n in (120, 60, 80)]


def test_a_copy_of_the_training_set_is_flagged():
  train, held_out, _ = sets()
  result = memorisation.memorisation(train, held_out, train[:40])
  assert result['fraction'] == 1
  assert result['auc'] > 0.6
  copies = memorisation.memorisation(train, held_out, train)
  assert copies['auc'] == 1
  assert 0.9 < copies['auc_low'] < 1
  assert copies['flagged'][0] == {
    'synthetic': 0,
    'train': 0,
    'distance': 0.0,
    'ratio': 0.0,
  }


def test_fresh_samples_of_the_population_are_not_flagged():
  aucs = [memorisation.memorisation(*sets(seed))['auc'] for seed in range(20)]
  assert np.mean(aucs) == pytest.approx(0.5, abs=0.04)
  result = memorisation.memorisation(*sets(1))
  assert result['fraction_low'] <= 0.05 <= result['fraction_high'] + 0.05
  assert result['auc_low'] < 0.5 < result['auc_high']


def test_a_single_copy_is_found_with_its_original():
  train, held_out, synthetic = sets(2)
  synthetic[7] = train[31] + 1e-6
  first = memorisation.memorisation(train, held_out, synthetic)['flagged'][0]
  assert (first['synthetic'], first['train']) == (7, 31)


def test_held_out_copies_do_not_count_as_memorised():
  train, held_out, _ = sets(3)
  result = memorisation.memorisation(train, held_out, held_out)
  assert result['auc'] == 0
  assert result['fraction'] <= 0.06


def test_a_patient_counts_once():
  train, held_out, synthetic = sets(4)
  result = memorisation.memorisation(
    train, held_out, synthetic, np.arange(120) // 2, np.arange(60) // 2
  )
  assert result['num_patients_train'] == 60
  assert result['n_train'] == 120


def test_nearest_keeps_the_digits_of_tiny_distances():
  x = np.full((3, 4), 1e4) + np.arange(3)[:, None]
  distances, indices = memorisation.nearest(x + 1e-7, x, chunk=2)
  assert indices.tolist() == [0, 1, 2]
  np.testing.assert_allclose(distances, 2e-7, rtol=1e-3)


def test_area_under_curve_counts_ties_by_half():
  assert memorisation.area_under_curve([1, 2], [1, 2]) == 0.5
  assert memorisation.area_under_curve([3, 4], [1, 2]) == 1


def test_unusable_rows_are_refused_by_name():
  with pytest.raises(ValueError, match='held_out'):
    memorisation.memorisation(np.ones((3, 2)), np.ones((0, 2)), np.ones((3, 2)))
  with pytest.raises(ValueError, match='one width'):
    memorisation.memorisation(np.ones((3, 2)), np.ones((3, 3)), np.ones((3, 2)))
