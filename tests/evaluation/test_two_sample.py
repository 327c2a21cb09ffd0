"""Laws of the classifier two-sample test."""

import numpy as np
import pytest
from scipy import ndimage

from ldm_jax.data.phantom.cardiac import cohort
from ldm_jax.evaluation import two_sample

SHAPE, SPACING_MM = (5, 16, 16), (16.0, 11.0, 11.0)
FEW = {
  'steps': 60,
  'seeds': 2,
  'batch_size': 16,
  'channels': (8, 16),
  'num_resamples': 50,
}


@pytest.fixture(scope='module')
def drawn():
  """Two draws of one phantom population: volumes and their patients."""
  return [hearts(seed) for seed in (1, 2)]


def hearts(seed, num_patients=24):
  options = {'num_patients': num_patients, 'shape': SHAPE, 'spacing_mm': SPACING_MM}
  records = cohort.cohort(name='x', site='public', seed=seed, **options).records
  volumes = [record.source.read()[0].array for record in records]
  patients = np.array([record.patient for record in records])
  return np.asarray(volumes, np.float32)[..., None], patients


def judged(real, synthetic, patients, seed=0, **settings):
  rng = np.random.default_rng(seed)
  return two_sample.auc(real, synthetic, rng, patients=patients, **FEW | settings)


def test_two_draws_of_one_population_cannot_be_told_apart(drawn):
  (real, patients), (other, _) = drawn
  found = judged(real, other, patients, seeds=3)
  assert abs(found['auc'] - 0.5) < 0.2
  assert found['auc_low'] < 0.5 < found['auc_high']
  assert (found['num_real'], found['num_patients']) == (len(real), 24)
  assert len(found['per_seed']) == found['seeds'] == 3


@pytest.mark.parametrize('fault', ['blurred', 'noisy', 'faint'])
def test_blurred_noisy_and_faint_volumes_are_told_from_real_ones(drawn, fault):
  (real, patients), (x, _) = drawn
  changed = {
    'blurred': lambda: ndimage.gaussian_filter(x, (0, 0, 1, 1, 0)),
    'noisy': lambda: x + np.random.default_rng(0).normal(0, 0.1, x.shape),
    'faint': lambda: 0.6 * x,
  }[fault]()
  found = judged(real, changed, patients)
  assert found['auc'] > 0.9
  assert found['auc_low'] > 0.5 and found['says_nothing'] is None
  assert found['auc_high'] - found['auc_low'] > 0.01, 'also where all are told apart'


def test_the_same_generator_gives_the_same_figure_and_another_seed_others(drawn):
  (real, patients), (other, _) = drawn
  one, again, third = (judged(real, other, patients, s, steps=2) for s in (0, 0, 1))
  assert one == again
  assert one['per_seed'] != third['per_seed']


def test_few_patients_say_nothing_and_too_few_have_no_figure(drawn):
  (real, patients), (other, _) = drawn
  few = judged(real[:12], other[:6], patients[:12])
  assert few['auc_low'] <= 0.5 and few['auc_high'] > two_sample.PLAIN
  assert 'width' in few['says_nothing']
  none = judged(real[:6], other, patients[:6])
  assert none['auc'] is None and '3 patients' in none['says_nothing']
  halves = two_sample.auc_of_halves(
    real[:12], np.random.default_rng(0), patients=patients[:12], **FEW
  )
  assert halves['auc'] is None and halves['num_real'] == 6


def test_no_patient_is_both_trained_on_and_tested_on(monkeypatch, drawn):
  (real, patients), (other, _) = drawn
  tested = []
  take = two_sample._scores_of_held_out

  def spied(*args):
    tested.append(take(*args))
    return tested[-1]

  monkeypatch.setattr(two_sample, '_scores_of_held_out', spied)
  judged(real, other, patients, steps=1)
  for scores in tested:
    mask = np.isfinite(scores[: len(real)])
    assert all(len(set(mask[patients == patient])) == 1 for patient in patients)
    assert 0 < mask.sum() < len(mask)


def test_a_stack_of_any_grid_is_accepted_and_another_grid_is_refused():
  rng = np.random.default_rng(0)
  for shape in ((1, 9, 12), (17, 8, 7)):
    x = rng.random((8, *shape, 1))
    assert judged(x, x, None, steps=1)['auc'] is not None
  with pytest.raises(ValueError, match='one grid'):
    judged(x, x[:, 1:], None)
  with pytest.raises(ValueError, match='non-finite'):
    judged(x, x * np.nan, None)
