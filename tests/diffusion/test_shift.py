"""Laws of the distance to a target and of the drift that bridges it."""

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.diffusion import drift, process, schedules, shift, solvers

SCHEDULE = schedules.schedule('scaled_linear', 100, 0.0085, 0.12)


def draws(key, count, mean=0.0, std=1.0):
  return mean + std * jax.random.normal(jax.random.key(key), (count, 50, 2))


def test_the_distance_is_that_of_all_pairs():
  x, y = np.asarray(draws(0, 5)), np.asarray(draws(1, 7, 0.5))
  pairs = lambda a, b: np.abs(a[:, None] - b[None]).sum((0, 1))
  expected = (pairs(x, y) / 35 - pairs(x, x) / (2 * 20) - pairs(y, y) / (2 * 42)).mean()
  np.testing.assert_allclose(shift.l1_distance(x, y), expected, rtol=1e-4)


def test_the_distance_vanishes_for_equal_distributions_and_sees_spread_and_shift():
  target = draws(0, 300)
  near = float(shift.l1_distance(draws(1, 300), target))
  assert abs(near) < 2e-3
  for other in (draws(1, 300, 0.3), draws(1, 300, std=0.5)):
    assert shift.l1_distance(other, target) > 10 * abs(near)
  # The literal E|x - y| would prefer samples that all lie at the median.
  collapsed = jnp.zeros_like(target)
  literal = lambda x: jnp.mean(jnp.abs(x[:, None] - target[None]))
  assert literal(collapsed) < literal(draws(1, 300))
  assert shift.l1_distance(collapsed, target) > 10 * abs(near)


def test_samples_of_a_grid_are_those_of_each_value_traced_once():
  seen = []

  def function(value):
    seen.append(value)
    return value**2 + jnp.zeros(3)

  grid = np.linspace(-0.2, 0.2, 7, dtype=np.float32)
  found = jax.jit(lambda grid: shift.over(function, grid, 4))(grid)
  np.testing.assert_allclose(found, np.repeat(grid[:, None] ** 2, 3, 1), rtol=1e-6)
  assert len(seen) == 1


def test_the_closed_form_recovers_the_shift_of_an_analytic_gaussian_model():
  # A model of N(0, S S') with channels that depend on each other; the target is the
  # same data shifted by what a known drift does to the model.
  mix = np.array([[3.0, 0.8], [0.0, 2.0]], np.float32)
  covariance = jnp.asarray(mix @ mix.T)

  def denoise(z_t, t):
    signal, noise = process.signal_and_noise(SCHEDULE.at(t[0]), jnp.zeros(()))
    total = signal**2 * covariance + noise**2 * jnp.eye(2)
    return noise * jnp.linalg.solve(total, z_t.reshape(-1, 2).T).T.reshape(z_t.shape)

  noise = draws(3, 16)

  @jax.jit
  def mean_of(value):
    denoised = drift.centred(denoise, SCHEDULE, drift.Drift(value))
    return shift.channel_mean(solvers.sample(denoised, noise, SCHEDULE, 20))

  true = np.array([0.15, -0.05])
  means = shift.over(mean_of, shift.probes(2, 0.2).astype(np.float32))
  model_mean, gain = shift.gains(np.asarray(means, float), 0.2)
  alpha_bar_T = float(SCHEDULE.at(99))
  values, vectors = np.linalg.eigh(np.asarray(covariance, float))
  exact = np.sqrt(values / (alpha_bar_T * values + 1 - alpha_bar_T) * (1 - alpha_bar_T))
  np.testing.assert_allclose(gain, vectors * exact @ vectors.T, rtol=0.15)
  target = np.asarray(mean_of(true))
  found = shift.closed_form(target, model_mean, gain, 0.2)
  np.testing.assert_allclose(found, true, atol=1e-3)
  # A target out of reach is answered at the edge.
  far = shift.closed_form(model_mean + 100, model_mean, gain, 0.2)
  np.testing.assert_allclose(far, 0.2)


def test_what_no_drift_moves_is_left_alone():
  gain = np.diag([2.0, 1e-6])
  found = shift.closed_form([0.1, 0.1], [0.0, 0.0], gain, 0.2)
  np.testing.assert_allclose(found, [0.05, 0.0])
