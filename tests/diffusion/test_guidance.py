"""Laws of classifier-free guidance."""

import jax
import numpy as np

from ldm_jax.diffusion import guidance, process, schedules, solvers

SCHEDULE = schedules.schedule('linear', 50, 1e-3, 0.2)


def conditional(z_t, t):
  return 0.3 * z_t + 0.2


def null(z_t, t):
  return 0.4 * z_t - 0.1


def z_T():
  return jax.random.normal(jax.random.key(0), (4, 5))


def test_guidance_one_is_the_conditional_sample_bit_for_bit():
  run = jax.jit(
    lambda z, scale: solvers.sample(
      guidance.guided(conditional, null, scale), z, SCHEDULE, 10
    )
  )
  plain = jax.jit(lambda z: solvers.sample(conditional, z, SCHEDULE, 10))(z_T())
  static = jax.jit(
    lambda z: solvers.sample(guidance.guided(conditional, null, 1.0), z, SCHEDULE, 10)
  )(z_T())
  np.testing.assert_array_equal(static, plain)
  np.testing.assert_array_equal(run(z_T(), 1.0), plain)


def test_guidance_zero_is_the_unconditional_output_and_two_extrapolates():
  c, u = conditional(z_T(), 0), null(z_T(), 0)
  np.testing.assert_allclose(guidance.guide(c, u, 0), u, atol=1e-6)
  np.testing.assert_allclose(guidance.guide(c, u, 2), 2 * c - u, atol=1e-6)


def test_guiding_velocities_is_guiding_noises():
  z, a_t = z_T(), SCHEDULE.at(20)

  def as_v(eps_hat):
    return process.velocity(process.to_z_0(eps_hat, z, a_t), eps_hat, a_t)

  c, u = conditional(z, 20), null(z, 20)
  by_v = process.to_epsilon(guidance.guide(as_v(c), as_v(u), 3.0), z, a_t, 'v')
  np.testing.assert_allclose(by_v, guidance.guide(c, u, 3.0), atol=1e-5)


def test_two_scales_of_one_are_the_model_that_is_told_all_bit_for_bit():
  outputs = nothing, source, both = np.random.default_rng(0).normal(size=(3, 2, 5))
  np.testing.assert_array_equal(guidance.guide_twice(*outputs, 1, 1), both)
  found = guidance.guide_twice(nothing, source, both, 1.5, 7.5)
  expected = nothing + 1.5 * (source - nothing) + 7.5 * (both - source)
  np.testing.assert_allclose(found, expected)
  np.testing.assert_allclose(guidance.guide_twice(*outputs, 1, 0), source)
  np.testing.assert_allclose(guidance.guide_twice(*outputs, 0, 0), nothing)
