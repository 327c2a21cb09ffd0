"""Laws of the noise schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import process, schedules

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


BETAS = [name for name in schedules.NAMES if name != 'flow']


@pytest.mark.parametrize('name', BETAS)
@pytest.mark.parametrize('num_timesteps', [10, 150, 1000])
def test_signal_only_decreases_and_betas_stay_inside_the_unit_interval(
  name, num_timesteps
):
  ours = schedules.schedule(name, num_timesteps)
  assert ours.num_timesteps == num_timesteps
  assert np.all(np.diff(ours.alpha_bar) < 0)
  assert np.all((ours.betas > 0) & (ours.betas < 1))
  assert not ours.ends_in_noise


def test_the_rounding_is_the_references_bit_for_bit(golden):
  reference = np.load(golden / 'schedulers.npz')
  for golden_name, (name, start, end) in GOLDEN.items():
    if name != 'cosine':
      ours = schedules.schedule(name, 1000, start, end).alpha_bar
      np.testing.assert_array_equal(ours, reference[f'alphas_cumprod/{golden_name}'])


@pytest.mark.parametrize('name', BETAS)
@pytest.mark.parametrize('num_timesteps', [2, 150])
def test_zero_terminal_snr_ends_at_exactly_zero_and_keeps_its_beginning(
  name, num_timesteps
):
  plain = schedules.schedule(name, num_timesteps)
  ours = schedules.schedule(name, num_timesteps, zero_terminal_snr=True)
  assert ours.alpha_bar[-1] == 0 and ours.betas[-1] == 1 and ours.ends_in_noise
  np.testing.assert_allclose(ours.alpha_bar[0], plain.alpha_bar[0], rtol=1e-6)
  assert np.all(np.diff(ours.alpha_bar) < 0) and np.all(ours.betas > 0)
  # [Lin24] Algorithm 1 moves sqrt(alpha_bar) by an affine map.
  curve, rescaled = np.sqrt(plain.alpha_bar), np.sqrt(ours.alpha_bar)
  slope = rescaled[0] / (curve[0] - curve[-1])
  np.testing.assert_allclose(rescaled, slope * (curve - curve[-1]), atol=2e-5)


def test_the_betas_of_a_zero_terminal_snr_make_its_alpha_bar():
  ours = schedules.schedule('scaled_linear', 1000, zero_terminal_snr=True)
  product = np.cumprod(1 - np.asarray(ours.betas, np.float64))
  np.testing.assert_allclose(product, ours.alpha_bar, atol=1e-5)


@pytest.mark.parametrize('shift', [0.5, 1.0, 3.0, 1.1])
def test_a_flow_runs_straight_from_the_latent_to_pure_noise(shift):
  ours = schedules.schedule('flow', 100, shift=shift)
  level = ours.at(np.arange(-1, 100))
  np.testing.assert_array_equal(level.signal[jnp.array([0, -1])], [1, 0])
  np.testing.assert_array_equal(level.noise[jnp.array([0, -1])], [0, 1])
  np.testing.assert_allclose(level.signal + level.noise, 1, atol=1e-7)
  assert np.all(np.diff(level.noise) > 0)
  odds = lambda u: u / (1 - u)
  middle, straight = level.noise[1:-1], np.arange(1, 100) / 100
  np.testing.assert_allclose(odds(middle), shift * odds(straight), rtol=1e-3)


@pytest.mark.parametrize('name', schedules.NAMES)
def test_the_variance_between_two_times_adds_up(name):
  ours = schedules.schedule(name, 50)
  t, s = np.array([30, 49, 3, 7]), np.array([29, 10, -1, 6])
  signal_t, noise_t = process.signal_and_noise(ours.at(t), t)
  signal_s, noise_s = process.signal_and_noise(ours.at(s), s)
  added = (signal_t / signal_s * noise_s) ** 2 + ours.between(t, s)
  np.testing.assert_allclose(added, noise_t**2, rtol=1e-3)


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
    (('linear', 1, 1e-4, 2e-2, True), 'at least 2'),
    (('flow', 10, 0, 0, False, 0.0), 'shift'),
  ],
)
def test_an_impossible_schedule_is_refused_by_name(arguments, words):
  with pytest.raises(ValueError, match=words):
    schedules.schedule(*arguments)


def test_the_signal_left_at_the_last_time_is_told_by_its_amplitude():
  paper = schedules.schedule('linear', 150, 1e-4, 7e-2)
  assert 0.05 < schedules.signal_left(paper) < 0.1
  short = schedules.schedule('linear', 50, 1e-4, 7e-2)
  assert schedules.signal_left(short) > schedules.MOST_SIGNAL_LEFT
  ends = schedules.schedule('cosine', 1000, zero_terminal_snr=True)
  assert schedules.signal_left(ends) == 0
  assert schedules.signal_left(schedules.flow(100)) == 0
