"""Editors: source latents and changed attributes -> counterfactual latents, by name.

An editor is `edit(params, z, attributes, new_attributes, keep=None) -> z_cf`, jitted:
z, z_cf (b, ..., c) in the autoencoder's units; attributes (b, k); keep (b, ..., 1) bool
at latent resolution, true where the source's trajectory is kept. Its maker takes a
`Setting` and options of its own, those of `counterfactual.<name>` in the config.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import drift as drifting
from ldm_jax.diffusion import grid, inversion, process, solvers
from ldm_jax.diffusion.schedules import Schedule
from ldm_jax.synthesis.generate import conditional, denormalise, normalise


@dataclasses.dataclass(frozen=True)
class Setting:
  """What all editors share: the trained process and how it is run.

  Attributes:
    apply_denoiser, schedule, num_steps, prediction, spacing: see `make_sampler`.
    guidance: 1 follows the new attributes, above 1 exaggerates.
    guide_from: 'source' exaggerates the difference to the source's own attributes,
      so that no change stays no change; 'null' is ordinary classifier-free guidance.
    drift: of the model (delta); all runs are made in centred coordinates.
    latent_mean, latent_std: latent statistics.

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
  def run(self):
    """(schedule, num_steps) and the options that every run over the grid takes."""
    options = {'prediction': self.prediction, 'spacing': self.spacing}
    return (self.schedule, self.num_steps), options

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
      drifting.check_drift(self.drift, z.shape[-1])
      own = jnp.asarray(attributes, jnp.float32)
      new = jnp.asarray(new_attributes, jnp.float32)
      z = normalise(z, self.latent_mean, self.latent_std)
      z_cf = edit(params, z, own, new, keep)
      return denormalise(z_cf, self.latent_mean, self.latent_std)

    return run


def ddim(setting: Setting, *, num_iterations: int = 1, correct: bool = True):
  """Inversion of the deterministic sampler, then sampling: two scans. [Song21]

  Args:
    num_iterations: fixed-point refinements of each inversion step.
    correct: add what inversion misses, which makes a null intervention exact.
  """
  run, options = setting.run

  def edit(params, z, own, new, keep):
    z_T, path, corrections = inversion.ddim_invert_path(
      setting.towards(params, own), z, *run, num_iterations=num_iterations, **options
    )

    def after_step(z_s, i):
      z_s = z_s + corrections[i] if correct else z_s
      return z_s if keep is None else jnp.where(keep, path[i], z_s)

    denoise = setting.towards(params, new, own)
    return solvers.sample(denoise, z_T, *run, after_step=after_step, **options)

  return setting.jitted(edit)


# Name -> maker(setting, **options) -> editor; the names of `counterfactual.editor`.
EDITORS = {'ddim': ddim}


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
