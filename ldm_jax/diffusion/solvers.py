"""Reverse-time solvers: one step each, and one compiled scan over a grid of times.

A denoiser is `denoise(z_t, t) -> output`, z_t (b, ..., c), t int32 (b,), output the
noise unless `prediction` says otherwise. [Ho20] arXiv 2006.11239, [Song21] arXiv
2010.02502; `heun` and `multistep` hold the solvers of higher order.

Which one: `ddim` (= `euler`) is of first order and the one that inverts; `dpmpp_2m`
and `unipc` reach second order at one call a step and are made for networks that lose
accuracy where little noise is left; `heun` takes two calls a step and is the plain
choice for `flow`. `ddpm` is the only one that draws noise without being asked.
"""

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import grid, heun, multistep, process

SOLVERS = ('ddim', 'ddpm', 'euler', 'heun', 'dpmpp_2m', 'unipc')


def ddim_step(z_t, eps_hat, level_t, level_s, eta=0.0, noise=None, added=None):
  """Moves latents (b, ..., c) from time t to s < t. [Song21] Eq. 12.

  eta scales the fresh noise: 0 is deterministic, 1 is the ancestral DDPM step.
  """
  z_0_hat = process.to_z_0(eps_hat, z_t, level_t)
  return ddim_move(z_0_hat, eps_hat, level_t, level_s, eta, noise, added)


def ddim_move(z_0_hat, eps_hat, level_t, level_s, eta=0.0, noise=None, added=None):
  """`ddim_step` from the predicted pair; defined also where no signal is left.

  With eta 0 it is Euler's step of the probability flow in the coordinates (signal,
  noise): on the straight line of `flow`, z_t + (s - t) velocity.
  """
  if noise is None:
    return process.add_noise(z_0_hat, eps_hat, level_s)
  signal_s, noise_s = process.signal_and_noise(level_s, eps_hat)
  variance = eta**2 * process.posterior_variance(eps_hat, level_t, level_s, added)
  along = jnp.sqrt(jnp.maximum(noise_s**2 - variance, 0))
  return signal_s * z_0_hat + along * eps_hat + jnp.sqrt(variance) * noise


def ddpm_step(z_t, eps_hat, level_t, level_s, noise, added=None):
  """Draws z_s from the posterior of any s < t. [Ho20] Algorithm 2, respaced.

  `added` as in `process.posterior`.
  """
  z_0_hat = process.to_z_0(eps_hat, z_t, level_t)
  return ddpm_move(z_0_hat, z_t, level_t, level_s, noise, added)


def ddpm_move(z_0_hat, z_t, level_t, level_s, noise, added=None):
  """`ddpm_step` from the predicted clean latent."""
  mean, variance = process.posterior(z_0_hat, z_t, level_t, level_s, added)
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
  clip_noise=True,
  after_step=None,
  first_step=0,
):
  """Runs the reverse process from z_T (b, ..., c) to z_0 in one `lax.scan`.

  The loop works in place: its latents and memory are carried, never stacked.

  Args:
    denoise: (z_t, t) -> output of the kind `prediction`.
    z_T: latents at the first time of the grid.
    schedule: a `schedules.Schedule` or `schedules.FlowSchedule`.
    num_steps: static number of steps, each one denoiser call; `heun` makes two calls
      in all steps but the last.
    key: one key, from which each row of the batch gets its own, or keys (b,). Needed
      by `ddpm` and by `ddim` with eta > 0. A row's noise depends on its key and the
      step alone, so neither batch nor devices change a sample.
    solver: one of SOLVERS, see the module.
    eta: static share of fresh noise in `ddim`, which alone has one.
    prediction: what the denoiser returns, one of `process.PREDICTIONS`.
    spacing: see `grid.time_grid`.
    clip_z_0: bound on the predicted clean latent; None (default) leaves it alone.
    clip_noise: whether the predicted noise follows a clipped latent, so that both
      still make z_t; False is what MONAI and diffusers do.
    after_step: (z_s, i) -> z_s, applied after step i (masks, corrections, shifts).
    first_step: noisiest steps that are left out; z_T is where the next one begins, and
      i counts from there.

  Raises:
    ValueError: unknown solver, prediction or spacing; a prediction that the schedule
      does not define; a stochastic run without key; eta or after_step with a solver
      that has no place for it.
  """
  process.check_prediction(prediction, schedule)
  stochastic = check_solver(solver, eta)
  if stochastic and key is None:
    raise ValueError(f'Solver {solver!r} with eta {eta} draws noise; pass a key.')
  if after_step is not None and solver == 'unipc':
    raise ValueError(
      "The solver 'unipc' corrects each step after the next call and would undo what "
      "after_step did; use 'dpmpp_2m'."
    )
  keys = example_keys(key, z_T.shape[0]) if stochastic else None
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


def check_solver(solver, eta=0.0):
  """Returns whether a run draws noise; refuses unknown solvers and a misplaced eta.

  Raises:
    ValueError: a solver not in SOLVERS, a negative eta, eta > 0 where nothing is drawn.
  """
  if solver not in SOLVERS:
    raise ValueError(f'Unknown solver {solver!r}; use one of {list(SOLVERS)}.')
  if eta < 0 or (eta > 0 and solver not in ('ddim', 'ddpm')):
    raise ValueError(
      f"eta = {eta} came with the solver {solver!r}; only 'ddim' takes one, and none "
      "below 0. Set sample.eta=0 or sample.solver='ddim'."
    )
  return solver == 'ddpm' or eta > 0


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
