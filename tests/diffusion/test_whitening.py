"""Laws of the regulariser of inverted noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import drift, process, schedules, whitening

SCHEDULE = schedules.schedule('scaled_linear', 1000)
FLOW = schedules.schedule('flow', 1000)
SHAPE = (2, 16, 16, 3)
RATES = {'auto_correlation': 0.05, 'kl': 0.02, 'num_rounds': 20}
WHITE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
SMOOTH = (WHITE + np.roll(WHITE, 1, 1) + np.roll(WHITE, 1, 2)) / 2 + np.float32(0.5)
whiten = jax.jit(lambda eps: whitening.whiten(eps, **RATES))
losses = jax.jit(lambda eps: (whitening.correlation(eps), whitening.divergence(eps)))


def test_smooth_noise_becomes_whiter_and_white_noise_stays():
  before, after, of_white = losses(SMOOTH), losses(whiten(SMOOTH)), losses(WHITE)
  for i in range(2):
    assert np.all(after[i] < 0.5 * before[i]) and np.all(of_white[i] < 0.1 * before[i])
  assert np.abs(whiten(WHITE) - WHITE).mean() < 0.1


def test_examples_do_not_touch_each_other():
  other = np.stack([SMOOTH[0], WHITE[1]])
  np.testing.assert_array_equal(whiten(SMOOTH)[0], whiten(other)[0])


def test_a_rate_means_the_same_for_small_and_large_latents():
  def moved(side):
    checks = np.indices((side,) * 2).sum(0) % 2 * 2.0 - 1  # mean 0, variance 1
    eps = jnp.asarray(checks[None, ..., None] + 0.3, jnp.float32)
    return jax.jit(lambda eps: whitening.whiten(eps, 0.0, 0.01, 1).mean())(eps)

  np.testing.assert_allclose(moved(2), moved(6), rtol=1e-4)
  np.testing.assert_allclose(moved(6), 0.3 * (1 - 2 * 0.01), rtol=1e-3)


def test_a_level_is_pooled_along_its_long_axes_only():
  assert whitening._pool(WHITE[:, :3]).shape == (2, 3, 8, 3)
  short = WHITE[:, :3, :3]
  assert whitening._pool(short) is short


@pytest.mark.parametrize('schedule, prediction', [(SCHEDULE, 'v'), (FLOW, 'flow')])
def test_the_clean_latent_follows_so_that_both_still_make_z_t(schedule, prediction):
  t = jnp.full(2, 600)
  level = schedule.at(t)

  def denoise(z_t, t):
    signal, noise = process.signal_and_noise(level, z_t)
    z_0 = (z_t - noise * SMOOTH) / signal
    return process.training_target(z_0, SMOOTH, level, prediction)

  @jax.jit
  def pair(z_t):
    output = whitening.whitened(denoise, schedule, prediction, **RATES)(z_t, t)
    z_0, eps = process.to_pair(output, z_t, level, prediction)
    return eps, process.add_noise(z_0, eps, level)

  eps, z_t = pair(WHITE)
  np.testing.assert_allclose(eps, whiten(SMOOTH), atol=1e-3)
  np.testing.assert_allclose(z_t, WHITE, atol=1e-4)


def test_the_drift_survives_where_the_centred_noise_is_whitened():
  """Whitened in the network's own coordinates, the noise would lose its mean."""
  delta, t = 0.4, jnp.full(2, 999)
  network = lambda z_t, t: WHITE + delta

  @jax.jit
  def means(z_t):
    centred = drift.centred(network, SCHEDULE, delta)
    right, wrong = (
      whitening.whitened(denoise, SCHEDULE, 'epsilon', **RATES)(z_t, t)
      for denoise in (centred, network)
    )
    return right.mean() + delta, wrong.mean()

  right, wrong = means(WHITE)
  assert abs(right - delta) < 0.03
  assert wrong < 0.6 * delta


def test_rates_of_zero_leave_the_denoiser_itself():
  assert whitening.whitened(whiten, SCHEDULE, 'epsilon', 0.0, 0.0) is whiten
