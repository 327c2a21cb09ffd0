"""DDIM run backwards: finds the noise from which deterministic sampling gives z_0.

[Song21] arXiv 2010.02502 Sec. 4.3; the implicit step is solved by fixed-point
iteration as in [Pan23] arXiv 2309.04907. The remaining errors of the iteration are
returned as corrections, similar to [Ju23] arXiv 2310.01506: adding them while sampling
makes the round trip exact up to rounding, for any denoiser.
"""

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import grid, process, solvers
from ldm_jax.diffusion.process import Denoiser
from ldm_jax.diffusion.schedules import AnySchedule
from ldm_jax.types import Array


def ddim_invert_path(
  denoise: Denoiser,
  z_0: Array,
  schedule: AnySchedule,
  num_steps: int,
  *,
  prediction: str = 'epsilon',
  spacing: str = 'linspace',
  num_iterations: int = 1,
  shift: Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns z_T, from which deterministic `solvers.sample` gives z_0, and the way.

  Args:
    denoise: (z_t, t) -> output, called 2 + num_iterations times per step, at the time
      t of the step.
    z_0: (b, ..., c).
    schedule, num_steps, prediction, spacing: as in `solvers.sample`.
    num_iterations: of the fixed-point iteration, after its first estimate.
    shift: what sampling adds to the result of every step (`drift.step_shift`), or None.

  Returns:
    z_T (b, ..., c), path and corrections (num_steps, b, ..., c) in the order of
    sampling: path[i] is where step i of `solvers.sample` should arrive, corrections[i]
    the difference to where it does. path[-1] is z_0.

  Raises:
    ValueError: the spacing 'monai', or a prediction that the schedule does not define.
  """
  if spacing == 'monai':
    raise ValueError(grid.NO_INVERSE)
  process.check_prediction(prediction, schedule)
  times = grid.time_pairs(schedule.num_timesteps, num_steps, spacing)

  def step(z_s, pair):
    level_t, level_s = map(schedule.at, pair)
    # The result of the step itself, before sampling added the shift.
    before = z_s if shift is None else z_s - jnp.asarray(shift, z_s.dtype)

    def predict(z_t):
      output = denoise(z_t, jnp.full(z_t.shape[:1], pair[0]))
      return process.to_pair(output, z_t, level_t, prediction)

    def refine(_, z_t):
      return _backwards(before, *predict(z_t), level_t, level_s, prediction == 'flow')

    z_t = jax.lax.fori_loop(0, 1 + num_iterations, refine, z_s)
    return z_t, (z_s, before - solvers.ddim_move(*predict(z_t), level_t, level_s))

  pairs = tuple(jnp.asarray(numbers) for numbers in times)
  z_T, (path, corrections) = jax.lax.scan(step, z_0, pairs, reverse=True)
  return z_T, path, corrections


def _backwards(z_s, z_0_hat, eps_hat, level_t, level_s, along_velocity):
  """Moves from s back to t with a pair predicted at t: one fixed-point iteration.

  Keeping the predicted noise constant converges fastest, but where no signal is left
  eps_hat is z_t itself and any z_t is a fixed point; there, and for `flow`, the
  velocity is kept constant.
  """
  held = process.to_z_0(eps_hat, z_s, level_s), eps_hat
  by_noise = process.add_noise(*held, level_t)
  held = process.to_pair(eps_hat - z_0_hat, z_s, level_s, 'flow')
  by_velocity = process.add_noise(*held, level_t)
  if along_velocity:
    return by_velocity
  signal_t, _ = process.signal_and_noise(level_t, z_s)
  return jnp.where(signal_t > 0, by_noise, by_velocity)
