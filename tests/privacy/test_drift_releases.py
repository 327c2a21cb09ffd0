"""Laws of the private numbers behind a drift: sensitivity, noise, what follows."""

import jax
import numpy as np
import pytest

from ldm_jax.privacy import discrete_gaussian, releases, secret_key

GRID = (-0.2, 0.0, 0.1)
RNG = np.random.default_rng(0)


def pre_noise(parts, scale, clip_norm, monkeypatch):
  """What `private_parts` gives to the mechanism, in units of the scale."""
  seen = []

  def noisy_sum(rows, norm, sigma, key):
    assert (sigma, norm) == (3.0, clip_norm)
    spacing, _ = discrete_gaussian.grid(sigma, norm)
    seen.append(spacing * discrete_gaussian.on_grid(rows, spacing).sum(axis=0))
    return seen[-1]

  with monkeypatch.context() as patch:
    patch.setattr(discrete_gaussian, 'noisy_sum', noisy_sum)
    releases.private_parts(parts, scale, clip_norm, 3.0, 10, jax.random.key(0), 'x')
  return seen[0]


@pytest.mark.parametrize('size', [1e-3, 1.0, 1e30, np.inf])
def test_a_patient_more_or_less_moves_the_sum_by_at_most_the_clip_norm(
  size, monkeypatch
):
  parts = RNG.normal(size=(10, 6))
  parts[4] *= size
  whole = pre_noise(parts, 0.7, 0.5, monkeypatch)
  for removed in range(10):
    without = pre_noise(np.delete(parts, removed, 0), 0.7, 0.5, monkeypatch)
    assert np.linalg.norm(whole - without) <= 0.5 * (1 + 1e-5)


def test_the_noise_has_the_deviation_that_the_ledger_is_told():
  found = []
  for seed in range(300):
    mean, made = releases.private_parts(
      np.zeros((10, 5)), 2.0, 0.5, 3.0, 10, secret_key.new_noise_key(seed), 'x'
    )
    found.append(mean)
  assert made['noise_multiplier'] == 3.0 and made['clip_norm'] == 0.5
  assert made['steps'] == 1 and made['sampling_probability'] == 1.0
  # sigma C, divided by the patients, in units of the scale
  np.testing.assert_allclose(np.std(found), 3.0 * 0.5 / 10 * 2.0, rtol=0.06)


def test_without_clipping_and_with_little_noise_it_is_the_mean():
  parts = RNG.normal(size=(10, 6))
  mean, _ = releases.private_parts(
    parts, 1.0, 1e3, 1e-6, 10, secret_key.new_noise_key(0), 'x'
  )
  np.testing.assert_allclose(mean, parts.mean(0), atol=1e-3)


def test_the_loss_of_no_drift_is_zero_for_everybody_and_not_released():
  losses = RNG.uniform(1, 2, (7, 3))
  found = releases.loss_parts(losses, GRID)
  np.testing.assert_allclose(found, losses[:, [0, 2]] - losses[:, [1]])
  moved = releases.loss_parts(losses + RNG.normal(size=(7, 1)), GRID)
  np.testing.assert_allclose(moved, found)


def test_the_least_loss_wins_and_none_that_is_below_zero_means_no_drift():
  assert releases.least_drift([-0.1, -0.3], GRID) == 0.1
  assert releases.least_drift([-0.1, 0.3], GRID) == -0.2
  assert releases.least_drift([0.1, 0.3], GRID) == 0.0


def test_the_scale_is_above_nine_of_ten_public_patients_and_never_zero():
  parts = np.arange(1, 101)[:, None] * np.array([[0.6, 0.8]])
  assert 90 <= releases.public_scale(parts) <= 91
  with pytest.raises(ValueError, match=r'adapt\.drift\.value'):
    releases.public_scale(np.zeros((5, 2)))
