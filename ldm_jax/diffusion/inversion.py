"""DDIM run backwards: the noise from which deterministic sampling gives a latent back.

[Song21] arXiv 2010.02502 Sec. 4.3; the implicit step is solved by fixed-point
iteration as in [Pan23] arXiv 2309.04907. What the iteration leaves is returned as
corrections, in the spirit of [Ju23] arXiv 2310.01506: adding them while sampling
makes the round trip exact up to rounding, for any denoiser.
"""

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import grid, process, solvers


def ddim_invert(
  denoise,
  z_0,
  schedule,
  num_steps,
  *,
  prediction='epsilon',
  spacing='linspace',
  num_iterations=1,
  shift=None,
):
  """Returns z_T (b, ..., c) such that deterministic `solvers.sample` gives z_0.

  Each step calls the denoiser 1 + num_iterations times, at the time it arrives at.
  `shift` is what sampling adds where every step arrives (`drift.step_shift`), or None.
  """
  z_T, _ = _scan(
    denoise,
    z_0,
    schedule,
    num_steps,
    prediction,
    spacing,
    num_iterations,
    shift,
    with_path=False,
  )
  return z_T


def ddim_invert_path(
  denoise,
  z_0,
  schedule,
  num_steps,
  *,
  prediction='epsilon',
  spacing='linspace',
  num_iterations=1,
  shift=None,
):
  """Returns z_T, path and corrections, the last two (num_steps, b, ..., c).

  Both follow the order of sampling: path[i] is where step i of `solvers.sample`
  should arrive, corrections[i] what it misses; path[-1] is z_0. One more denoiser
  call per step than `ddim_invert`.
  """
  z_T, (path, corrections) = _scan(
    denoise,
    z_0,
    schedule,
    num_steps,
    prediction,
    spacing,
    num_iterations,
    shift,
    with_path=True,
  )
  return z_T, path, corrections


def _scan(
  denoise,
  z_0,
  schedule,
  num_steps,
  prediction,
  spacing,
  num_iterations,
  shift,
  *,
  with_path,
):
  if spacing == 'monai':
    raise ValueError("The 'monai' spacing skips times and has no inverse; use another.")
  process.check_prediction(prediction, schedule)
  times = grid.time_pairs(schedule.num_timesteps, num_steps, spacing)

  def step(z_s, pair):
    level_t, level_s = map(schedule.at, pair)
    # Where the step itself arrived, before sampling shifted it.
    before = z_s if shift is None else z_s - jnp.asarray(shift, z_s.dtype)

    def predict(z_t):
      output = denoise(z_t, jnp.full(z_t.shape[:1], pair[0]))
      return process.to_pair(output, z_t, level_t, prediction)

    def refine(_, z_t):
      return _backwards(before, *predict(z_t), level_t, level_s, prediction == 'flow')

    z_t = jax.lax.fori_loop(0, 1 + num_iterations, refine, z_s)
    if not with_path:
      return z_t, None
    return z_t, (z_s, before - solvers.ddim_move(*predict(z_t), level_t, level_s))

  return jax.lax.scan(step, z_0, tuple(map(jnp.asarray, times)), reverse=True)


def _backwards(z_s, z_0_hat, eps_hat, level_t, level_s, along_velocity):
  """Moves from s back to t with a pair predicted at t: one fixed-point iteration.

  Holding the noise converges fastest, but where no signal is left eps_hat is z_t
  itself and any z_t a fixed point; there, and for `flow`, the velocity is held.
  """
  held = process.to_z_0(eps_hat, z_s, level_s), eps_hat
  by_noise = process.add_noise(*held, level_t)
  held = process.to_pair(eps_hat - z_0_hat, z_s, level_s, 'flow')
  by_velocity = process.add_noise(*held, level_t)
  if along_velocity:
    return by_velocity
  signal_t, _ = process.signal_and_noise(level_t, z_s)
  return jnp.where(signal_t > 0, by_noise, by_velocity)
