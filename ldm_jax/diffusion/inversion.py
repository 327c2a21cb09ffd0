"""DDIM run backwards: the noise from which deterministic sampling gives a latent back.

[Song21] arXiv 2010.02502 Sec. 4.3; the implicit step is solved by fixed-point
iteration as in [Pan23] arXiv 2309.04907. What the iteration leaves is returned as
corrections, in the spirit of [Ju23] arXiv 2310.01506: adding them while sampling
makes the round trip exact up to rounding, for any denoiser.
"""

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import process, solvers


def ddim_invert(
  denoise,
  z_0,
  schedule,
  num_steps,
  *,
  prediction='epsilon',
  spacing='linspace',
  num_iterations=1,
):
  """Returns z_T (b, ..., c) such that deterministic `solvers.sample` gives z_0.

  Each step calls the denoiser 1 + num_iterations times, at the time it arrives at.
  """
  z_T, _ = _scan(
    denoise, z_0, schedule, num_steps, prediction, spacing, num_iterations, False
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
):
  """Returns z_T, path and corrections, the last two (num_steps, b, ..., c).

  Both follow the order of sampling: path[i] is where step i of `solvers.sample`
  should arrive, corrections[i] what it misses; path[-1] is z_0. One more denoiser
  call per step than `ddim_invert`.
  """
  z_T, (path, corrections) = _scan(
    denoise, z_0, schedule, num_steps, prediction, spacing, num_iterations, True
  )
  return z_T, path, corrections


def _scan(
  denoise, z_0, schedule, num_steps, prediction, spacing, num_iterations, with_path
):
  if spacing == 'monai':
    raise ValueError("The 'monai' spacing skips times and has no inverse; use another.")
  times = solvers.time_pairs(schedule.num_timesteps, num_steps, spacing)

  def step(z_s, pair):
    t, s = pair
    a_t, a_s = schedule.at(t), schedule.at(s)

    def predict(z_t):
      output = denoise(z_t, jnp.full(z_t.shape[:1], t))
      return process.to_pair(output, z_t, a_t, prediction)

    def refine(_, z_t):
      eps_hat = predict(z_t)[1]
      return process.add_noise(process.to_z_0(eps_hat, z_s, a_s), eps_hat, a_t)

    z_t = jax.lax.fori_loop(0, 1 + num_iterations, refine, z_s)
    if not with_path:
      return z_t, None
    return z_t, (z_s, z_s - solvers.ddim_move(*predict(z_t), a_t, a_s))

  return jax.lax.scan(step, z_0, tuple(map(jnp.asarray, times)), reverse=True)
