"""Reverse-time solvers: one step each, and one compiled scan over a grid of times.

A denoiser is `denoise(z_t, t) -> output`, z_t (b, ..., c), t int32 (b,); the output is
the noise or what `prediction` names. [Ho20] arXiv 2006.11239, [Song21] arXiv
2010.02502; the solvers of higher order are in `heun` and `multistep`.

Choosing one: `ddim` (= `euler`) is of first order and the only one with an inversion;
`dpmpp_2m` and `unipc` are of second order with one call per step, made for networks
that lose accuracy where little noise is left; `heun` needs two calls per step and is
the usual choice for `flow`. `ddpm` draws noise at every step, `ddim` only if eta > 0.
"""

import jax
import jax.numpy as jnp

from ldm_jax import prng
from ldm_jax.diffusion import grid, heun, multistep, process
from ldm_jax.diffusion.process import AfterStep, AnyLevel, Denoiser
from ldm_jax.diffusion.schedules import AnySchedule
from ldm_jax.types import Array, Shape

SOLVERS = ('ddim', 'ddpm', 'euler', 'heun', 'dpmpp_2m', 'unipc')


def ddim_move(
  z_0_hat: Array,
  eps_hat: Array,
  level_t: AnyLevel,
  level_s: AnyLevel,
  eta: float = 0.0,
  noise: Array | None = None,
  added: Array | None = None,
) -> jax.Array:
  """Moves latents (b, ..., c) from time t to s < t. [Song21] Eq. 12.

  Computed from the predicted pair, so it is defined also where no signal is left. With
  eta 0 it is Euler's step of the probability flow in the coordinates (signal, noise):
  on the straight line of `flow`, z_t + (s - t) velocity.

  Args:
    z_0_hat, eps_hat: the predicted clean latent and noise.
    level_t, level_s: at both times.
    eta: scale of the fresh noise: 0 is deterministic, 1 the ancestral DDPM step.
    noise: standard noise (b, ..., c), None for eta 0.
    added: as in `process.posterior`.
  """
  if noise is None:
    return process.add_noise(z_0_hat, eps_hat, level_s)
  signal_s, noise_s = process.signal_and_noise(level_s, eps_hat)
  variance = eta**2 * process.posterior_variance(eps_hat, level_t, level_s, added)
  along = jnp.sqrt(jnp.maximum(noise_s**2 - variance, 0))
  return signal_s * z_0_hat + along * eps_hat + jnp.sqrt(variance) * noise


def ddpm_move(
  z_0_hat: Array,
  z_t: Array,
  level_t: AnyLevel,
  level_s: AnyLevel,
  noise: Array,
  added: Array | None = None,
) -> jax.Array:
  """Draws z_s from the posterior of any s < t. [Ho20] Algorithm 2, respaced.

  Arguments as in `ddim_move`.
  """
  mean, variance = process.posterior(z_0_hat, z_t, level_t, level_s, added)
  return mean + jnp.sqrt(variance) * noise


def sample(
  denoise: Denoiser,
  z_T: jax.Array,
  schedule: AnySchedule,
  num_steps: int,
  key: jax.Array | None = None,
  *,
  solver: str = 'ddim',
  eta: float = 0.0,
  prediction: str = 'epsilon',
  spacing: str = 'linspace',
  clip_z_0: float | None = None,
  clip_noise: bool = True,
  after_step: AfterStep | None = None,
  first_step: int = 0,
) -> jax.Array:
  """Runs the reverse process from z_T (b, ..., c) to z_0 in one `lax.scan`.

  Intermediate latents are not stored.

  Args:
    denoise: (z_t, t) -> output of the kind `prediction`.
    z_T: latents at the first time of the grid.
    schedule: a `schedules.Schedule` or `schedules.FlowSchedule`.
    num_steps: static number of steps, each one denoiser call; `heun` makes two calls
      in all steps but the last.
    key: one key, from which each row of the batch gets its own, or keys (b,). Needed
      by `ddpm` and by `ddim` with eta > 0. A row's noise depends only on its key and
      the step, so a sample does not depend on the batch or the devices.
    solver: one of SOLVERS, see the module.
    eta: static scale of the fresh noise, of `ddim` only.
    prediction: what the denoiser returns, one of `process.PREDICTIONS`.
    spacing: see `grid.time_grid`.
    clip_z_0: bound on the predicted clean latent; None (default) for no bound.
    clip_noise: whether the predicted noise is computed again from the clipped latent,
      so that the pair is consistent with z_t; MONAI and diffusers do not (False).
    after_step: (z_s, i) -> z_s, applied after step i (masks, corrections, shifts).
    first_step: number of steps skipped at the noisy end; z_T is then at the time where
      the first remaining step begins, which has i = 0.

  Returns:
    z_0 (b, ..., c).

  Raises:
    ValueError: unknown solver, prediction or spacing; a prediction that the schedule
      does not define; a stochastic run without key; eta or after_step with a solver
      that does not support it.
  """
  process.check_prediction(prediction, schedule)
  stochastic = check_solver(solver, eta)
  if stochastic and key is None:
    raise ValueError(
      f'The solver {solver!r} with eta={eta} draws noise, but key is None; pass a key.'
    )
  if after_step is not None and solver == 'unipc':
    raise ValueError(
      "The solver 'unipc' corrects each step after the next call and would undo "
      "after_step; use 'dpmpp_2m'."
    )
  keys = None
  if stochastic and key is not None:
    keys = example_keys(key, z_T.shape[0])
  pairs = grid.time_pairs(schedule.num_timesteps, num_steps, spacing)
  t, s = grid.leave_out(pairs, first_step)
  calls = grid.calls(t, s, twice=solver == 'heun')

  def predict(z, at):
    output, level = denoise(z, jnp.full(z.shape[:1], at)), schedule.at(at)
    z_0_hat, eps_hat = process.to_pair(output, z, level, prediction)
    if clip_z_0 is not None:
      z_0_hat = jnp.clip(z_0_hat, -clip_z_0, clip_z_0)
      if clip_noise:
        eps_hat = process.to_epsilon(z_0_hat, z, level, 'sample')
    return z_0_hat, eps_hat

  def step(carry, call):
    z, memory = carry
    level_t, level_s = schedule.at(call.t), schedule.at(call.s)
    z_0_hat, eps_hat = predict(z, call.at)
    noise = step_noise(keys, call.i, z) if stochastic else None
    added = schedule.between(call.t, call.s) if stochastic else None
    if solver == 'ddpm':
      z_s = ddpm_move(z_0_hat, z, level_t, level_s, noise, added)
    elif solver in ('ddim', 'euler'):
      z_s = ddim_move(z_0_hat, eps_hat, level_t, level_s, eta, noise, added)
    elif solver == 'heun':
      z_s, memory = heun.move(
        memory, z, z_0_hat, eps_hat, level_t, level_s, call.corrects
      )
    else:
      levels = *map(schedule.at, (call.before_2, call.before)), level_t, level_s
      move = multistep.dpmpp_2m if solver == 'dpmpp_2m' else multistep.unipc
      z_s, memory = move(memory, z, z_0_hat, levels, call.i)
    if after_step is not None:
      z_s = jnp.where(call.arrives, after_step(z_s, call.i), z_s)
    return (z_s, memory), None

  memory = {'heun': heun.start, 'dpmpp_2m': multistep.start, 'unipc': multistep.start}
  start = z_T, memory[solver](z_T) if solver in memory else ()
  (z_0, _), _ = jax.lax.scan(step, start, calls)
  return z_0


def check_solver(solver: str, eta: float = 0.0) -> bool:
  """Returns whether a run draws noise.

  Raises:
    ValueError: a solver not in SOLVERS, a negative eta, or eta > 0 with another solver
      than 'ddim' and 'ddpm'.
  """
  if solver not in SOLVERS:
    raise ValueError(
      f'The solver is {solver!r}, expected one of {list(SOLVERS)}; set sample.solver.'
    )
  if eta < 0 or (eta > 0 and solver not in ('ddim', 'ddpm')):
    raise ValueError(
      f"eta is {eta} with the solver {solver!r}; expected eta >= 0 for 'ddim' and "
      "eta = 0 for all others. Set sample.eta=0 or sample.solver='ddim'."
    )
  return solver == 'ddpm' or eta > 0


def example_keys(key: jax.Array, num_examples: int) -> jax.Array:
  """Returns keys (b,): one key folded with each row's number; keys (b,) as they are.

  Raises:
    ValueError: keys of another number than num_examples.
  """
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = prng.threefry(key)
  if key.ndim:
    if key.shape != (num_examples,):
      raise ValueError(
        f'Expected one key, or keys ({num_examples},) for {num_examples} examples, got '
        f'keys {key.shape}; pass one per example.'
      )
    return key
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(num_examples))


def initial_noise(
  key: jax.Array, shape: Shape, dtype: jnp.dtype = jnp.float32
) -> jax.Array:
  """Draws z_T of shape (b, ..., c), each row from its own key (see `sample`)."""
  keys = jax.vmap(lambda k: jax.random.fold_in(k, 0))(example_keys(key, shape[0]))
  return jax.vmap(lambda k: jax.random.normal(k, shape[1:], dtype))(keys)


def step_noise(keys: jax.Array, i: Array, z: jax.Array) -> jax.Array:
  """Draws the noise of step i for z (b, ..., c); stream 0 is `initial_noise`."""
  keys = jax.vmap(lambda k: jax.random.fold_in(k, i + 1))(keys)
  return jax.vmap(lambda k: jax.random.normal(k, z.shape[1:], z.dtype))(keys)
