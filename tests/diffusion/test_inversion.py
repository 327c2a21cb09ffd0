"""Laws of DDIM inversion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import drift, grid, inversion, process, schedules, solvers

SCHEDULE = schedules.schedule('scaled_linear', 1000)
FLOW = schedules.schedule('flow', 1000)
SILENT = schedules.schedule('scaled_linear', 1000, zero_terminal_snr=True)


def smooth(z_t, t):
  return 0.6 * jnp.tanh(z_t) + 0.1 * jnp.sin(t / 100.0)[:, None]


def z_0():
  return jax.random.normal(jax.random.key(0), (4, 6))


def round_trip_error(num_steps, num_iterations):
  z_T, _, _ = inversion.ddim_invert_path(
    smooth, z_0(), SCHEDULE, num_steps, num_iterations=num_iterations
  )
  return np.abs(solvers.sample(smooth, z_T, SCHEDULE, num_steps) - z_0()).max()


def test_inversion_round_trips_with_a_smooth_denoiser():
  assert round_trip_error(50, 8) < 1e-3


def test_more_iterations_and_more_steps_both_shrink_the_round_trip_error():
  assert round_trip_error(50, 3) < round_trip_error(50, 1) < round_trip_error(50, 0)
  assert round_trip_error(200, 0) < 0.5 * round_trip_error(50, 0)


@pytest.mark.parametrize('spacing', ['linspace', 'leading', 'trailing'])
@pytest.mark.parametrize('delta', [None, 0.2])
def test_the_corrections_make_the_round_trip_exact_for_a_rough_denoiser(spacing, delta):
  def rough(z_t, t):
    return jnp.sin(1.5 * z_t) + 0.2 * z_t[:, ::-1]

  denoise = drift.centred(rough, SCHEDULE, delta)
  z_T, path, corrections = inversion.ddim_invert_path(
    denoise, z_0(), SCHEDULE, 20, spacing=spacing
  )
  back = solvers.sample(
    denoise,
    z_T,
    SCHEDULE,
    20,
    spacing=spacing,
    after_step=lambda z, i: z + corrections[i],
  )
  assert np.abs(corrections).max() > 2e-3, 'rough enough to need them'
  np.testing.assert_allclose(back, z_0(), atol=4e-4)
  np.testing.assert_array_equal(path[-1], z_0())


def test_the_path_is_the_road_that_sampling_takes():
  z_T, path, _ = inversion.ddim_invert_path(
    smooth, z_0(), SCHEDULE, 50, num_iterations=8
  )
  t, s = grid.time_pairs(1000, 50)
  eps_hat, level_t = smooth(z_T, jnp.full(4, t[0])), SCHEDULE.at(t[0])
  z_0_hat = process.to_z_0(eps_hat, z_T, level_t)
  z_s = solvers.ddim_move(z_0_hat, eps_hat, level_t, SCHEDULE.at(s[0]))
  np.testing.assert_allclose(path[0], z_s, atol=1e-4)


def test_v_prediction_inverts_to_the_same_noise():
  def as_v(z_t, t):
    a_t, eps_hat = SCHEDULE.at(t), smooth(z_t, t)
    return process.velocity(process.to_z_0(eps_hat, z_t, a_t), eps_hat, a_t)

  by_noise, _, _ = inversion.ddim_invert_path(
    smooth, z_0(), SCHEDULE, 50, num_iterations=6
  )
  by_v, _, _ = inversion.ddim_invert_path(
    as_v, z_0(), SCHEDULE, 50, prediction='v', num_iterations=6
  )
  np.testing.assert_allclose(by_v, by_noise, atol=2e-3)


@pytest.mark.parametrize(
  'schedule, prediction', [(FLOW, 'flow'), (SCHEDULE, 'flow'), (SILENT, 'v')]
)
def test_inversion_round_trips_where_no_signal_is_left_and_along_velocities(
  schedule, prediction
):
  options = {'prediction': prediction, 'spacing': 'trailing'}
  z_T, _, _ = inversion.ddim_invert_path(
    smooth, z_0(), schedule, 50, num_iterations=12, **options
  )
  back = solvers.sample(smooth, z_T, schedule, 50, **options)
  np.testing.assert_allclose(back, z_0(), atol=2e-3)


@pytest.mark.parametrize('delta', [None, 0.2])
def test_the_corrections_make_the_round_trip_of_a_flow_exact(delta):
  rough = lambda z_t, t: jnp.sin(3 * z_t) + 0.2 * z_t[:, ::-1]
  denoise = drift.centred(rough, FLOW, delta, 'flow')
  z_T, path, corrections = inversion.ddim_invert_path(
    denoise, z_0(), FLOW, 20, prediction='flow'
  )
  back = solvers.sample(
    denoise,
    z_T,
    FLOW,
    20,
    prediction='flow',
    after_step=lambda z, i: z + corrections[i],
  )
  np.testing.assert_allclose(back, z_0(), atol=2e-4)
  np.testing.assert_array_equal(path[-1], z_0())


def test_inverted_gaussian_data_is_standard_noise(gaussian):
  draws = np.random.default_rng(0).multivariate_normal(
    gaussian.MEAN, gaussian.COVARIANCE, 20_000
  )
  z_T, _, _ = inversion.ddim_invert_path(
    gaussian.denoiser(SCHEDULE), jnp.asarray(draws, jnp.float32), SCHEDULE, 100
  )
  np.testing.assert_allclose(np.mean(z_T, 0), 0, atol=0.05)
  np.testing.assert_allclose(np.cov(np.asarray(z_T).T), np.eye(2), atol=0.06)


def test_inversion_is_one_scan_and_refuses_the_grid_that_has_no_inverse():
  jaxpr = jax.make_jaxpr(lambda z: inversion.ddim_invert_path(smooth, z, SCHEDULE, 50))
  assert str(jaxpr(z_0())).count('length=50') == 1
  with pytest.raises(ValueError, match='monai'):
    inversion.ddim_invert_path(smooth, z_0(), SCHEDULE, 50, spacing='monai')
