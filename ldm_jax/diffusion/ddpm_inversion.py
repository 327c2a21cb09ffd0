"""Edit-friendly inversion of the ancestral sampler: noise maps that encode the source.

[Huberman24] arXiv 2304.06140. Each z_t is drawn from z_0 with its own independent
noise, not along one chain. The noise maps between neighbouring times are therefore
larger than those of a sampler and carry the source's layout over to any other
condition. What is stored is each map times its standard deviation, that is, the
difference between where a step arrives and its mean: it is defined at the last step
too, whose variance is 0, and makes the round trip exact for any denoiser.
"""

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import grid, process, solvers
from ldm_jax.diffusion.process import AfterStep, Denoiser
from ldm_jax.diffusion.schedules import AnySchedule
from ldm_jax.types import Array


def ddpm_invert(
  denoise: Denoiser,
  z_0: Array,
  schedule: AnySchedule,
  num_steps: int,
  key: jax.Array,
  *,
  prediction: str = 'epsilon',
  spacing: str = 'linspace',
  first_step: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns z_t, path and residuals, such that `ddpm_replay` gives z_0.

  Args:
    denoise: (z_t, t) -> output, called once per step.
    z_0: (b, ..., c).
    schedule, num_steps, prediction, spacing: as in `solvers.sample`.
    key: one key, from which each row gets its own, or keys (b,).
    first_step: number of steps skipped at the noisy end of the grid.

  Returns:
    z_t (b, ..., c) at the time where the first step begins; path and residuals
    (n, b, ..., c) in the order of sampling: path[i] is where step i arrives,
    residuals[i] is path[i] minus the step's mean. path[-1] is z_0.

  Raises:
    ValueError: the spacing 'monai', a prediction that the schedule does not define, or
      no step left.
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
  denoise: Denoiser,
  z_t: Array,
  residuals: Array,
  schedule: AnySchedule,
  num_steps: int,
  *,
  prediction: str = 'epsilon',
  spacing: str = 'linspace',
  first_step: int = 0,
  after_step: AfterStep | None = None,
) -> jax.Array:
  """Runs the ancestral sampler from z_t with given residuals in place of its noise.

  Arguments as in `ddpm_invert`; after_step (z_s, i) -> z_s as in `solvers.sample`.

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
    raise ValueError(grid.NO_INVERSE)
  pairs = grid.time_pairs(schedule.num_timesteps, num_steps, spacing)
  return tuple(jnp.asarray(times) for times in grid.leave_out(pairs, first_step))


def _mean(denoise, z_t, schedule, t, s, prediction):
  """Mean of the ancestral step from t to s. [Ho20] Eq. 7, respaced."""
  level_t, level_s = schedule.at(t), schedule.at(s)
  output = denoise(z_t, jnp.full(z_t.shape[:1], t))
  z_0_hat, _ = process.to_pair(output, z_t, level_t, prediction)
  mean, _ = process.posterior(z_0_hat, z_t, level_t, level_s, schedule.between(t, s))
  return mean
