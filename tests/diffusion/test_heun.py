"""Laws of one step of Heun's method: Euler first, then the mean of both ends."""

import jax.numpy as jnp
import numpy as np

from ldm_jax.diffusion import heun, process, schedules

SCHEDULE = schedules.schedule('flow', 100)
RNG = np.random.default_rng(0)
Z_T, Z_0, EPS = (jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32) for _ in range(3))
T, S = SCHEDULE.at(80), SCHEDULE.at(40)


def test_the_first_call_is_eulers_step_and_remembers_where_it_began():
  z_s, memory = heun.move(heun.start(Z_T), Z_T, Z_0, EPS, T, S, jnp.asarray(False))
  np.testing.assert_allclose(z_s, process.add_noise(Z_0, EPS, S), atol=1e-6)
  np.testing.assert_array_equal(memory.z_t, Z_T)
  np.testing.assert_array_equal(memory.eps_hat, EPS)


def test_the_second_call_repeats_the_step_with_the_mean_of_both_predictions():
  z_t = process.add_noise(Z_0, EPS, T)
  end = Z_0 + 0.4, EPS - 0.2
  euler, memory = heun.move(heun.start(z_t), z_t, Z_0, EPS, T, S, jnp.asarray(False))
  z_s, _ = heun.move(memory, euler, *end, T, S, jnp.asarray(True))
  (signal_t, noise_t), (signal_s, noise_s) = (
    process.signal_and_noise(level, z_t) for level in (T, S)
  )
  moved = (signal_s - signal_t) * (Z_0 + 0.2) + (noise_s - noise_t) * (EPS - 0.1)
  np.testing.assert_allclose(z_s, z_t + moved, atol=1e-5)


def test_a_pair_that_stays_the_same_needs_no_correction():
  z_t = process.add_noise(Z_0, EPS, T)
  euler, memory = heun.move(heun.start(z_t), z_t, Z_0, EPS, T, S, jnp.asarray(False))
  z_s, _ = heun.move(memory, euler, Z_0, EPS, T, S, jnp.asarray(True))
  np.testing.assert_allclose(z_s, euler, atol=1e-5)
