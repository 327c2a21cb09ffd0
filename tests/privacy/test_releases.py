"""Laws of private releases: bounded influence, the right noise, one line each."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.privacy import accounting, secret_key
from ldm_jax.privacy.releases import (
  clip_rows,
  histograms_norm,
  latent_means,
  onto_simplex,
  private_histograms,
  private_mean,
  release_key,
  shares,
)


@settings(max_examples=100, deadline=None)
@given(
  seed=st.integers(0, 2**16),
  clip_norm=st.sampled_from([1e-6, 1.0, 1e3]),
  scale=st.sampled_from([1e-200, 1.0, 1e8, 1e300]),
)
def test_one_patient_moves_the_clipped_sum_by_at_most_the_clip_norm(
  seed, clip_norm, scale
):
  rng = np.random.default_rng(seed)
  row = rng.normal(size=(1, 5)) * scale
  if seed % 5 == 0:
    row[0, seed % 4] = [np.nan, np.inf, -np.inf, 1.0][seed % 4]
  clipped = clip_rows(row, clip_norm)
  assert np.all(np.isfinite(clipped))
  assert np.linalg.norm(clipped) <= clip_norm * (1 + 1e-12)


def test_rows_within_the_bound_are_kept_as_they_are():
  values = np.random.default_rng(0).normal(size=(6, 3))
  np.testing.assert_array_equal(clip_rows(values, 1e3), values)


def test_the_mean_approaches_the_true_mean_of_a_large_cohort():
  values = np.random.default_rng(0).normal(2.0, 0.1, size=(20_000, 4))
  mean, _ = private_mean(
    values, 1.0, 2.0, 20_000, secret_key.new_noise_key(0), centre=[1.9, 2.1, 2.0, 2.0]
  )
  np.testing.assert_allclose(mean, np.mean(values, axis=0), atol=1e-3)


def test_the_noise_of_the_mean_has_the_stated_deviation():
  values = np.zeros((10, 20_000))
  mean, release = private_mean(values, 0.7, 1.5, 10, secret_key.new_noise_key(0))
  assert np.std(mean) == pytest.approx(0.7 * 1.5 / 10, rel=0.02)
  assert release['noise_multiplier'] == 1.5


def test_the_divisor_is_the_public_number_not_the_rows_present():
  key = secret_key.new_noise_key(1)
  values = np.full((8, 2), 0.5)
  eight, _ = private_mean(values, 10.0, 1e-6, 8, key)
  ten, _ = private_mean(values, 10.0, 1e-6, 10, key)
  np.testing.assert_allclose(ten, eight * 0.8, rtol=1e-5)


def test_the_release_is_priced_as_one_gaussian_over_everyone():
  _, release = private_mean(np.ones((4, 2)), 1.0, 3.0, 4, secret_key.new_noise_key())
  priced = accounting.epsilon([accounting.event(release)], 1e-5)
  assert priced == accounting.epsilon([accounting.gaussian_event(3.0)], 1e-5)


def test_bad_arguments_are_refused():
  key = secret_key.new_noise_key(0)
  with pytest.raises(ValueError, match='one row per patient'):
    private_mean(np.zeros(3), 1.0, 1.0, 3, key)
  with pytest.raises(ValueError, match='noise multiplier'):
    private_mean(np.zeros((3, 2)), 1.0, 0.0, 3, key)
  with pytest.raises(ValueError, match='clip norm'):
    private_mean(np.zeros((3, 2)), 0.0, 1.0, 3, key)
  with pytest.raises(ValueError, match='number of private patients'):
    private_mean(np.zeros((3, 2)), 1.0, 1.0, 0, key)
  with pytest.raises(ValueError, match='centre'):
    private_mean(np.zeros((3, 2)), 1.0, 1.0, 3, key, centre=np.zeros(3))


# Latent means


def test_latent_means_average_the_volumes_that_are_present():
  rng = np.random.default_rng(0)
  z = rng.normal(size=(5, 3, 2, 2, 4))
  present = np.array([[1, 1, 1], [1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
  expected = [
    own[kept].reshape(-1, 4).mean(0) if kept.any() else np.zeros(4)
    for own, kept in zip(z, present, strict=True)
  ]
  z[~present] = 1e9
  np.testing.assert_allclose(latent_means(z, present), expected, atol=1e-12)


# Histograms


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), num_blocks=st.integers(1, 4))
def test_one_patient_moves_all_histograms_together_by_at_most_root_k(seed, num_blocks):
  rng = np.random.default_rng(seed)
  groups = [[0], [1, 2], [3, 4, 5]]
  rows = np.concatenate(
    [shares(rng.integers(0, 5, 6), groups, 5) for _ in range(num_blocks)], axis=1
  )
  np.testing.assert_allclose(rows.sum(axis=1), num_blocks)
  norms = np.linalg.norm(rows, axis=1)
  assert np.all(norms <= histograms_norm(num_blocks) * (1 + 1e-12))
  assert norms[0] == pytest.approx(histograms_norm(num_blocks))  # one record: tight


def test_histograms_come_out_as_shares_near_the_truth():
  rng = np.random.default_rng(0)
  bins = rng.choice(4, 20_000, p=[0.5, 0.3, 0.2, 0.0])
  groups = np.arange(20_000).reshape(10_000, 2)
  block = shares(bins, groups, 4)
  found, made = private_histograms(
    [block, block], 5.0, 10_000, secret_key.new_noise_key(0)
  )
  for histogram in found:
    assert np.all(histogram >= 0)
    assert histogram.sum() == pytest.approx(1)
    np.testing.assert_allclose(histogram, block.mean(axis=0), atol=5e-3)
  assert made['clip_norm'] == pytest.approx(np.sqrt(2))


def test_the_projection_is_the_nearest_point_of_the_simplex():
  rng = np.random.default_rng(0)
  np.testing.assert_allclose(onto_simplex([0.2, 0.3, 0.5]), [0.2, 0.3, 0.5])
  np.testing.assert_allclose(onto_simplex([2.0, -1.0, 0.0]), [1, 0, 0])
  for _ in range(20):
    values = rng.normal(size=5)
    found = onto_simplex(values)
    assert np.all(found >= 0)
    assert found.sum() == pytest.approx(1)
    others = rng.dirichlet(np.full(5, 0.5), size=2000)
    assert np.min(np.linalg.norm(others - values, axis=1)) >= np.linalg.norm(
      found - values
    )


def test_releases_of_one_run_have_keys_of_their_own():
  key = secret_key.new_noise_key(0)
  derived = [
    *(jax.random.key_data(release_key(key, name)).tolist() for name in ('a', 'b')),
    *(jax.random.key_data(jax.random.fold_in(key, step)).tolist() for step in range(9)),
    jax.random.key_data(key).tolist(),
  ]
  assert len({tuple(words) for words in derived}) == len(derived)
  again = jax.random.key_data(release_key(key, 'a')).tolist()
  assert again == derived[0]
