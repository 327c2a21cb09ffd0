"""Laws of the solvers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import process, schedules, solvers

SCHEDULE = schedules.schedule('scaled_linear', 1000)
SHORT = schedules.schedule('linear', 150, 1e-4, 7e-2)
FLOW = schedules.schedule('flow', 150)
SILENT = schedules.schedule('linear', 150, 1e-4, 7e-2, zero_terminal_snr=True)
HIGHER = ('heun', 'dpmpp_2m', 'unipc')


def smooth(z_t, t):
  """A denoiser that mixes nothing across the batch."""
  return jnp.tanh(z_t) * 0.5 + 0.1 * jnp.sin(t / 50.0)[:, None]


def draw(shape=(3, 2), seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def test_ddim_step_with_the_true_noise_stays_on_the_forward_path():
  z_0, eps = draw(), draw(seed=1)
  a_t, a_s = SCHEDULE.at(jnp.array([900, 500, 3])), SCHEDULE.at(jnp.array([700, 0, -1]))
  z_t = process.add_noise(z_0, eps, a_t)
  expected = process.add_noise(z_0, eps, a_s)
  z_0_hat = process.to_z_0(eps, z_t, a_t)
  z_s = solvers.ddim_move(z_0_hat, eps, a_t, a_s)
  np.testing.assert_allclose(z_s, expected, atol=1e-5)


def test_ddim_with_eta_one_is_the_ancestral_step():
  z_t, eps, noise = draw(), draw(seed=1), draw(seed=2)
  a_t, a_s = SCHEDULE.at(700), SCHEDULE.at(600)
  z_0_hat = process.to_z_0(eps, z_t, a_t)
  ancestral = solvers.ddpm_move(z_0_hat, z_t, a_t, a_s, noise)
  ddim = solvers.ddim_move(z_0_hat, eps, a_t, a_s, 1.0, noise)
  np.testing.assert_allclose(ddim, ancestral, atol=2e-5)


@pytest.mark.parametrize(
  'options',
  [
    {'solver': 'ddim', 'num_steps': 150},
    {'solver': 'ddim', 'num_steps': 150, 'eta': 0.7},
    {'solver': 'ddpm', 'num_steps': 150},
    {'solver': 'ddpm', 'num_steps': 75, 'spacing': 'trailing'},
    {'solver': 'heun', 'num_steps': 30},
    {'solver': 'dpmpp_2m', 'num_steps': 30},
    {'solver': 'unipc', 'num_steps': 30},
  ],
  ids=str,
)
def test_the_exact_gaussian_denoiser_recovers_mean_and_covariance(options, gaussian):
  # Diffused data, not pure noise: a schedule of 150 times keeps 7 % of the signal.
  data = jax.random.multivariate_normal(
    jax.random.key(2), gaussian.MEAN, gaussian.COVARIANCE, (20_000,)
  )
  z_T = process.add_noise(data, draw((20_000, 2), 3), SHORT.at(149))
  run = jax.jit(
    lambda z, key: solvers.sample(
      gaussian.denoiser(SHORT), z, SHORT, key=key, **options
    )
  )
  z_0 = np.asarray(run(z_T, jax.random.key(4)))
  np.testing.assert_allclose(z_0.mean(0), gaussian.MEAN, atol=0.03)
  np.testing.assert_allclose(np.cov(z_0.T), gaussian.COVARIANCE, atol=0.08)


def test_predicting_v_or_the_latent_or_the_noise_gives_the_same_sample():
  z_T = draw()

  def denoise_as(prediction):
    def denoise(z_t, t):
      a_t, eps_hat = SHORT.at(t), smooth(z_t, t)
      z_0_hat = process.to_z_0(eps_hat, z_t, a_t)
      return process.training_target(z_0_hat, eps_hat, a_t, prediction)

    return denoise

  runs = [
    solvers.sample(denoise_as(p), z_T, SHORT, 30, prediction=p)
    for p in process.PREDICTIONS
  ]
  np.testing.assert_allclose(runs[1], runs[0], atol=1e-3)
  np.testing.assert_allclose(runs[2], runs[0], atol=1e-3)


def test_euler_is_ddim_and_on_the_straight_line_the_step_along_the_velocity():
  z_T = draw()
  for schedule, prediction in ((SHORT, 'epsilon'), (FLOW, 'flow')):
    runs = [
      solvers.sample(smooth, z_T, schedule, 10, prediction=prediction, solver=solver)
      for solver in ('ddim', 'euler')
    ]
    np.testing.assert_array_equal(*runs)
  z_t = z_T
  times = 1 - np.arange(11) / 10
  for t, s in itertools.pairwise(times):
    z_t = z_t + (s - t) * smooth(z_t, jnp.full(3, round(150 * t) - 1))
  ours = solvers.sample(smooth, z_T, FLOW, 10, prediction='flow', spacing='trailing')
  np.testing.assert_allclose(ours, z_t, atol=1e-5)


@pytest.mark.parametrize('solver', HIGHER)
def test_a_constant_pair_is_followed_exactly_by_every_solver(solver):
  # The flow of a single latent is a straight line in (signal, noise).
  z_0, eps = draw(), draw(seed=1)
  for schedule in (SHORT, FLOW, SILENT):
    z_T = process.add_noise(z_0, eps, schedule.at(149))
    ours = solvers.sample(
      lambda z_t, t: z_0, z_T, schedule, 7, prediction='sample', solver=solver
    )
    np.testing.assert_allclose(ours, z_0, atol=1e-5)


@pytest.mark.parametrize('solver', solvers.SOLVERS)
@pytest.mark.parametrize('num_steps', [1, 2, 9])
def test_v_sampling_from_zero_terminal_snr_is_finite_and_steps_off_the_noise(
  solver, num_steps
):
  options = {'prediction': 'v', 'solver': solver, 'spacing': 'trailing'}
  z_0 = solvers.sample(smooth, draw(), SILENT, num_steps, jax.random.key(0), **options)
  assert np.all(np.isfinite(z_0))
  if num_steps == 1 and solver != 'ddpm':
    np.testing.assert_allclose(z_0, -smooth(draw(), jnp.full(3, 149)), atol=1e-6)


@pytest.mark.parametrize('solver', HIGHER)
def test_a_run_of_higher_order_is_one_scan_with_one_denoiser_in_it(solver):
  seen = []

  def denoise(z_t, t):
    seen.append(z_t.shape)
    return smooth(z_t, t)

  run = lambda z: solvers.sample(denoise, z, SHORT, 25, solver=solver)
  assert str(jax.make_jaxpr(run)(draw())).count('scan[') == 1
  assert seen == [(3, 2)]


@pytest.mark.parametrize('solver', ['ddim', 'heun'])
def test_after_step_is_applied_once_where_each_step_arrives(solver):
  add = lambda z, i: z + jnp.float32(10.0) ** -i
  still = lambda z_t, t: jnp.zeros_like(z_t)
  options = {'prediction': 'flow', 'solver': solver, 'after_step': add}
  moved = solvers.sample(still, draw(), FLOW, 4, **options)
  np.testing.assert_allclose(moved, draw() + 1.111, atol=1e-5)


@pytest.mark.parametrize(
  'solver, eta', [('ddpm', 0.0), ('ddim', 0.5), *((name, 0.0) for name in HIGHER)]
)
def test_a_sample_does_not_depend_on_its_batch(solver, eta):
  keys = solvers.example_keys(jax.random.key(0), 4)
  other = solvers.example_keys(jax.random.key(9), 4)

  @jax.jit
  def run(keys):
    z_T = solvers.initial_noise(keys, (4, 3))
    return solvers.sample(smooth, z_T, SHORT, 10, keys, solver=solver, eta=eta)

  together = run(keys)
  moved = run(jnp.concatenate([other[:2], keys[:1], other[3:]]))
  np.testing.assert_array_equal(moved[2], together[0])
  assert np.all(np.abs(together[0] - together[1]) > 0)


def test_one_key_means_one_stream_per_row():
  key = jax.random.key(5)
  rows = solvers.example_keys(key, 3)
  np.testing.assert_array_equal(
    solvers.initial_noise(key, (3, 7)), solvers.initial_noise(rows, (3, 7))
  )
  legacy = solvers.example_keys(jax.random.PRNGKey(5), 3)
  np.testing.assert_array_equal(jax.random.key_data(legacy), jax.random.key_data(rows))


def test_clipping_bounds_the_predicted_latent_and_leaves_small_ones_alone():
  z_T = draw()
  plain = solvers.sample(smooth, z_T, SHORT, 20)
  loose = solvers.sample(smooth, z_T, SHORT, 20, clip_z_0=1e4)
  tight = solvers.sample(smooth, z_T, SHORT, 20, clip_z_0=0.1)
  np.testing.assert_allclose(loose, plain, atol=1e-2)
  assert np.abs(tight).max() <= 0.1 + 1e-6


def test_a_run_is_one_scan_and_compiles_once():
  calls = []

  @jax.jit
  def run(z_T):
    calls.append(1)
    return solvers.sample(smooth, z_T, SHORT, 25)

  for seed in range(3):
    run(draw(seed=seed))
  assert len(calls) == 1
  assert str(jax.make_jaxpr(run)(draw())).count('scan[') == 1


@pytest.mark.parametrize(
  'options, words',
  [
    ({'num_steps': 151}, '150'),
    ({'num_steps': 0}, 'between 1'),
    ({'solver': 'rk4'}, 'ddim'),
    ({'solver': 'ddpm'}, 'key'),
    ({'solver': 'heun', 'eta': 0.5}, 'sample.eta'),
    ({'solver': 'unipc', 'after_step': lambda z, i: z}, 'dpmpp_2m'),
    ({'spacing': 'log'}, 'trailing'),
    ({'prediction': 'score'}, 'epsilon'),
    ({'eta': 1.0, 'key': jax.random.split(jax.random.key(0), 2)}, '3 examples'),
  ],
)
def test_an_impossible_run_is_refused(options, words):
  with pytest.raises(ValueError, match=words):
    solvers.sample(smooth, draw(), SHORT, **{'num_steps': 5, **options})
