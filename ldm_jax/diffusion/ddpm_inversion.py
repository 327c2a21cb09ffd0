"""Edit-friendly inversion of the ancestral sampler: noise maps that hold the source.

[Huberman24] arXiv 2304.06140. Each z_t is drawn from z_0 with a noise of its own, not
along one chain, so that the noise maps between neighbours are larger than a sampler's
and carry the source's layout into whatever the denoiser is asked for. Kept are the maps
times their standard deviation, what each step misses: this is defined at the last step
too, whose variance is 0, and makes the way back exact for any denoiser.
"""

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import grid, process, solvers


def ddpm_invert(
  denoise,
  z_0,
  schedule,
  num_steps,
  key,
  *,
  prediction='epsilon',
  spacing='linspace',
  first_step=0,
):
  """Returns z_t, path and residuals, such that `ddpm_replay` gives z_0.

  Args:
    denoise: (z_t, t) -> output, called once a step.
    z_0: (b, ..., c).
    key: one key, of which every row gets its own, or keys (b,).
    first_step: steps of the grid that are left out, the noisiest.

  Returns:
    z_t (b, ..., c) where the first step begins; path and residuals (n, b, ..., c) in
    the order of sampling: path[i] is where step i arrives, residuals[i] what its mean
    misses. path[-1] is z_0.
  """
  t, s = _times(schedule, num_steps, prediction, spacing, first_step)
  keys = solvers.example_keys(key, z_0.shape[0])

  def noised(i):
    eps = solvers.step_noise(keys, i, z_0)
    return process.add_noise(z_0, eps, schedule.at(t[i]))

  steps = jnp.arange(len(t))
  starts = jax.lax.map(noised, steps)
  path = jnp.concatenate([starts[1:], z_0[None]])

  def missed(step):
    z_t, z_s, i = step
    return z_s - _mean(denoise, z_t, schedule, t[i], s[i], prediction)

  return starts[0], path, jax.lax.map(missed, (starts, path, steps))


def ddpm_replay(
  denoise,
  z_t,
  residuals,
  schedule,
  num_steps,
  *,
  prediction='epsilon',
  spacing='linspace',
  first_step=0,
  after_step=None,
):
  """Runs the ancestral sampler from z_t with given residuals in place of its noise.

  Arguments as `ddpm_invert`; after_step (z_s, i) -> z_s as in `solvers.sample`.

  Returns:
    z_0 (b, ..., c).
  """
  t, s = _times(schedule, num_steps, prediction, spacing, first_step)

  def step(z, i):
    z_s = _mean(denoise, z, schedule, t[i], s[i], prediction) + residuals[i]
    return (z_s if after_step is None else after_step(z_s, i)), None

  return jax.lax.scan(step, z_t, jnp.arange(len(t)))[0]


def _times(schedule, num_steps, prediction, spacing, first_step):
  process.check_prediction(prediction, schedule)
  if spacing == 'monai':
    raise ValueError("The 'monai' spacing skips times and has no inverse; use another.")
  pairs = grid.time_pairs(schedule.num_timesteps, num_steps, spacing)
  return tuple(jnp.asarray(times) for times in grid.leave_out(pairs, first_step))


def _mean(denoise, z_t, schedule, t, s, prediction):
  """Mean of the ancestral step from t to s. [Ho20] Eq. 7, respaced."""
  level_t, level_s = schedule.at(t), schedule.at(s)
  output = denoise(z_t, jnp.full(z_t.shape[:1], t))
  z_0_hat, _ = process.to_pair(output, z_t, level_t, prediction)
  mean, _ = process.posterior(z_0_hat, z_t, level_t, level_s, schedule.between(t, s))
  return mean
