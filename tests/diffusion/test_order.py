"""Order of convergence, measured on a Gaussian with the exact denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import drift, process, schedules, solvers

STD = 3.0
FLOW = schedules.schedule('flow', 960)


def log_uniform(first=6.0, last=-3.0, num_timesteps=961):
  """A schedule whose log(signal / noise) falls evenly, what multistep solvers like."""
  log_ratio = np.linspace(first, last, num_timesteps)
  alpha_bar = 1 / (1 + np.exp(-2 * log_ratio))
  betas = 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])
  return schedules.from_betas(betas).replace(
    alpha_bar=jnp.asarray(alpha_bar, 'float32')
  )


EVEN = log_uniform()


def coefficients(schedule, t):
  return process.signal_and_noise(schedule.at(t), jnp.zeros(()))


def exact(schedule, mean, prediction, delta=0.0):
  """The best denoiser of N(mean, STD^2) when the noise is N(delta, 1)."""

  def denoise(z_t, t):
    signal, noise = coefficients(schedule, t[0])
    total = (signal * STD) ** 2 + noise**2
    residual = z_t - signal * mean - noise * delta
    z_0_hat = mean + signal * STD**2 / total * residual
    eps_hat = delta + noise / total * residual
    return process.training_target(z_0_hat, eps_hat, schedule.at(t[0]), prediction)

  return denoise


def flow_to_clean(schedule, mean, z_t, t):
  """Where the probability flow of N(mean, STD^2) carries z_t, in closed form."""
  signal, noise = coefficients(schedule, t)
  return mean + STD * (z_t - signal * mean) / jnp.sqrt((signal * STD) ** 2 + noise**2)


def errors(schedule, prediction, counts, delta=0.0, **options):
  mean, z_T = np.array([1.5, -0.5]), jax.random.normal(jax.random.key(0), (32, 2))
  expected = flow_to_clean(schedule, mean, z_T, schedule.num_timesteps - 1)
  denoise = exact(schedule, mean, prediction, delta)
  denoise = drift.centred(denoise, schedule, delta, prediction)
  run = lambda n: solvers.sample(
    denoise, z_T, schedule, n, prediction=prediction, **options
  )
  return [float(jnp.sqrt(jnp.mean((run(n) - expected) ** 2))) for n in counts]


def slopes(found):
  return np.log2(np.divide(found[:-1], found[1:]))


@pytest.mark.parametrize(
  'solver, low, high',
  [('ddim', 0.9, 1.1), ('euler', 0.9, 1.1), ('heun', 1.9, 2.2), ('unipc', 1.8, 2.6)],
)
def test_on_the_straight_line_halved_steps_shrink_the_error_by_the_order(
  solver, low, high
):
  found = errors(FLOW, 'flow', (20, 40, 80), solver=solver, spacing='trailing')
  assert np.all((slopes(found) > low) & (slopes(found) < high)), found


@pytest.mark.parametrize(
  'solver, low, high',
  [
    ('ddim', 0.85, 1.15),
    ('heun', 1.8, 2.2),
    ('dpmpp_2m', 1.8, 2.3),
    ('unipc', 2.4, 3.6),
  ],
)
def test_on_even_log_ratios_halved_steps_shrink_the_error_by_the_order(
  solver, low, high
):
  found = errors(EVEN, 'epsilon', (21, 41, 81), solver=solver)
  assert np.all((slopes(found) > low) & (slopes(found) < high)), found


@pytest.mark.parametrize('delta', [0.3, np.array([0.4, -0.2])], ids=str)
@pytest.mark.parametrize(
  'solver, low, high',
  [
    ('ddim', 0.85, 1.15),
    ('heun', 1.8, 2.2),
    ('dpmpp_2m', 1.8, 2.3),
    ('unipc', 2.4, 3.6),
  ],
)
def test_a_drift_changes_neither_the_order_nor_the_error(solver, low, high, delta):
  found = errors(EVEN, 'epsilon', (21, 41, 81), delta, solver=solver)
  assert np.all((slopes(found) > low) & (slopes(found) < high)), found
  plain = errors(EVEN, 'epsilon', (41,), solver=solver)
  np.testing.assert_allclose(found[1], plain[0], rtol=0.05)


@pytest.mark.parametrize('name', ['flow', 'cosine', 'scaled_linear'])
@pytest.mark.parametrize('solver', ['heun', 'dpmpp_2m', 'unipc'])
def test_second_order_beats_first_order_at_the_same_calls(name, solver):
  schedule = schedules.schedule(name, 960, 1e-4, 2e-2)
  prediction = 'flow' if name == 'flow' else 'v'
  options = {'prediction': prediction, 'spacing': 'trailing'}
  steps = 20 if solver == 'heun' else 40
  ours = errors(schedule, counts=(steps,), solver=solver, **options)
  ddim = errors(schedule, counts=(40,), **options)
  assert ours[0] < 0.5 * ddim[0]


@pytest.mark.parametrize(
  'solver, eta', [*((solver, 0.0) for solver in solvers.SOLVERS), ('ddim', 0.7)]
)
@pytest.mark.parametrize('schedule', [FLOW, EVEN], ids=['flow', 'even'])
def test_every_solver_recovers_mean_and_variance_of_a_gaussian(schedule, solver, eta):
  mean, prediction = np.array([1.5, -0.5], np.float32), 'sample'
  key, last = jax.random.key(1), schedule.at(schedule.num_timesteps - 1)
  data = mean + STD * jax.random.normal(jax.random.key(2), (20_000, 2))
  z_T = process.add_noise(data, solvers.initial_noise(key, data.shape), last)
  steps = 40 if solver in ('heun', 'dpmpp_2m', 'unipc') else 192
  z_0 = solvers.sample(
    exact(schedule, mean, prediction),
    z_T,
    schedule,
    steps,
    key,
    solver=solver,
    eta=eta,
    prediction=prediction,
    spacing='trailing',
  )
  np.testing.assert_allclose(z_0.mean(0), mean, atol=0.1)
  np.testing.assert_allclose(z_0.std(0), STD, rtol=0.03)


@pytest.mark.parametrize('solver', solvers.SOLVERS)
@pytest.mark.parametrize('prediction', ['flow', 'sample'])
def test_a_drifted_flow_sampled_centred_is_the_plain_flow(solver, prediction):
  mean, delta = np.float32(2.0), 0.3
  z_T, key = jax.random.normal(jax.random.key(3), (8, 2)), jax.random.key(4)
  options = {'solver': solver, 'prediction': prediction}
  plain = solvers.sample(exact(FLOW, mean, prediction), z_T, FLOW, 12, key, **options)
  drifted = exact(FLOW, mean, prediction, delta)
  centred = drift.centred(drifted, FLOW, delta, prediction)
  ours = solvers.sample(centred, z_T, FLOW, 12, key, **options)
  np.testing.assert_allclose(ours, plain, atol=1e-4)
  assert drift.centred(drifted, FLOW, 0.0, prediction) is drifted
