"""Laws of the forward process, its posterior and the predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import process, schedules

SCHEDULE = schedules.schedule('linear', 150, 1e-4, 7e-2)


def draw(shape=(3, 2, 4, 2), seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def test_a_time_per_example_multiplies_only_that_example():
  z = draw()
  expanded = process.expand_like(jnp.array([1.0, 2.0, 3.0]), z)
  np.testing.assert_array_equal(expanded * z, z * np.reshape([1, 2, 3], (3, 1, 1, 1)))
  assert process.expand_like(0.5, z).shape == ()


def test_noise_keeps_unit_variance_at_every_time():
  z, eps = draw((4, 50_000, 1)), draw((4, 50_000, 1), 1)
  z_t = process.add_noise(z, eps, SCHEDULE.at(jnp.array([0, 40, 90, 149])))
  np.testing.assert_allclose(z_t.std((1, 2)), 1, atol=0.02)


@pytest.mark.parametrize('prediction', process.PREDICTIONS)
def test_every_prediction_gives_back_the_true_noise_and_latent(prediction):
  z_0, eps = draw(), draw(seed=1)
  alpha_bar_t = SCHEDULE.at(jnp.array([10, 60, 100]))
  z_t = process.add_noise(z_0, eps, alpha_bar_t)
  target = process.training_target(z_0, eps, alpha_bar_t, prediction)
  z_0_hat, eps_hat = process.to_pair(target, z_t, alpha_bar_t, prediction)
  np.testing.assert_allclose(eps_hat, eps, atol=1e-4)
  np.testing.assert_allclose(z_0_hat, z_0, atol=1e-4)
  np.testing.assert_allclose(
    process.to_epsilon(target, z_t, alpha_bar_t, prediction), eps_hat
  )
  np.testing.assert_allclose(process.to_z_0(eps, z_t, alpha_bar_t), z_0, atol=1e-4)


@pytest.mark.parametrize('prediction', ['v', 'sample'])
def test_v_and_sample_keep_the_latent_where_no_signal_is_left(prediction):
  z_0, eps = draw(), draw(seed=1)
  target = process.training_target(z_0, eps, 0.0, prediction)
  z_0_hat, eps_hat = process.to_pair(target, eps, 0.0, prediction)
  np.testing.assert_array_equal(z_0_hat, z_0)
  np.testing.assert_allclose(eps_hat, eps, rtol=1e-6)


@pytest.mark.parametrize('t, s', [(60, 59), (60, 20), (149, 0)])
def test_the_posterior_is_bayes_rule_for_gaussians(t, s):
  a_t, a_s = np.float64(SCHEDULE.alpha_bar[t]), np.float64(SCHEDULE.alpha_bar[s])
  z_0, z_t = 0.7, -0.3
  # Prior z_s ~ N(sqrt(a_s) z_0, 1 - a_s); z_t given z_s ~ N(r z_s, 1 - r^2).
  r = np.sqrt(a_t / a_s)
  precision = 1 / (1 - a_s) + r**2 / (1 - r**2)
  expected = (np.sqrt(a_s) * z_0 / (1 - a_s) + r * z_t / (1 - r**2)) / precision
  mean, variance = process.posterior(jnp.array(z_0), jnp.array(z_t), a_t, a_s)
  np.testing.assert_allclose(mean, expected, rtol=1e-4)
  np.testing.assert_allclose(variance, 1 / precision, rtol=1e-3)


def test_the_posterior_at_the_clean_time_is_the_clean_latent():
  z_0, z_t = draw(), draw(seed=1)
  mean, variance = process.posterior(z_0, z_t, SCHEDULE.at(5), SCHEDULE.at(-1))
  np.testing.assert_allclose(mean, z_0, rtol=1e-6)
  assert variance == 0


def test_an_unknown_prediction_is_refused_with_the_known_ones():
  with pytest.raises(ValueError, match='epsilon'):
    process.to_epsilon(draw(), draw(), 0.5, 'score')
