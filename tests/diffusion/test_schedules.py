"""Laws of the noise schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import schedules

GOLDEN = {
  'linear_beta': ('linear', 1e-4, 2e-2),
  'scaled_linear_beta': ('scaled_linear', 1e-4, 2e-2),
  'sigmoid_beta': ('sigmoid', 1e-4, 2e-2),
  'cosine': ('cosine', 0, 0),
  'scaled_linear_beta_0.0015_0.0195': ('scaled_linear', 1.5e-3, 1.95e-2),
  'scaled_linear_beta_0.0015_0.0205': ('scaled_linear', 1.5e-3, 2.05e-2),
}


@pytest.mark.parametrize('golden_name', GOLDEN)
def test_schedules_equal_the_reference_within_1e_6(golden, golden_name):
  name, start, end = GOLDEN[golden_name]
  ours = schedules.schedule(name, 1000, start, end)
  reference = np.load(golden / 'schedulers.npz')
  np.testing.assert_allclose(ours.betas, reference[f'betas/{golden_name}'], atol=1e-6)
  np.testing.assert_allclose(
    ours.alpha_bar, reference[f'alphas_cumprod/{golden_name}'], atol=1e-6
  )


@pytest.mark.parametrize('name', schedules.NAMES)
@pytest.mark.parametrize('num_timesteps', [10, 150, 1000])
def test_signal_only_decreases_and_betas_stay_inside_the_unit_interval(
  name, num_timesteps
):
  ours = schedules.schedule(name, num_timesteps)
  assert ours.num_timesteps == num_timesteps
  assert np.all(np.diff(ours.alpha_bar) < 0)
  assert np.all((ours.betas > 0) & (ours.betas < 1))


def test_the_clean_time_has_full_signal_also_under_jit():
  ours = schedules.schedule('linear', 20)
  at = jax.jit(lambda s, t: s.at(t))(ours, jnp.array([-1, 0, 19]))
  np.testing.assert_array_equal(at, [1, ours.alpha_bar[0], ours.alpha_bar[-1]])


@pytest.mark.parametrize(
  'arguments, words',
  [
    (('quadratic',), 'scaled_linear'),
    (('linear', 0), 'at least 1'),
    (('linear', 10, 0.0, 0.1), 'beta_start'),
    (('linear', 10, 0.2, 0.1), 'beta_end'),
  ],
)
def test_an_impossible_schedule_is_refused_by_name(arguments, words):
  with pytest.raises(ValueError, match=words):
    schedules.schedule(*arguments)
