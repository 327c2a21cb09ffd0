"""Reverse-time solvers: one step each, and one compiled scan over a grid of times.

A denoiser is `denoise(z_t, t) -> output`, z_t (b, ..., c), t int32 (b,), output the
noise unless `prediction` says otherwise. [Ho20] arXiv 2006.11239, [Song21] arXiv
2010.02502, [Lin24] arXiv 2305.08891 (spacings of the grid).
"""

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.diffusion import process

SOLVERS = ('ddim', 'ddpm')
SPACINGS = ('linspace', 'leading', 'trailing', 'monai')


def time_grid(num_timesteps, num_steps, spacing='linspace'):
  """Returns the num_steps decreasing integer times a run visits, int32 (num_steps,).

  `linspace` runs from T-1 to 0, `leading` in strides of T // num_steps down to 0,
  `trailing` from T-1 in strides of T / num_steps ([Lin24] Table 2); `monai` is
  `linspace`.

  Raises:
    ValueError: fewer than 1 or more than num_timesteps steps, or unknown spacing.
  """
  if not 1 <= num_steps <= num_timesteps:
    raise ValueError(
      f'{num_steps} sampling steps do not fit a schedule of {num_timesteps} times; '
      f'set num_steps between 1 and {num_timesteps}.'
    )
  if spacing not in SPACINGS:
    raise ValueError(f'Unknown spacing {spacing!r}; use one of {list(SPACINGS)}.')
  if spacing == 'leading':
    times = np.arange(num_steps) * (num_timesteps // num_steps)
  elif spacing == 'trailing':
    ends = np.arange(1, num_steps + 1) * num_timesteps / num_steps
    times = np.round(ends) - 1
  elif num_steps == 1:
    times = np.array([num_timesteps - 1])
  else:
    times = np.round(np.linspace(0, num_timesteps - 1, num_steps))
  return times[::-1].astype(np.int32)


def time_pairs(num_timesteps, num_steps, spacing='linspace'):
  """Returns (t, s), each int32 (num_steps,): step i goes from t[i] to s[i] < t[i].

  s is the next time of the grid and -1 (clean) at the end. `monai` reproduces
  MONAI 1.6: its grid is `linspace`, yet its step subtracts T // num_steps.
  """
  t = time_grid(num_timesteps, num_steps, spacing)
  if spacing == 'monai':
    return t, np.maximum(t - num_timesteps // num_steps, -1).astype(np.int32)
  return t, np.append(t[1:], -1).astype(np.int32)


def ddim_step(z_t, eps_hat, alpha_bar_t, alpha_bar_s, eta=0.0, noise=None):
  """Moves latents (b, ..., c) from time t to s < t. [Song21] Eq. 12.

  eta scales the fresh noise: 0 is deterministic, 1 is the ancestral DDPM step.
  """
  z_0_hat = process.to_z_0(eps_hat, z_t, alpha_bar_t)
  return ddim_move(z_0_hat, eps_hat, alpha_bar_t, alpha_bar_s, eta, noise)


def ddim_move(z_0_hat, eps_hat, alpha_bar_t, alpha_bar_s, eta=0.0, noise=None):
  """`ddim_step` from the predicted pair; defined also where alpha_bar_t = 0."""
  a_t = process.expand_like(alpha_bar_t, eps_hat)
  a_s = process.expand_like(alpha_bar_s, eps_hat)
  if noise is None:
    return jnp.sqrt(a_s) * z_0_hat + jnp.sqrt(1 - a_s) * eps_hat
  variance = eta**2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
  along = jnp.sqrt(jnp.maximum(1 - a_s - variance, 0))
  return jnp.sqrt(a_s) * z_0_hat + along * eps_hat + jnp.sqrt(variance) * noise


def ddpm_step(z_t, eps_hat, alpha_bar_t, alpha_bar_s, noise):
  """Draws z_s from the posterior of any s < t. [Ho20] Algorithm 2, respaced."""
  z_0_hat = process.to_z_0(eps_hat, z_t, alpha_bar_t)
  return ddpm_move(z_0_hat, z_t, alpha_bar_t, alpha_bar_s, noise)


def ddpm_move(z_0_hat, z_t, alpha_bar_t, alpha_bar_s, noise):
  """`ddpm_step` from the predicted clean latent."""
  mean, variance = process.posterior(z_0_hat, z_t, alpha_bar_t, alpha_bar_s)
  return mean + jnp.sqrt(variance) * noise


def sample(
  denoise,
  z_T,
  schedule,
  num_steps,
  key=None,
  *,
  solver='ddim',
  eta=0.0,
  prediction='epsilon',
  spacing='linspace',
  clip_z_0=None,
  after_step=None,
):
  """Runs the reverse process from z_T (b, ..., c) to z_0 in one `lax.scan`.

  Args:
    denoise: (z_t, t) -> output of the kind `prediction`.
    z_T: latents at the first time of the grid.
    schedule: a `schedules.Schedule`.
    num_steps: static number of denoiser calls.
    key: one key, from which each row of the batch gets its own, or keys (b,). Needed
      by `ddpm` and by `ddim` with eta > 0. A row's noise depends on its key and the
      step alone, so neither batch nor devices change a sample.
    solver: 'ddim' or 'ddpm'.
    eta: static share of fresh noise in `ddim`.
    prediction: what the denoiser returns, one of `process.PREDICTIONS`.
    spacing: see `time_grid`.
    clip_z_0: bound on the predicted clean latent; None (default) leaves it alone.
    after_step: (z_s, i) -> z_s, applied after step i (masks, corrections, shifts).

  Raises:
    ValueError: unknown solver, prediction or spacing; a stochastic run without key.
  """
  process.check_prediction(prediction)
  if solver not in SOLVERS:
    raise ValueError(f'Unknown solver {solver!r}; use one of {list(SOLVERS)}.')
  stochastic = solver == 'ddpm' or eta > 0
  if stochastic and key is None:
    raise ValueError(f'Solver {solver!r} with eta {eta} draws noise; pass a key.')
  keys = example_keys(key, z_T.shape[0]) if stochastic else None
  pairs = time_pairs(schedule.num_timesteps, num_steps, spacing)

  def step(z_t, inputs):
    i, t, s = inputs
    a_t, a_s = schedule.at(t), schedule.at(s)
    output = denoise(z_t, jnp.full(z_t.shape[:1], t))
    z_0_hat, eps_hat = process.to_pair(output, z_t, a_t, prediction)
    if clip_z_0 is not None:
      z_0_hat = jnp.clip(z_0_hat, -clip_z_0, clip_z_0)
      eps_hat = process.to_epsilon(z_0_hat, z_t, a_t, 'sample')
    noise = step_noise(keys, i, z_t) if stochastic else None
    if solver == 'ddpm':
      z_s = ddpm_move(z_0_hat, z_t, a_t, a_s, noise)
    else:
      z_s = ddim_move(z_0_hat, eps_hat, a_t, a_s, eta, noise)
    return (z_s if after_step is None else after_step(z_s, i)), None

  z_0, _ = jax.lax.scan(step, z_T, (jnp.arange(num_steps), *map(jnp.asarray, pairs)))
  return z_0


def example_keys(key, num_examples):
  """Returns keys (b,): one key folded with each row's number, or keys passed on."""
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.wrap_key_data(key)
  if key.ndim:
    if key.shape != (num_examples,):
      raise ValueError(f'{key.shape} keys for {num_examples} examples; pass one each.')
    return key
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(num_examples))


def initial_noise(key, shape, dtype=jnp.float32):
  """Draws z_T of shape (b, ..., c), each row from its own key (see `sample`)."""
  keys = jax.vmap(lambda k: jax.random.fold_in(k, 0))(example_keys(key, shape[0]))
  return jax.vmap(lambda k: jax.random.normal(k, shape[1:], dtype))(keys)


def step_noise(keys, i, z):
  """Draws the noise of step i for z (b, ..., c); stream 0 is `initial_noise`."""
  keys = jax.vmap(lambda k: jax.random.fold_in(k, i + 1))(keys)
  return jax.vmap(lambda k: jax.random.normal(k, z.shape[1:], z.dtype))(keys)
