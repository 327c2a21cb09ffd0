"""Laws of one multistep step: the integral that it stands for, and its first steps."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import multistep, process, schedules, solvers

SCHEDULE = schedules.schedule('linear', 1000, 1e-4, 2e-2)
TIMES = (700, 600, 500, 400)
LEVELS = tuple(SCHEDULE.at(t) for t in TIMES)
RNG = np.random.default_rng(0)
Z_T, Z_0, SLOPE = (jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32) for _ in range(3))


def log_ratio(level):
  signal, noise = process.signal_and_noise(level, jnp.zeros(()))
  return float(jnp.log(signal / noise))


def integrated(z_t, z_0_hat, level_t, level_s):
  """The step of the module's docstring by the midpoint rule; z_0_hat(x)."""
  (_, noise_t), (signal_s, noise_s) = (
    [float(v) for v in process.signal_and_noise(level, jnp.zeros(()))]
    for level in (level_t, level_s)
  )
  h, x = log_ratio(level_s) - log_ratio(level_t), (np.arange(2000) + 0.5) / 2000
  weights = h * np.exp(-h * (1 - x)) / 2000
  total = sum(w * np.asarray(z_0_hat(at)) for w, at in zip(weights, x, strict=True))
  return noise_s / noise_t * np.asarray(z_t) + signal_s * total


@pytest.mark.parametrize('step', [multistep.dpmpp_2m, multistep.unipc])
def test_the_first_step_is_that_of_ddim(step):
  memory = multistep.start(Z_T)
  z_s, _ = step(memory, Z_T, Z_0, LEVELS, jnp.int32(0))
  eps_hat = process.to_epsilon(Z_0, Z_T, LEVELS[2], 'sample')
  expected = solvers.ddim_move(Z_0, eps_hat, LEVELS[2], LEVELS[3])
  np.testing.assert_allclose(z_s, expected, atol=1e-5)


@pytest.mark.parametrize('step', [multistep.dpmpp_2m, multistep.unipc])
def test_a_latent_that_stays_the_same_is_integrated_exactly(step):
  memory = multistep.Memory(Z_0, Z_0, process.add_noise(Z_0, SLOPE, LEVELS[1]))
  z_t = process.add_noise(Z_0, SLOPE, LEVELS[2])
  z_s, _ = step(memory, z_t, Z_0, LEVELS, jnp.int32(2))
  np.testing.assert_allclose(z_s, process.add_noise(Z_0, SLOPE, LEVELS[3]), atol=1e-4)


def test_the_correction_integrates_a_parabola_through_three_predictions():
  """In log(signal / noise), along the step from the second level to the third."""
  ratios = [log_ratio(level) for level in LEVELS]
  h = ratios[2] - ratios[1]
  z_0_hat = lambda x: Z_0 + SLOPE * x + 0.5 * Z_T * x**2
  before = z_0_hat((ratios[0] - ratios[1]) / h)
  memory = multistep.Memory(z_0_hat(0.0), before, Z_T)
  _, after = multistep.unipc(memory, jnp.zeros_like(Z_T), z_0_hat(1.0), LEVELS, 2)
  expected = integrated(Z_T, z_0_hat, LEVELS[1], LEVELS[2])
  np.testing.assert_allclose(after.z_t, expected, rtol=1e-3, atol=1e-3)


def test_a_step_to_no_noise_ends_at_the_predicted_latent():
  levels = (*LEVELS[:3], SCHEDULE.at(-1))
  memory = multistep.Memory(Z_0 - 1, Z_0 - 2, Z_T)
  z_s, _ = multistep.dpmpp_2m(memory, Z_T, Z_0, levels, jnp.int32(2))
  np.testing.assert_allclose(z_s, Z_0, atol=1e-5)
