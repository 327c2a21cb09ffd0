"""Laws of the solvers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import process, schedules, solvers

SCHEDULE = schedules.schedule('scaled_linear', 1000)
SHORT = schedules.schedule('linear', 150, 1e-4, 7e-2)


def smooth(z_t, t):
  """A denoiser that mixes nothing across the batch."""
  return jnp.tanh(z_t) * 0.5 + 0.1 * jnp.sin(t / 50.0)[:, None]


def draw(shape=(3, 2), seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def test_the_linspace_grid_equals_the_reference_grid(golden):
  times = json.loads((golden / 'schedulers.json').read_text())
  np.testing.assert_array_equal(
    solvers.time_grid(1000, 50), times['timesteps_DDIMScheduler_50']
  )


@pytest.mark.parametrize('spacing', solvers.SPACINGS)
@pytest.mark.parametrize('num_timesteps, num_steps', [(150, 150), (1000, 30), (7, 1)])
def test_every_grid_decreases_stays_in_range_and_ends_clean(
  spacing, num_timesteps, num_steps
):
  t, s = solvers.time_pairs(num_timesteps, num_steps, spacing)
  assert t.shape == s.shape == (num_steps,)
  assert np.all(np.diff(t) < 0) and np.all(s < t)
  assert t[0] < num_timesteps and t[-1] >= 0 and s[-1] == -1
  if spacing != 'monai':
    np.testing.assert_array_equal(s[:-1], t[1:])


def test_ddim_step_with_the_true_noise_stays_on_the_forward_path():
  z_0, eps = draw(), draw(seed=1)
  a_t, a_s = SCHEDULE.at(jnp.array([900, 500, 3])), SCHEDULE.at(jnp.array([700, 0, -1]))
  z_t = process.add_noise(z_0, eps, a_t)
  expected = process.add_noise(z_0, eps, a_s)
  np.testing.assert_allclose(solvers.ddim_step(z_t, eps, a_t, a_s), expected, atol=1e-5)


def test_ddim_with_eta_one_is_the_ancestral_step():
  z_t, eps, noise = draw(), draw(seed=1), draw(seed=2)
  a_t, a_s = SCHEDULE.at(700), SCHEDULE.at(600)
  ancestral = solvers.ddpm_step(z_t, eps, a_t, a_s, noise)
  ddim = solvers.ddim_step(z_t, eps, a_t, a_s, 1.0, noise)
  np.testing.assert_allclose(ddim, ancestral, atol=2e-5)


@pytest.mark.parametrize('prediction', ['epsilon', 'sample', 'v_prediction'])
@pytest.mark.parametrize('to_one', [1, 0])
@pytest.mark.parametrize('loop', ['test_loop', 'sampling_loop'])
def test_ddim_loops_equal_the_reference_loops(golden, prediction, to_one, loop):
  data = np.load(golden / 'schedulers.npz')
  output, z = data['loop/model_output'], data['loop/sample']
  ours = schedules.schedule('scaled_linear', 1000, 1.5e-3, 1.95e-2)
  last = 1.0 if to_one else ours.alpha_bar[0]
  kind = {'v_prediction': 'v'}.get(prediction, prediction)
  times = range(50) if loop == 'test_loop' else solvers.time_pairs(1000, 50, 'monai')[0]
  for t in times:
    a_t, a_s = ours.at(t), ours.at(t - 20) if t >= 20 else last
    eps_hat = process.to_epsilon(output, z, a_t, kind)
    z = solvers.ddim_step(z, eps_hat, a_t, a_s)
  expected = data[f'loop/ddim_{prediction}_clip0_a1{to_one}/{loop}']
  np.testing.assert_allclose(z, expected, rtol=2e-4, atol=2e-4)


def test_a_whole_run_on_the_reference_grid_equals_the_reference_run(golden):
  data = np.load(golden / 'schedulers.npz')
  output, z = data['loop/model_output'], jnp.asarray(data['loop/sample'])
  ours = schedules.schedule('scaled_linear', 1000, 1.5e-3, 1.95e-2)
  z_0 = solvers.sample(
    lambda z_t, t: output, z, ours, 50, prediction='v', spacing='monai'
  )
  expected = data['loop/ddim_v_prediction_clip0_a11/sampling_loop']
  np.testing.assert_allclose(z_0, expected, atol=1e-4)


def test_the_ancestral_loop_equals_the_reference_loop(golden):
  data = np.load(golden / 'schedulers.npz')
  output, z = data['loop/model_output'], data['loop/sample']
  ours = schedules.schedule('linear', 1000)
  for t, noise in enumerate(data['loop/ddpm/noises']):
    a_t, a_s = ours.at(t), ours.at(t - 1)
    z_0_hat = jnp.clip(process.to_z_0(output, z, a_t), -1, 1)
    z = solvers.ddpm_move(z_0_hat, z, a_t, a_s, noise)
  np.testing.assert_allclose(z, data['loop/ddpm/test_loop'], atol=1e-3)


@pytest.mark.parametrize(
  'options',
  [
    {'solver': 'ddim', 'num_steps': 150},
    {'solver': 'ddim', 'num_steps': 150, 'eta': 0.7},
    {'solver': 'ddpm', 'num_steps': 150},
    {'solver': 'ddpm', 'num_steps': 75, 'spacing': 'trailing'},
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


def test_more_ddim_steps_come_closer_to_the_exact_flow_by_first_order(gaussian):
  # A schedule that leaves 1e-3 of the signal, and a wide Gaussian: the flow of the
  # probability ODE is linear and known in closed form.
  mean, covariance = np.zeros(2), 9 * np.eye(2)
  denoise = gaussian.denoiser(SCHEDULE, mean, covariance)
  z_T = draw((5, 2), 6)
  scale = np.sqrt(8 * SCHEDULE.alpha_bar[-1] + 1)
  errors = [
    np.abs(solvers.sample(denoise, z_T, SCHEDULE, n) - 3 * z_T / scale).max()
    for n in (10, 20, 40)
  ]
  assert errors[0] > 1.6 * errors[1] > 2.56 * errors[2]


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


@pytest.mark.parametrize('solver, eta', [('ddpm', 0.0), ('ddim', 0.5)])
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
    ({'solver': 'heun'}, 'ddim'),
    ({'solver': 'ddpm'}, 'key'),
    ({'spacing': 'log'}, 'trailing'),
    ({'prediction': 'score'}, 'epsilon'),
    ({'eta': 1.0, 'key': jax.random.split(jax.random.key(0), 2)}, '3 examples'),
  ],
)
def test_an_impossible_run_is_refused(options, words):
  with pytest.raises(ValueError, match=words):
    solvers.sample(smooth, draw(), SHORT, **{'num_steps': 5, **options})
