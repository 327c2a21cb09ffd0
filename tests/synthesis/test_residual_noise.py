"""Laws of the noise that the autoencoder leaves out."""

import jax
import numpy as np
import pytest

from ldm_jax.synthesis import residual_noise


@pytest.fixture(scope='module')
def scans():
  """Volumes of patches and the same with noise that grows with intensity."""
  rng = np.random.default_rng(0)
  smooth = rng.uniform(0.2, 0.8, (24, 4, 2, 2, 1)).astype(np.float32)
  smooth = smooth.repeat(12, 2).repeat(12, 3)
  return smooth, smooth + 0.05 * smooth * rng.normal(size=smooth.shape)


def test_measured_deviations_follow_the_intensity(scans):
  smooth, noisy = scans
  found = residual_noise.measure(noisy, smooth)
  assert len(found['level']) == residual_noise.NUM_LEVELS
  np.testing.assert_allclose(found['std'], 0.05 * np.array(found['level']), rtol=0.15)


def test_added_noise_has_the_measured_size(scans):
  smooth, noisy = scans
  statistics = residual_noise.measure(noisy, smooth)
  keys = jax.random.split(jax.random.key(0), len(smooth))
  again = residual_noise.measure(residual_noise.add(smooth, keys, statistics), smooth)
  np.testing.assert_allclose(again['std'], statistics['std'], rtol=0.2)


def test_the_noise_of_a_volume_follows_from_its_own_key(scans):
  smooth, noisy = scans
  statistics = residual_noise.measure(noisy, smooth)
  keys = jax.random.split(jax.random.key(1), len(smooth))
  together = residual_noise.add(smooth, keys, statistics)
  np.testing.assert_array_equal(
    together[3:5], residual_noise.add(smooth[3:5], keys[3:5], statistics)
  )
  assert np.abs(np.asarray(together[0] - smooth[0])).max() > 0
  assert together.min() >= 0 and together.max() <= 1


def test_a_background_of_one_intensity_is_one_level_and_stays_as_it_is():
  x_hat = np.concatenate([np.zeros((8, 10, 10)), np.full((2, 10, 10), 0.7)])
  x_hat = x_hat.reshape(1, 10, 10, 10, 1)
  x = x_hat + 0.1 * (x_hat > 0) * np.random.default_rng(0).normal(size=x_hat.shape)
  found = residual_noise.measure(x, x_hat)
  assert found['level'][0] == 0 and found['std'][0] == 0
  assert np.all(np.diff(found['level']) > 0)
  noisy = residual_noise.add(
    np.zeros((1, 9)), jax.random.split(jax.random.key(0), 1), found
  )
  np.testing.assert_array_equal(noisy, 0)


def test_misplaced_edges_do_not_count_as_noise(scans):
  smooth, noisy = scans
  misplaced = noisy.copy()
  misplaced[:, :, 12] += 0.5
  found = residual_noise.measure(misplaced, smooth)
  np.testing.assert_allclose(found['std'], 0.05 * np.array(found['level']), rtol=0.25)


def test_what_neighbours_share_does_not_count_as_noise(scans):
  smooth, noisy = scans
  slope = np.linspace(-0.2, 0.2, 24)
  edge = 0.2 * (np.arange(24) > 11)
  shared = noisy + slope[:, None, None] + edge[:, None]
  found = residual_noise.measure(shared, smooth)
  np.testing.assert_allclose(found['std'], 0.05 * np.array(found['level']), rtol=0.2)
