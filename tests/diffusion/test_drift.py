"""Laws of latent drifting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import drift, process, schedules, solvers

SCHEDULE = schedules.schedule('scaled_linear', 1000)
SHIFTS = [0.1, -0.2, np.array([0.2, -0.1], np.float32)]


def smooth(z_t, t):
  return jnp.tanh(z_t) * 0.7 + 0.1 * jnp.cos(t / 200.0)[:, None, None]


def z_T():
  return jax.random.normal(jax.random.key(0), (3, 4, 2))


@pytest.mark.parametrize('zero', [None, 0, 0.0, np.zeros(2, np.float32)])
@pytest.mark.parametrize('prediction', process.PREDICTIONS)
def test_zero_drift_is_bit_identical_to_plain_training_and_sampling(zero, prediction):
  eps = z_T()
  assert drift.shift_noise(eps, zero) is eps
  denoise = drift.centred(smooth, SCHEDULE, zero, prediction)
  plain = solvers.sample(smooth, z_T(), SCHEDULE, 10, prediction=prediction)
  ours = solvers.sample(denoise, z_T(), SCHEDULE, 10, prediction=prediction)
  np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize('solver', solvers.SOLVERS)
def test_zero_drift_is_bit_identical_under_every_solver(solver):
  options = {'key': jax.random.key(1), 'solver': solver, 'prediction': 'flow'}
  for schedule in (SCHEDULE, schedules.schedule('flow', 1000)):
    denoise = drift.centred(smooth, schedule, np.zeros(2), 'flow')
    plain = solvers.sample(smooth, z_T(), schedule, 6, **options)
    ours = solvers.sample(denoise, z_T(), schedule, 6, **options)
    np.testing.assert_array_equal(ours, plain)


def test_a_traced_zero_drift_changes_rounding_at_most():
  # Two programs: whether a multiplication and an addition become one instruction
  # differs by processor, so only a concrete zero can promise the same bits.
  run = jax.jit(
    lambda delta: solvers.sample(
      drift.centred(smooth, SCHEDULE, delta), z_T(), SCHEDULE, 10
    )
  )
  plain = jax.jit(lambda: solvers.sample(smooth, z_T(), SCHEDULE, 10))()
  np.testing.assert_allclose(run(jnp.zeros(2)), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('delta', SHIFTS, ids=str)
def test_the_initial_noise_has_the_drift_as_its_mean(delta):
  noise = solvers.initial_noise(jax.random.key(1), (2, 50_000, 2))
  shifted = drift.shift_noise(noise, delta)
  np.testing.assert_allclose(shifted.mean((0, 1)), np.broadcast_to(delta, 2), atol=0.01)
  np.testing.assert_allclose(shifted.std((0, 1)), 1, atol=0.01)


@pytest.mark.parametrize('delta', SHIFTS, ids=str)
@pytest.mark.parametrize('prediction', process.PREDICTIONS)
def test_the_centred_sampler_is_ddim_on_the_shifted_latents(delta, prediction):
  def network(z_t, t):
    a_t, eps_hat = SCHEDULE.at(t), smooth(z_t, t)
    z_0_hat = process.to_z_0(eps_hat, z_t, a_t)
    return process.training_target(z_0_hat, eps_hat, a_t, prediction)

  first = SCHEDULE.at(999)
  z_start = drift.from_centred(z_T(), first, delta)
  plain = solvers.sample(network, z_start, SCHEDULE, 50, prediction=prediction)
  ours = solvers.sample(
    drift.centred(network, SCHEDULE, delta, prediction),
    z_T(),
    SCHEDULE,
    50,
    prediction=prediction,
  )
  np.testing.assert_allclose(ours, plain, atol=2e-3)


@pytest.mark.parametrize('delta', SHIFTS, ids=str)
def test_centred_training_pairs_are_ordinary_diffusion(delta):
  z_0, eps = z_T(), jax.random.normal(jax.random.key(2), (3, 4, 2))
  alpha_bar_t = SCHEDULE.at(jnp.array([5, 400, 990]))
  z_t = process.add_noise(z_0, drift.shift_noise(eps, delta), alpha_bar_t)
  y_t = drift.to_centred(z_t, alpha_bar_t, delta)
  np.testing.assert_allclose(y_t, process.add_noise(z_0, eps, alpha_bar_t), atol=1e-5)
  np.testing.assert_allclose(
    drift.from_centred(y_t, alpha_bar_t, delta), z_t, atol=1e-6
  )


def test_the_drifted_ancestral_mean_is_the_plain_mean_plus_the_remaining_drift():
  delta, z_t = 0.1, z_T()
  a_t, a_s = SCHEDULE.at(800), SCHEDULE.at(780)
  y_t = drift.to_centred(z_t, a_t, delta)
  t = jnp.full((3,), 800)
  eps_c = drift.centred(smooth, SCHEDULE, delta)(y_t, t)
  z_0_hat = process.to_z_0(smooth(z_t, t), z_t, a_t)
  mean_y, _ = process.posterior(process.to_z_0(eps_c, y_t, a_t), y_t, a_t, a_s)
  ours = drift.from_centred(mean_y, a_s, delta)
  np.testing.assert_allclose(
    ours,
    process.posterior(z_0_hat, y_t, a_t, a_s)[0] + jnp.sqrt(1 - a_s) * delta,
    atol=1e-5,
  )


def test_a_drifted_gaussian_model_keeps_its_mean_for_its_own_drift():
  # Trained on N(2, 1) with drift 0.2 the best denoiser is exact; sampling with the
  # same drift gives the mean back, from the shifted start.
  delta = 0.2

  def trained(z_t, t):
    a_t = SCHEDULE.at(t)[:, None, None]
    spread = jnp.sqrt(1 - a_t)
    return delta + spread * (z_t - jnp.sqrt(a_t) * 2 - spread * delta)

  noise = jax.random.normal(jax.random.key(3), (2, 20_000, 1))
  start = noise + jnp.sqrt(SCHEDULE.at(999)) * 2
  denoise = drift.centred(trained, SCHEDULE, delta)
  z_0 = solvers.sample(denoise, start, SCHEDULE, 50)
  np.testing.assert_allclose(z_0.mean(), 2, atol=0.05)


def test_a_drift_that_does_not_fit_the_channels_is_refused():
  drift.check_drift(0.1, 4)
  drift.check_drift(None, 4)
  drift.check_drift(np.zeros(4), 4)
  with pytest.raises(ValueError, match='4 channels'):
    drift.check_drift(np.zeros(3), 4)
  with pytest.raises(ValueError, match='finite'):
    drift.check_drift(np.nan, 4)
