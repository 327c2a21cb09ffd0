"""Laws of the autoencoder's loss and of the latent statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.training import autoencoder_loss

KEYS = jax.random.split(jax.random.key(0), 3)
X = np.random.default_rng(0).random((3, 2, 4, 4, 1)).astype(np.float32)


class Known:
  """Encodes everything to one (mean, std) and decodes everything to one volume."""

  num_codes = 0

  def __init__(self, mean, std, x_hat):
    self.mean, self.std, self.x_hat = mean, std, x_hat

  def apply(self, params, value, method):
    del params
    if method == 'encode':
      shape = (len(value), 2, 2, 2, 3)
      mean = jnp.broadcast_to(jnp.asarray(self.mean), shape)
      return mean, jnp.broadcast_to(jnp.asarray(self.std), shape)
    return jnp.asarray(self.x_hat)


def largest_error(x, x_hat, keys):
  return jnp.abs(x_hat - x).max((1, 2, 3, 4))


def losses(module, step=100, l1=0.0, mse=0.0, kl=0.0, warmup=100, **options):
  section = defaults().autoencoder
  weights = {'l1_weight': l1, 'mse_weight': mse, 'kl_weight': kl, 'kl_warmup': warmup}
  override(section, {**weights, **options})
  build = autoencoder_loss.example_losses(
    module, section, largest_error if section.perceptual.weight else None
  )
  return build({}, {}, {'x': X}, KEYS, jnp.asarray(step))


@pytest.mark.parametrize(('mean', 'std'), [(0.0, 1.0), (1.5, 0.3), (-2.0, 2.0)])
def test_the_kl_term_is_the_divergence_from_the_standard_normal(mean, std):
  """Against the integral of q log(q / p) over a fine grid."""
  z = np.linspace(mean - 12 * std, mean + 12 * std, 200_001)
  log_q = -0.5 * ((z - mean) / std) ** 2 - np.log(std)
  log_p = -0.5 * z**2
  q = np.exp(log_q) / np.sqrt(2 * np.pi)
  expected = np.sum(q * (log_q - log_p)) * (z[1] - z[0])
  loss, metrics = losses(Known(mean, std, X), kl=2.0)
  np.testing.assert_allclose(metrics['kl'], expected, atol=1e-4)
  np.testing.assert_allclose(loss, 2 * expected, atol=2e-4)


@pytest.mark.parametrize(('step', 'share'), [(0, 0.0), (25, 0.25), (100, 1), (900, 1)])
def test_the_kl_weight_grows_over_the_warm_up_and_stays(step, share):
  loss, metrics = losses(Known(1.0, 0.5, X), step, kl=3.0)
  np.testing.assert_allclose(loss, share * 3 * metrics['kl'], rtol=1e-5)


def test_a_perfect_reconstruction_costs_nothing_but_the_kl():
  loss, metrics = losses(Known(0.0, 1.0, X), l1=1.0, mse=10.0, kl=1.0)
  np.testing.assert_allclose(loss, 0.0, atol=1e-6)
  np.testing.assert_allclose(metrics['l1'], 0.0)


def test_every_example_has_its_own_weighted_error():
  x_hat = X.copy()
  x_hat[1] += 0.5
  loss, _ = losses(Known(0.0, 1.0, x_hat), l1=2.0, mse=10.0)
  np.testing.assert_allclose(loss, [0.0, 2 * 0.5 + 10 * 0.25, 0.0], atol=1e-5)


def test_free_bits_spare_a_channel_until_it_tells_more():
  # Three channels: 0 nats, a little, a lot; the metric shows what there is.
  mean, free = [0.0, 0.1, 2.0], 0.5
  loss, metrics = losses(Known(mean, 1.0, X), kl=1.0, free_bits=free)
  np.testing.assert_allclose(loss, (free + free + 2.0) / 3, rtol=1e-5)
  np.testing.assert_allclose(metrics['kl'], (0 + 0.005 + 2.0) / 3, rtol=1e-5)


def test_the_perceptual_distance_adds_with_its_weight():
  x_hat = X.copy()
  x_hat[1] += 0.5
  loss, _ = losses(Known(0.0, 1.0, x_hat), **{'perceptual.weight': 3.0})
  np.testing.assert_allclose(loss, [0.0, 1.5, 0.0], atol=1e-5)


def test_the_statistics_are_those_of_each_channel():
  rng = np.random.default_rng(0)
  z = rng.normal([1.0, -2.0], [0.5, 3.0], (200, 2, 4, 4, 2)).astype(np.float32)
  found = autoencoder_loss.latent_statistics(z)
  np.testing.assert_allclose(found['mean'], [1.0, -2.0], atol=0.1)
  np.testing.assert_allclose(found['std'], [0.5, 3.0], rtol=0.03)


def test_one_deviation_for_the_latent_is_the_largest_of_its_channels():
  z = np.random.default_rng(0).normal((1, -2), (0.5, 3), (9, 2, 4, 4, 2))
  found = autoencoder_loss.latent_statistics(z, 'latent')
  assert found['std'] == [autoencoder_loss.latent_statistics(z)['std'][1]] * 2
  assert found['mean'] == autoencoder_loss.latent_statistics(z)['mean']


@pytest.mark.parametrize('broken', [0.0, np.nan, np.inf])
def test_a_collapsed_or_diverged_channel_is_refused_with_the_key_to_change(broken):
  z = np.random.default_rng(0).normal(size=(5, 2, 4, 4, 2)).astype(np.float32)
  z[..., 1] = broken
  with pytest.raises(ValueError, match=r'(?s)channel 1 .*autoencoder\.kl_weight'):
    autoencoder_loss.latent_statistics(z)


def test_a_channel_that_the_divergence_emptied_is_no_fault_under_one_deviation():
  z = np.random.default_rng(0).normal(size=(5, 2, 4, 4, 2)).astype(np.float32)
  z[..., 1] = 0.3
  found = autoencoder_loss.latent_statistics(z, 'latent')
  assert found['std'][0] == found['std'][1] > 0.9
  for broken in (np.nan, 1e9):
    with pytest.raises(ValueError, match='channel 1 '):
      autoencoder_loss.latent_statistics(np.where([False, True], broken, z), 'latent')
  with pytest.raises(ValueError, match='channel 0 collapsed'):
    autoencoder_loss.latent_statistics(np.zeros_like(z), 'latent')
