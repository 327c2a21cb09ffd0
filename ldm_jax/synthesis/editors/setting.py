"""What an editor works with: the networks, and how one scan becomes another."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import drift, grid, process
from ldm_jax.diffusion.schedules import Schedule
from ldm_jax.synthesis.generate import conditional
from ldm_jax.training.encoding import denormalise, normalise


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
    time: `pairs.Time` of a model trained on pairs of visits, else None.
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
    return drift.centred(denoise, self.schedule, self.drift, self.prediction)

  def jitted(self, edit):
    """Compiles edit(params, z, own, new, keep) of normalised latents into an editor."""

    @jax.jit
    def run(params, z, attributes, new_attributes, keep=None):
      drift.check_drift(self.drift, z.shape[-1], self.schedule)
      own = jnp.asarray(attributes, jnp.float32)
      new = jnp.asarray(new_attributes, jnp.float32)
      z = normalise(z, self.latent_mean, self.latent_std)
      z_cf = edit(params, z, own, new, keep)
      if self.least_change:
        z_cf = z + standing_out(z_cf - z, self.least_change)
      return denormalise(z_cf, self.latent_mean, self.latent_std)

    return run


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
