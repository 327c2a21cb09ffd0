"""Laws of edit-friendly inversion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import ddpm_inversion, drift, grid, schedules

SCHEDULE = schedules.schedule('scaled_linear', 1000)
FLOW = schedules.schedule('flow', 1000)
SILENT = schedules.schedule('scaled_linear', 1000, zero_terminal_snr=True)
KEY = jax.random.key(3)


def rough(z_t, t):
  return jnp.sin(3 * z_t) + 0.2 * z_t[:, ::-1]


def z_0(n=3):
  return jax.random.normal(jax.random.key(0), (n, 6))


@pytest.mark.parametrize('delta', [None, 0.2])
@pytest.mark.parametrize(
  'schedule, prediction', [(SCHEDULE, 'epsilon'), (FLOW, 'flow'), (SILENT, 'v')]
)
@pytest.mark.parametrize('first_step', [0, 7])
def test_the_residuals_give_any_latent_back_for_any_denoiser(
  schedule, prediction, delta, first_step
):
  denoise = drift.centred(rough, schedule, delta, prediction)
  options = {'prediction': prediction, 'first_step': first_step}

  @jax.jit
  def round_trip(z):
    z_t, path, residuals = ddpm_inversion.ddpm_invert(
      denoise, z, schedule, 20, KEY, **options
    )
    back = ddpm_inversion.ddpm_replay(denoise, z_t, residuals, schedule, 20, **options)
    return back, path

  back, path = round_trip(z_0())
  assert path.shape == (20 - first_step, 3, 6)
  np.testing.assert_allclose(back, z_0(), atol=1e-3)
  np.testing.assert_array_equal(path[-1], z_0())


def inverted(denoise, z):
  run = lambda z: ddpm_inversion.ddpm_invert(denoise, z, SCHEDULE, 20, KEY)
  _, path, residuals = jax.jit(run)(z)
  return np.asarray(path), np.asarray(residuals)


def test_the_path_lies_on_the_forward_process_with_a_noise_of_its_own_each_time():
  path, _ = inverted(rough, np.zeros((4000, 2), np.float32))
  t, _ = grid.time_pairs(1000, 20)
  noise = np.sqrt(1 - np.asarray(SCHEDULE.alpha_bar)[t])
  for i in (0, 9, 18):
    np.testing.assert_allclose(path[i].std(), noise[i + 1], rtol=0.03)
  assert abs(np.corrcoef(path[9].ravel(), path[10].ravel())[0, 1]) < 0.05


def test_the_residuals_hold_more_than_a_samplers_noise():
  """What makes it edit-friendly, for a denoiser that is always right. [Huberman24]"""
  source = (2 + np.random.default_rng(0).normal(size=(500, 6))).astype(np.float32)

  def true(z_t, t):
    return (z_t - jnp.sqrt(SCHEDULE.at(t[0])) * source) / jnp.sqrt(
      1 - SCHEDULE.at(t[0])
    )

  _, residuals = inverted(true, source)
  t, s = grid.time_pairs(1000, 20)
  alpha = np.append(np.asarray(SCHEDULE.alpha_bar), 1.0)
  sampler = (1 - alpha[s]) / (1 - alpha[t]) * (1 - alpha[t] / alpha[s])
  variance = residuals.var((1, 2))
  assert np.all(variance[:18] > 1.5 * sampler[:18])
  assert variance[19] < 1e-5  # a noise of the schedule's first time is left


def test_a_row_does_not_depend_on_the_others():
  z = np.array(z_0())
  path, residuals = inverted(rough, z)
  z[1:] += 1
  other = inverted(rough, z)
  np.testing.assert_array_equal(path[:, 0], other[0][:, 0])
  np.testing.assert_array_equal(residuals[:, 0], other[1][:, 0])


def test_a_run_of_no_steps_and_a_grid_without_inverse_are_refused():
  with pytest.raises(ValueError, match='at least one'):
    ddpm_inversion.ddpm_invert(rough, z_0(), SCHEDULE, 5, KEY, first_step=5)
  with pytest.raises(ValueError, match='monai'):
    ddpm_inversion.ddpm_invert(rough, z_0(), SCHEDULE, 5, KEY, spacing='monai')
