"""Laws of the distances between feature sets."""

import json

import numpy as np
import pytest

from ldm_jax.evaluation import frechet


def test_frechet_of_a_set_with_itself_is_zero():
  x = np.random.default_rng(0).normal(size=(40, 8))
  result = frechet.frechet_distance(x, x)
  assert result['value'] == pytest.approx(0, abs=1e-10)
  assert result['low'] == 0


def test_frechet_matches_the_closed_form_of_known_gaussians():
  rng = np.random.default_rng(1)
  scale_a, scale_b = np.array([1.0, 2.0, 0.5]), np.array([2.0, 1.0, 0.5])
  shift = np.array([1.0, 0.0, -1.0])
  a = rng.normal(size=(200000, 3)) * scale_a
  b = rng.normal(size=(200000, 3)) * scale_b + shift
  expected = (shift**2).sum() + ((scale_a - scale_b) ** 2).sum()
  assert frechet.frechet_value(a, b) == pytest.approx(expected, rel=0.02)


def test_frechet_matches_the_formula_with_a_matrix_square_root():
  from scipy import linalg

  rng = np.random.default_rng(2)
  a, b = rng.normal(size=(60, 6)), rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))
  s_a, s_b = np.cov(a.T), np.cov(b.T)
  expected = ((a.mean(0) - b.mean(0)) ** 2).sum()
  expected += np.trace(s_a + s_b - 2 * linalg.sqrtm(s_a @ s_b).real)
  assert frechet.frechet_value(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_distance_of_few_volumes_says_nothing_unless_it_is_large():
  rng = np.random.default_rng(0)
  many, few = (rng.normal(size=(n, 16)) for n in (100, 6))
  spread = lambda x: x.var(axis=0, ddof=1).sum()
  baselines = [frechet.real_baseline(x) for x in (many, few)]
  small, large = 0.01, 100 * spread(few)
  assert frechet.says_nothing(small, many, baselines[0]) is None
  assert '6 real volumes' in frechet.says_nothing(small, few, baselines[1])
  assert frechet.says_nothing(large, few, baselines[1]) is None
  assert 'Too few' in frechet.says_nothing(large, few[:3], None)


def test_frechet_is_exact_for_fewer_rows_than_features():
  rng = np.random.default_rng(3)
  a, b = rng.normal(size=(5, 4)), rng.normal(size=(6, 4))
  rotation, _ = np.linalg.qr(rng.normal(size=(200, 200)))
  wide_a = np.pad(a, ((0, 0), (0, 196))) @ rotation
  wide_b = np.pad(b, ((0, 0), (0, 196))) @ rotation
  narrow = frechet.frechet_value(a, b)
  assert frechet.frechet_value(wide_a, wide_b) == pytest.approx(narrow, rel=1e-10)


@pytest.mark.parametrize('value', [frechet.frechet_value, frechet.kernel_value])
def test_distances_are_symmetric(value):
  rng = np.random.default_rng(4)
  a, b = rng.normal(size=(30, 5)), rng.normal(1, 2, size=(20, 5))
  assert value(a, b) == pytest.approx(value(b, a), rel=1e-10)


def test_distances_match_the_reference_implementation(golden):
  data = np.load(golden / 'metrics.npz')
  expected = json.loads((golden / 'metrics.json').read_text())
  three = [np.array(rows, float) for rows in ([[1, 2]] * 3, [[2, 2], [1, 2], [1, 2]])]
  assert frechet.frechet_value(*three) == pytest.approx(expected['fid_3x2'], abs=1e-8)
  value = frechet.frechet_distance(data['fid/f1'], data['fid/f2'], num_resamples=0)
  assert value['value'] == pytest.approx(expected['fid_64x16_80x16'], abs=1e-4)
  sets = [data[f'mmd/{k}'].reshape(5, -1).astype(float) for k in ('y', 'yp')]
  linear = frechet.kernel_value(*sets, kernel='linear')
  assert linear == pytest.approx(expected['mmd_linear_kernel'], abs=1e-4)


def test_kernel_distance_is_unbiased_for_equal_populations():
  rng = np.random.default_rng(5)
  values = [
    frechet.kernel_value(rng.normal(size=(10, 3)), rng.normal(size=(12, 3)))
    for _ in range(2000)
  ]
  error = np.std(values) / np.sqrt(len(values))
  assert abs(np.mean(values)) < 4 * error


def test_kernel_interval_covers_the_truth_as_often_as_it_says():
  rng, covered, trials = np.random.default_rng(6), 0, 150
  shift = np.array([1.0, 0.0])
  truth = frechet.kernel_value(
    rng.normal(size=(3000, 2)), rng.normal(size=(3000, 2)) + shift
  )
  for seed in range(trials):
    a, b = rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + shift
    result = frechet.kernel_distance(a, b, num_resamples=60, seed=seed)
    covered += result['low'] <= truth <= result['high']
  assert 0.86 < covered / trials <= 1


def test_grouped_volumes_widen_the_interval():
  rng = np.random.default_rng(7)
  a, b = rng.normal(size=(30, 3)), rng.normal(0.8, 1, size=(30, 3))
  a, b, groups = np.repeat(a, 4, 0), np.repeat(b, 4, 0), np.repeat(np.arange(30), 4)
  alone = frechet.frechet_distance(a, b)
  together = frechet.frechet_distance(a, b, groups, groups)
  width = together['high'] - together['low']
  assert width > 1.4 * (alone['high'] - alone['low'])


def test_real_baseline_is_small_against_a_shifted_set():
  x = np.random.default_rng(8).normal(size=(80, 4))
  baseline = frechet.real_baseline(x, groups=np.arange(80) // 2)
  assert baseline['n_half'] == 40
  assert baseline['frechet']['high'] < frechet.frechet_value(x, x + 1)


@pytest.mark.parametrize(
  ('a', 'b', 'words'),
  [
    (np.zeros((1, 3)), np.zeros((5, 3)), 'at least 2'),
    (np.zeros((5, 3)), np.zeros((5, 4)), 'one width'),
    (np.full((5, 3), np.nan), np.zeros((5, 3)), 'non-finite'),
  ],
)
def test_unusable_features_are_refused_by_name(a, b, words):
  with pytest.raises(ValueError, match=words):
    frechet.frechet_distance(a, b)
