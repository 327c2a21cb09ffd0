"""Laws of latent drifting."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import drift, inversion, process, schedules, solvers
from ldm_jax.diffusion.drift import Drift

SCHEDULE = schedules.schedule('scaled_linear', 1000)
FLOW = schedules.schedule('flow', 1000)
# Stable Diffusion's.
SD = schedules.schedule('scaled_linear', 1000, 0.00085, 0.012)
SHIFTS = [0.1, -0.2, np.array([0.2, -0.1], np.float32)]
LAST = 999


def smooth(z_t, t):
  return jnp.tanh(z_t) * 0.7 + 0.1 * jnp.cos(t / 200.0)[:, None, None]


def z_T():
  return jax.random.normal(jax.random.key(0), (3, 4, 2))


def run(denoise, noise, delta, schedule=SCHEDULE, num_steps=10, **options):
  """A drifted run, as `synthesis.generate` makes it."""
  prediction = options.get('prediction', 'epsilon')
  return solvers.sample(
    drift.centred(denoise, schedule, delta, prediction),
    drift.start(noise, delta),
    schedule,
    num_steps,
    after_step=drift.after_step(delta),
    **options,
  )


@pytest.mark.parametrize(
  'zero',
  [
    None,
    0,
    0.0,
    np.zeros(2, np.float32),
    *map(functools.partial(Drift, 0.0), drift.VARIANTS),
  ],
  ids=str,
)
@pytest.mark.parametrize('prediction', process.PREDICTIONS)
def test_zero_drift_is_bit_identical_to_plain_training_and_sampling(zero, prediction):
  eps = z_T()
  for noise in drift.training_noise(eps, jnp.zeros(3, int), 1000, zero):
    assert noise is eps
  assert drift.centred(smooth, SCHEDULE, zero, prediction) is smooth
  assert drift.start(eps, zero) is eps
  assert drift.after_step(zero) is None
  assert drift.step_shift(zero) is None
  assert drift.from_centred(eps, SCHEDULE.at(5), zero) is eps


@pytest.mark.parametrize('solver', solvers.SOLVERS)
def test_zero_drift_is_bit_identical_under_every_solver(solver):
  options = {'key': jax.random.key(1), 'solver': solver, 'prediction': 'flow'}
  for schedule in (SCHEDULE, FLOW):
    plain = solvers.sample(smooth, z_T(), schedule, 6, **options)
    ours = run(smooth, z_T(), np.zeros(2), schedule, 6, **options)
    np.testing.assert_array_equal(ours, plain)


def test_a_traced_zero_drift_changes_rounding_at_most():
  # Two programs: whether a multiplication and an addition become one instruction
  # differs by processor, so only a concrete zero can promise the same bits.
  drifted = jax.jit(lambda delta: run(smooth, z_T(), delta))
  plain = jax.jit(lambda: solvers.sample(smooth, z_T(), SCHEDULE, 10))()
  np.testing.assert_allclose(drifted(jnp.zeros(2)), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('delta', SHIFTS, ids=str)
@pytest.mark.parametrize('variant', drift.VARIANTS)
def test_the_initial_noise_has_the_drift_as_its_mean(delta, variant):
  noise = solvers.initial_noise(jax.random.key(1), (2, 50_000, 2))
  drifted = Drift(delta, variant)
  for_training, to_predict = drift.training_noise(
    noise, jnp.array([LAST, LAST]), 1000, drifted
  )
  z_start = drift.from_centred(drift.start(noise, drifted), SCHEDULE.at(LAST), drifted)
  for shifted in (for_training, to_predict, z_start):
    expected = np.broadcast_to(delta, 2)
    np.testing.assert_allclose(shifted.mean((0, 1)), expected, atol=0.01)
    np.testing.assert_allclose(shifted.std((0, 1)), 1, atol=0.01)


@pytest.mark.parametrize('delta', SHIFTS, ids=str)
@pytest.mark.parametrize('prediction', process.PREDICTIONS)
def test_the_centred_sampler_is_ddim_on_the_shifted_latents(delta, prediction):
  def network(z_t, t):
    a_t, eps_hat = SCHEDULE.at(t), smooth(z_t, t)
    z_0_hat = process.to_z_0(eps_hat, z_t, a_t)
    return process.training_target(z_0_hat, eps_hat, a_t, prediction)

  z_start = drift.from_centred(z_T(), SCHEDULE.at(LAST), delta)
  plain = solvers.sample(network, z_start, SCHEDULE, 50, prediction=prediction)
  ours = run(network, z_T(), delta, num_steps=50, prediction=prediction)
  np.testing.assert_allclose(ours, plain, atol=2e-3)


def test_without_fresh_noise_only_the_start_differs_between_prior_and_init_only():
  # noise_T is 0.998: the two begin 0.002 delta apart.
  found = [run(smooth, z_T(), Drift(0.1, name)) for name in ('prior', 'init_only')]
  np.testing.assert_allclose(*found, atol=0.01)
  moved = np.abs(found[0] - run(smooth, z_T(), None)).min()
  assert moved > 0.1


def test_the_constant_posterior_adds_the_drift_where_every_step_arrives():
  # Under a network that predicts no noise a step multiplies by signal_s / signal_t.
  nothing, steps = lambda z_t, t: jnp.zeros_like(z_t), 7
  found = run(nothing, z_T(), Drift(0.1, 'posterior_constant'), num_steps=steps)
  t = np.round(np.linspace(0, LAST, steps))[::-1].astype(int)
  alpha_bar = np.append(np.asarray(SCHEDULE.alpha_bar)[t], 1.0)
  expected = np.asarray(z_T()) + 0.1
  for a_t, a_s in itertools.pairwise(alpha_bar):
    expected = expected * np.sqrt(a_s / a_t) + 0.1
  np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize('delta', SHIFTS, ids=str)
def test_centred_training_pairs_are_ordinary_diffusion(delta):
  z_0, eps = z_T(), jax.random.normal(jax.random.key(2), (3, 4, 2))
  t = jnp.array([5, 400, 990])
  alpha_bar_t = SCHEDULE.at(t)
  shifted, _ = drift.training_noise(eps, t, 1000, delta)
  z_t = process.add_noise(z_0, shifted, alpha_bar_t)
  y_t = z_t - process.signal_and_noise(alpha_bar_t, z_t)[1] * delta
  np.testing.assert_allclose(y_t, process.add_noise(z_0, eps, alpha_bar_t), atol=1e-5)
  np.testing.assert_allclose(
    drift.from_centred(y_t, alpha_bar_t, delta), z_t, atol=1e-6
  )


@pytest.mark.parametrize('variant', drift.VARIANTS)
@pytest.mark.parametrize('prediction', process.PREDICTIONS)
def test_what_is_learned_without_loss_samples_its_data_whatever_variant_and_target(
  variant, prediction
):
  # A network that knows z_0 gives each target exactly; every reading but Eq. 4 to the
  # letter then returns z_0, and that one z_0 plus the last step's delta.
  delta, z_0 = np.array([0.3, -0.2], np.float32), z_T() * 2
  expected = z_0 + (delta if variant == 'posterior_constant' else 0)
  for target in drift.TARGETS:
    drifted = Drift(delta, variant, target)

    def perfect(z_t, t, drifted=drifted):
      level_t = SCHEDULE.at(t)
      signal, noise = process.signal_and_noise(level_t, z_t)
      eps = (z_t - signal * z_0) / noise
      shift, _ = drift.training_noise(jnp.zeros_like(eps), t, 1000, drifted)
      to_predict = eps if drifted.target == 'shifted' else eps - shift
      return process.training_target(z_0, to_predict, level_t, prediction)

    found = run(perfect, z_T(), drifted, num_steps=5, prediction=prediction)
    np.testing.assert_allclose(found, expected, atol=5e-3, err_msg=target)


def test_random_offsets_are_one_a_channel_and_example_and_know_no_other_row():
  keys = jax.random.split(jax.random.key(5), 4000)
  eps, t = jnp.zeros((4000, 3, 2)), jnp.zeros(4000, int)
  offsets = Drift(0.5, random_std=0.2)
  shifted, to_predict = drift.training_noise(eps, t, 1000, offsets, keys)
  np.testing.assert_array_equal(shifted, to_predict)
  assert np.ptp(shifted, axis=1).max() == 0
  np.testing.assert_allclose(shifted[:, 0].mean(0), 0.5, atol=0.02)
  np.testing.assert_allclose(
    np.cov(np.asarray(shifted[:, 0]).T), 0.04 * np.eye(2), atol=0.004
  )
  alone, _ = drift.training_noise(eps[7:8], t[7:8], 1000, offsets, keys[7:8])
  np.testing.assert_array_equal(alone[0], shifted[7])
  # Sampling knows the mean alone.
  np.testing.assert_array_equal(
    run(smooth, z_T(), offsets), run(smooth, z_T(), Drift(0.5))
  )


def test_the_drifted_ancestral_mean_is_the_plain_mean_plus_the_remaining_drift():
  delta, z_t = 0.1, z_T()
  a_t, a_s = SCHEDULE.at(800), SCHEDULE.at(780)
  y_t = z_t - jnp.sqrt(1 - a_t) * delta
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


def gaussian(mean, std, delta, schedule=SD):
  """The best denoiser of N(mean, std^2) when the noise is N(delta, 1)."""

  def denoise(z_t, t):
    signal, noise = process.signal_and_noise(schedule.at(t), z_t)
    total = (signal * std) ** 2 + noise**2
    return delta + noise / total * (z_t - signal * mean - noise * delta)

  return denoise


@functools.partial(jax.jit, static_argnames=('solver', 'eta', 'num_steps'))
def moved(trained, delta, std, solver='ddim', eta=0.0, num_steps=50):
  """How far the mean of z_0 moves by a drift of sampling, or of both.

  The model is the best one of N(2, std^2) under noise N(trained, 1). Everything is
  linear, so that the same noise with and without drift gives the difference exactly.
  """
  key = jax.random.key(3)
  noise = solvers.initial_noise(key, (8, 2, 1))
  sample = lambda trained, delta: run(
    gaussian(2.0, std, trained),
    noise,
    delta,
    SD,
    num_steps,
    solver=solver,
    eta=eta,
    key=key,
  )
  return (sample(trained, Drift(delta)) - sample(0.0, None)).mean()


@pytest.mark.parametrize(
  'solver, eta', [*((name, 0.0) for name in solvers.SOLVERS), ('ddim', 0.6)]
)
def test_a_model_trained_with_a_drift_keeps_its_mean_whatever_the_solver(solver, eta):
  found = moved(0.2, 0.2, 1.0, solver=solver, eta=eta)
  np.testing.assert_allclose(found, 0, atol=1e-4)


def test_a_drift_of_sampling_alone_moves_the_mean_alike_under_every_ordinary_solver():
  # The flow of N(2, 1) carries what is added to z_T to z_0 unchanged.
  names = [name for name in solvers.SOLVERS if name != 'ddpm']
  found = [moved(0.0, 0.2, 1.0, solver=name, num_steps=100) for name in names]
  np.testing.assert_allclose(found, 0.2, atol=0.01)


def test_fresh_noise_makes_a_drift_of_sampling_half_pi_as_far_on_unit_latents():
  # E z_0 of the reverse equation: delta int_0^1 sqrt(x / (1 - x)) dx = delta pi / 2.
  found = moved(0.0, 0.2, 1.0, solver='ddpm', num_steps=1000)
  np.testing.assert_allclose(found, 0.2 * np.pi / 2, atol=0.02)


def test_the_mean_of_an_image_moves_by_ten_drifts_unless_training_had_them_too():
  # [Yeganeh25] Fig. 3. The mean is the direction of the constant image, along which
  # data are wide: of deviation 15 where the means of 64 x 64 latents differ by 0.23.
  # The flow multiplies by std / sqrt((signal_T std)^2 + noise_T^2).
  alpha_bar_T, std = float(SD.at(LAST)), 15.0
  gain = std / np.sqrt(alpha_bar_T * std**2 + 1 - alpha_bar_T)
  assert 9 < gain < 11
  for delta in (-0.2, 0.1, 0.2):
    np.testing.assert_allclose(moved(0.0, delta, std), gain * delta, rtol=0.1)
    np.testing.assert_allclose(moved(delta, delta, std), 0, atol=0.01)


def test_training_with_one_drift_and_sampling_with_another_moves_by_the_difference():
  found = moved(0.1, 0.2, 15.0)
  np.testing.assert_allclose(found, moved(0.0, 0.1, 15.0), rtol=1e-3)


@pytest.mark.parametrize('variant', drift.VARIANTS)
def test_drifted_sampling_undoes_drifted_inversion(variant):
  drifted, z_0 = Drift(0.2, variant), z_T()
  denoise = drift.centred(smooth, SCHEDULE, drifted)
  options = {'num_iterations': 12, 'shift': drift.step_shift(drifted)}
  z_start, _, _ = inversion.ddim_invert_path(denoise, z_0, SCHEDULE, 50, **options)
  back = solvers.sample(
    denoise, z_start, SCHEDULE, 50, after_step=drift.after_step(drifted)
  )
  np.testing.assert_allclose(back, z_0, atol=2e-3)
  exact, path, corrections = inversion.ddim_invert_path(
    denoise, z_0, SCHEDULE, 20, shift=drift.step_shift(drifted)
  )
  added = drift.after_step(drifted, lambda z_s, i: z_s + corrections[i])
  back = solvers.sample(denoise, exact, SCHEDULE, 20, after_step=added)
  np.testing.assert_allclose(back, z_0, atol=2e-4)
  np.testing.assert_array_equal(path[-1], z_0)


def test_a_drift_that_does_not_fit_is_refused():
  drift.check_drift(0.1, 4)
  drift.check_drift(None, 4)
  drift.check_drift(np.zeros(4), 4)
  with pytest.raises(ValueError, match='4 channels'):
    drift.check_drift(np.zeros(3), 4)
  with pytest.raises(ValueError, match='finite'):
    drift.check_drift(np.nan, 4)
  constant = Drift(0.1, 'posterior_constant')
  drift.check_drift(constant, 4, SCHEDULE, 'heun')
  with pytest.raises(ValueError, match=r"'unipc'.*|adapt\.drift\.variant"):
    drift.check_drift(constant, 4, SCHEDULE, 'unipc')
  with pytest.raises(ValueError, match=r"adapt\.drift\.variant.*'flow'"):
    drift.check_drift(constant, 4, FLOW)
  for options, named in (
    ({'variant': 'late'}, 'variant'),
    ({'target': 'half'}, 'target'),
    ({'random_std': -1.0}, 'random_std'),
    ({'random_std': 0.1, 'target': 'raw'}, 'random_std'),
  ):
    with pytest.raises(ValueError, match=rf'adapt\.drift\.{named}'):
      Drift(0.1, **options)
