"""Editors that invert a scan to noise and sample from it under other attributes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import ddpm_inversion, drift, grid, inversion, process, solvers
from ldm_jax.synthesis.editors.setting import Setting, check_share


def ddim(
  setting: Setting, *, num_iterations: int = 1, correct: bool = True
) -> Callable:
  """Inversion of the deterministic sampler, then sampling. [Song21]

  Args:
    setting: of all editors.
    num_iterations: fixed-point iterations of each inversion step.
    correct: add the inversion's error back at each step, which makes a null
      intervention exact.
  """

  def edit(params, z, own, new, keep):
    z_T, path, corrections = inversion.ddim_invert_path(
      setting.towards(params, own),
      z,
      *setting.grid,
      num_iterations=num_iterations,
      shift=drift.step_shift(setting.drift),
      **setting.options,
    )

    def after_step(z_s, i):
      z_s = z_s + corrections[i] if correct else z_s
      return z_s if keep is None else jnp.where(keep, path[i], z_s)

    denoise = setting.towards(params, new, own)
    return solvers.sample(
      denoise,
      z_T,
      *setting.grid,
      after_step=drift.after_step(setting.drift, after_step),
      **setting.options,
    )

  return setting.jitted(edit)


def ddpm(setting: Setting, *, skip: float = 0.36) -> Callable:
  """Edit-friendly inversion of the ancestral sampler: `ddpm_inversion`. [Huberman24]

  Args:
    setting: of all editors.
    skip: share of the steps, the noisiest, that are left out; a higher share keeps more
      of the source's structure.

  Raises:
    ValueError: a share outside [0, 1).
  """
  check_share('ddpm.skip', skip, 0 <= skip < 1, 'from 0, below 1')
  first = min(round(skip * setting.num_steps), setting.num_steps - 1)
  options = {**setting.options, 'first_step': first}

  def edit(params, z, own, new, keep):
    z_t, path, residuals = ddpm_inversion.ddpm_invert(
      setting.towards(params, own), z, *setting.grid, setting.noise_key, **options
    )

    def after_step(z_s, i):
      return z_s if keep is None else jnp.where(keep, path[i], z_s)

    denoise = setting.towards(params, new, own)
    return ddpm_inversion.ddpm_replay(
      denoise, z_t, residuals, *setting.grid, after_step=after_step, **options
    )

  return setting.jitted(edit)


def sdedit(setting: Setting, *, strength: float = 0.5) -> Callable:
  """Adds noise to the source and samples from there: the baseline. [Meng22]

  There is no inversion, so a null intervention changes the source too.

  Args:
    setting: of all editors.
    strength: share of the steps that are sampled, the last ones; 1 starts from pure
      noise.

  Raises:
    ValueError: a share outside (0, 1].
  """
  check_share('sdedit.strength', strength, 0 < strength <= 1, 'above 0, at most 1')
  made = max(round(strength * setting.num_steps), 1)
  first = setting.num_steps - made
  t, s = grid.leave_out(grid.time_pairs(*setting.times), first)

  def edit(params, z, own, new, keep):
    eps = solvers.initial_noise(setting.noise_key, z.shape)
    eps = drift.start(eps, setting.drift)
    levels = setting.schedule.at(jnp.asarray(s))

    def after_step(z_s, i):
      if keep is None:
        return z_s
      level = jax.tree.map(lambda x: x[i], levels)
      return jnp.where(keep, process.add_noise(z, eps, level), z_s)

    return solvers.sample(
      setting.towards(params, new, own),
      process.add_noise(z, eps, setting.schedule.at(int(t[0]))),
      *setting.grid,
      after_step=drift.after_step(setting.drift, after_step),
      first_step=first,
      **setting.options,
    )

  return setting.jitted(edit)
