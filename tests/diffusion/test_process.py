"""Laws of the forward process, its posterior and the predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import process, schedules

SCHEDULE = schedules.schedule('linear', 150, 1e-4, 7e-2)
FLOW = schedules.schedule('flow', 150)
# v is defined where the variance is kept.
DEFINED = [(SCHEDULE, p) for p in process.PREDICTIONS] + [
  (FLOW, p) for p in process.PREDICTIONS if p != 'v'
]
ids = lambda value: value if isinstance(value, str) else type(value).__name__


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


@pytest.mark.parametrize('schedule, prediction', DEFINED, ids=ids)
def test_every_prediction_gives_back_the_true_noise_and_latent(schedule, prediction):
  z_0, eps = draw(), draw(seed=1)
  level_t = schedule.at(jnp.array([10, 60, 100]))
  z_t = process.add_noise(z_0, eps, level_t)
  target = process.training_target(z_0, eps, level_t, prediction)
  z_0_hat, eps_hat = process.to_pair(target, z_t, level_t, prediction)
  np.testing.assert_allclose(eps_hat, eps, atol=1e-4)
  np.testing.assert_allclose(z_0_hat, z_0, atol=1e-4)
  np.testing.assert_allclose(
    process.to_epsilon(target, z_t, level_t, prediction), eps_hat
  )
  np.testing.assert_allclose(process.to_z_0(eps, z_t, level_t), z_0, atol=1e-4)


@pytest.mark.parametrize('prediction', ['v', 'sample', 'flow'])
def test_all_but_the_noise_keep_the_latent_where_no_signal_is_left(prediction):
  z_0, eps = draw(), draw(seed=1)
  target = process.training_target(z_0, eps, 0.0, prediction)
  z_0_hat, eps_hat = process.to_pair(target, eps, 0.0, prediction)
  np.testing.assert_allclose(z_0_hat, z_0, atol=1e-6)
  np.testing.assert_allclose(eps_hat, eps, rtol=1e-6)


def test_a_level_of_signal_and_noise_is_the_level_of_its_alpha_bar():
  z_0, eps, a_t, a_s = draw(), draw(seed=1), SCHEDULE.at(60), SCHEDULE.at(20)
  level = lambda a: process.Level(jnp.sqrt(a), jnp.sqrt(1 - a))
  z_t = process.add_noise(z_0, eps, a_t)
  np.testing.assert_array_equal(process.add_noise(z_0, eps, level(a_t)), z_t)
  for ours, same in zip(
    process.posterior(z_0, z_t, level(a_t), level(a_s)),
    process.posterior(z_0, z_t, a_t, a_s),
    strict=True,
  ):
    np.testing.assert_array_equal(ours, same)


def test_the_flows_velocity_is_the_slope_of_its_path():
  z_0, eps, t = draw(), draw(seed=1), jnp.array([9, 74, 148])
  steps = [process.add_noise(z_0, eps, FLOW.at(time)) for time in (t, t + 1)]
  slope = (steps[1] - steps[0]) * FLOW.num_timesteps
  target = process.training_target(z_0, eps, FLOW.at(t), 'flow')
  np.testing.assert_allclose(slope, target, atol=1e-3)


@pytest.mark.parametrize('t, s', [(60, 59), (60, 20), (148, 0)])
@pytest.mark.parametrize('schedule', [SCHEDULE, FLOW], ids=ids)
def test_the_posterior_is_bayes_rule_for_gaussians(schedule, t, s):
  z_0, z_t = 0.7, -0.3
  (signal_t, noise_t), (signal_s, noise_s) = (
    map(np.float64, process.signal_and_noise(schedule.at(time), jnp.zeros(())))
    for time in (t, s)
  )
  # Prior z_s ~ N(signal_s z_0, noise_s^2); z_t given z_s ~ N(r z_s, added).
  r = signal_t / signal_s
  added = noise_t**2 - (r * noise_s) ** 2
  precision = 1 / noise_s**2 + r**2 / added
  expected = (signal_s * z_0 / noise_s**2 + r * z_t / added) / precision
  levels = schedule.at(t), schedule.at(s)
  for known in (None, schedule.between(t, s)):
    mean, variance = process.posterior(jnp.array(z_0), jnp.array(z_t), *levels, known)
    np.testing.assert_allclose(mean, expected, rtol=2e-4)
    np.testing.assert_allclose(variance, 1 / precision, rtol=1e-3)
    assert variance == process.posterior_variance(jnp.array(z_t), *levels, known)


def test_the_posterior_at_the_clean_time_is_the_clean_latent():
  z_0, z_t = draw(), draw(seed=1)
  mean, variance = process.posterior(z_0, z_t, SCHEDULE.at(5), SCHEDULE.at(-1))
  np.testing.assert_allclose(mean, z_0, rtol=1e-6)
  assert variance == 0


def test_an_unknown_prediction_is_refused_with_the_known_ones():
  with pytest.raises(ValueError, match='epsilon'):
    process.to_epsilon(draw(), draw(), 0.5, 'score')


@pytest.mark.parametrize(
  'prediction, schedule, words',
  [
    ('v', FLOW, "'flow'"),
    ('epsilon', FLOW, 'no signal'),
    (
      'epsilon',
      schedules.schedule('linear', 10, zero_terminal_snr=True),
      'zero_terminal_snr',
    ),
  ],
  ids=ids,
)
def test_a_prediction_that_its_schedule_does_not_define_is_refused(
  prediction, schedule, words
):
  with pytest.raises(ValueError, match=words):
    process.check_prediction(prediction, schedule)
  process.check_prediction('flow', schedule)
  process.check_prediction('epsilon', SCHEDULE)
