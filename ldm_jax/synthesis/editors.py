"""Editors: source latents and changed attributes -> counterfactual latents, by name.

An editor is `edit(params, z, attributes, new_attributes, keep=None) -> z_cf`, jitted:
z, z_cf (b, ..., c) in the autoencoder's units; attributes (b, k); keep (b, ..., 1) bool
at latent resolution, true where the source's trajectory is kept. Its maker takes a
`Setting` and options of its own, those of `counterfactual.<name>` in the config.
[Song21] arXiv 2010.02502, [Huberman24] arXiv 2304.06140, [Meng22] SDEdit, arXiv
2108.01073; [Parmar23] in `pix2pix_zero`, [Brooks23] in `paired`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import ddpm_inversion, grid, inversion, process, solvers
from ldm_jax.diffusion import drift as drifting
from ldm_jax.diffusion.schedules import Schedule
from ldm_jax.synthesis import paired, pix2pix_zero
from ldm_jax.synthesis.generate import conditional, denormalise, normalise


@dataclasses.dataclass(frozen=True)
class Setting:
  """What all editors share: the trained process and how it is run.

  Attributes:
    apply_denoiser, schedule, num_steps, prediction, spacing: see `make_sampler`.
    guidance: 1 follows the new attributes, above 1 exaggerates.
    guide_from: 'source' exaggerates the difference to the source's own attributes,
      so that no change stays no change; 'null' is ordinary classifier-free guidance.
    drift: of the model; all runs are made in its coordinates.
    latent_mean, latent_std: latent statistics.
    key: of the noise that an editor draws, a row's own folded from it; None is a fixed
      one.
    time: `paired.Time` of a model trained on pairs of visits, else None.
    least_change: of `standing_out`, applied to what any editor changed.

  Raises:
    ValueError: guidance below 1, an unknown `guide_from`, a run that does not fit the
      schedule.
  """

  apply_denoiser: Callable
  schedule: Schedule
  num_steps: int
  prediction: str = 'epsilon'
  spacing: str = 'linspace'
  guidance: float = 1.0
  guide_from: str = 'source'
  drift: Any = None
  latent_mean: Any = 0.0
  latent_std: Any = 1.0
  key: Any = None
  time: Any = None
  least_change: float = 0.0

  def __post_init__(self):
    if self.guidance < 1:
      raise ValueError(
        f'Guidance {self.guidance} came; a counterfactual needs at least 1. Change '
        'counterfactual.guidance.'
      )
    if self.guide_from not in ('source', 'null'):
      raise ValueError(f"guide_from is {self.guide_from!r}; use 'source' or 'null'.")
    grid.time_grid(self.schedule.num_timesteps, self.num_steps, self.spacing)
    process.check_prediction(self.prediction, self.schedule)

  @property
  def grid(self):
    """(schedule, num_steps): what a run over the grid takes, with `options`."""
    return self.schedule, self.num_steps

  @property
  def options(self):
    """The options of every run over the grid."""
    return {'prediction': self.prediction, 'spacing': self.spacing}

  @property
  def times(self):
    """The arguments of `grid.time_pairs`."""
    return self.schedule.num_timesteps, self.num_steps, self.spacing

  @property
  def noise_key(self):
    """`key`, or a fixed one."""
    return jax.random.key(0) if self.key is None else self.key

  def towards(self, params, attributes, against=None):
    """Centred denoiser of attributes (b, k), guided away from those of the source."""
    guidance = 1.0 if against is None else self.guidance
    against = against if self.guide_from == 'source' else None
    denoise = conditional(self.apply_denoiser, params, attributes, guidance, against)
    return drifting.centred(denoise, self.schedule, self.drift, self.prediction)

  def jitted(self, edit):
    """Compiles edit(params, z, own, new, keep) of normalised latents into an editor."""

    @jax.jit
    def run(params, z, attributes, new_attributes, keep=None):
      drifting.check_drift(self.drift, z.shape[-1], self.schedule)
      own = jnp.asarray(attributes, jnp.float32)
      new = jnp.asarray(new_attributes, jnp.float32)
      z = normalise(z, self.latent_mean, self.latent_std)
      z_cf = edit(params, z, own, new, keep)
      if self.least_change:
        z_cf = z + standing_out(z_cf - z, self.least_change)
      return denormalise(z_cf, self.latent_mean, self.latent_std)

    return run


def ddim(setting: Setting, *, num_iterations: int = 1, correct: bool = True):
  """Inversion of the deterministic sampler, then sampling: two scans. [Song21]

  Args:
    num_iterations: fixed-point refinements of each inversion step.
    correct: add what inversion misses, which makes a null intervention exact.
  """

  def edit(params, z, own, new, keep):
    z_T, path, corrections = inversion.ddim_invert_path(
      setting.towards(params, own),
      z,
      *setting.grid,
      num_iterations=num_iterations,
      shift=drifting.step_shift(setting.drift),
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
      after_step=drifting.after_step(setting.drift, after_step),
      **setting.options,
    )

  return setting.jitted(edit)


def ddpm(setting: Setting, *, skip: float = 0.36):
  """Edit-friendly inversion of the ancestral sampler: `ddpm_inversion`. [Huberman24]

  Args:
    skip: share of the steps, the noisiest, that are left out; more keeps the source's
      layout.

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


def sdedit(setting: Setting, *, strength: float = 0.5):
  """Noises the source part of the way, samples back: the baseline. [Meng22]

  It inverts nothing, so that a null intervention changes the source too.

  Args:
    strength: share of the steps that are made, from the noisiest of them; 1 forgets
      the source.

  Raises:
    ValueError: a share outside (0, 1].
  """
  check_share('sdedit.strength', strength, 0 < strength <= 1, 'above 0, at most 1')
  made = max(round(strength * setting.num_steps), 1)
  first = setting.num_steps - made
  t, s = grid.leave_out(grid.time_pairs(*setting.times), first)

  def edit(params, z, own, new, keep):
    eps = solvers.initial_noise(setting.noise_key, z.shape)
    eps = drifting.start(eps, setting.drift)
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
      after_step=drifting.after_step(setting.drift, after_step),
      first_step=first,
      **setting.options,
    )

  return setting.jitted(edit)


def standing_out(change, least):
  """Changes (b,...,c) of latent voxels that stand out; zero everywhere else.

  Most voxels of most requests should not change. What they change by all the same is
  the model's noise, and half of them lie below its median: sigma = median |change| /
  0.6745, of each example and channel [Donoho94, Biometrika 81(3)]. A voxel is left out
  unless the root mean square over its channels of change / sigma is above `least`.
  """
  axes = tuple(range(1, change.ndim - 1))
  sigma = jnp.median(jnp.abs(change), axes, keepdims=True) / 0.6745
  sigma = jnp.maximum(sigma, jnp.finfo(change.dtype).tiny)
  size = jnp.sqrt(jnp.square(change / sigma).mean(-1, keepdims=True))
  return jnp.where(size > least, change, 0.0)


def check_share(key, value, holds, required):
  """Raises ValueError unless an option `counterfactual.<key>` holds."""
  if not holds:
    raise ValueError(
      f'counterfactual.{key} is {value!r}, but must be a share {required}.'
    )


# Name -> maker(setting, **options) -> editor; the names of `counterfactual.editor`.
EDITORS = {
  'ddim': ddim,
  'ddpm': ddpm,
  'pairs': paired.pairs,
  'pix2pix_zero': pix2pix_zero.pix2pix_zero,
  'sdedit': sdedit,
}


def make(name: str, setting: Setting, **options) -> Callable:
  """Returns the editor that `counterfactual.editor` names.

  Raises:
    ValueError: an unknown name; what the editor refuses.
  """
  if name not in EDITORS:
    raise ValueError(
      f'counterfactual.editor is {name!r}; required is one of {", ".join(EDITORS)}.'
    )
  return EDITORS[name](setting, **options)
