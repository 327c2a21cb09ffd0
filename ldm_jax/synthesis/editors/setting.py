"""The input of every editor: the network, the diffusion process and its settings."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ldm_jax import prng
from ldm_jax.diffusion import drift, grid, process
from ldm_jax.diffusion.schedules import AnySchedule
from ldm_jax.synthesis.generate import conditional
from ldm_jax.training.encoding import denormalise, normalise
from ldm_jax.types import Array, PyTree


class Time(NamedTuple):
  """How a model trained on pairs of visits handles time.

  Attributes:
    column: of the age among the encoded attributes; None without an age.
    unit: years per unit of the encoded age.
    backwards: whether it was also trained from the later to the earlier visit.
    change_scale: unit of the change that it samples; None if it samples the scan.
  """

  column: int | None
  unit: float
  backwards: bool
  change_scale: float | None = None


@dataclasses.dataclass(frozen=True)
class Setting:
  """The trained diffusion process and its settings, common to all editors.

  Attributes:
    apply_denoiser, schedule, num_steps, prediction, spacing: see `make_sampler`.
    guidance: 1 follows the new attributes, above 1 exaggerates.
    guide_from: 'source' exaggerates the difference to the source's own attributes, so
      that a null intervention has no effect; 'null' is ordinary classifier-free
      guidance.
    drift: of the model; all steps are computed in its coordinates.
    latent_mean, latent_std: statistics of the latents.
    key: of the noise that an editor draws; None is a fixed key.
    time: for a model trained on pairs of visits, else None.
    least_change: threshold of `standing_out`, applied to the change of any editor; 0
      applies none.

  Raises:
    ValueError: guidance below 1, an unknown `guide_from`, steps or a prediction that do
      not fit the schedule.
  """

  apply_denoiser: Callable
  schedule: AnySchedule
  num_steps: int
  prediction: str = 'epsilon'
  spacing: str = 'linspace'
  guidance: float = 1.0
  guide_from: str = 'source'
  drift: Any = None
  latent_mean: Any = 0.0
  latent_std: Any = 1.0
  key: Any = None
  time: Time | None = None
  least_change: float = 0.0

  def __post_init__(self):
    if self.guidance < 1:
      raise ValueError(
        f'counterfactual.guidance is {self.guidance}, but must be at least 1. Change '
        'counterfactual.guidance.'
      )
    if self.guide_from not in ('source', 'null'):
      raise ValueError(
        f"guide_from is {self.guide_from!r}, but must be 'source' or 'null'."
      )
    grid.time_grid(self.schedule.num_timesteps, self.num_steps, self.spacing)
    process.check_prediction(self.prediction, self.schedule)

  @property
  def grid(self) -> tuple[AnySchedule, int]:
    """(schedule, num_steps): arguments of samplers and inversions, with `options`."""
    return self.schedule, self.num_steps

  @property
  def options(self) -> dict[str, Any]:
    """Keyword arguments of samplers and inversions."""
    return {'prediction': self.prediction, 'spacing': self.spacing}

  @property
  def times(self) -> tuple[int, int, str]:
    """The arguments of `grid.time_pairs`."""
    return self.schedule.num_timesteps, self.num_steps, self.spacing

  @property
  def noise_key(self) -> jax.Array:
    """`key`, or a fixed one."""
    return prng.key(0) if self.key is None else self.key

  def towards(
    self, params: PyTree, attributes: jax.Array, against: jax.Array | None = None
  ) -> Callable:
    """Centred denoiser under attributes (b, k), guided away from `against` if given."""
    guidance = 1.0 if against is None else self.guidance
    against = against if self.guide_from == 'source' else None
    denoise = conditional(self.apply_denoiser, params, attributes, guidance, against)
    return drift.centred(denoise, self.schedule, self.drift, self.prediction)

  def jitted(self, edit: Callable) -> Callable:
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


def standing_out(change: Array, least: float) -> jax.Array:
  """Changes (b,...,c) of the latent voxels that stand out; zero everywhere else.

  For most requests most voxels should not change, and the change that they show is
  noise of the model. Its deviation is estimated per example and channel as sigma =
  median |change| / 0.6745 [Donoho94, Biometrika 81(3)]. A voxel's change is set to zero
  unless the root mean square of change / sigma over its channels is above `least`.
  """
  axes = tuple(range(1, change.ndim - 1))
  sigma = jnp.median(jnp.abs(change), axes, keepdims=True) / 0.6745
  sigma = jnp.maximum(sigma, jnp.finfo(change.dtype).tiny)
  size = jnp.sqrt(jnp.square(change / sigma).mean(-1, keepdims=True))
  return jnp.where(size > least, change, 0.0)


def check_share(key: str, value: float, holds: bool, required: str) -> None:
  """Raises ValueError unless `holds`, for the share in `counterfactual.<key>`."""
  if not holds:
    raise ValueError(
      f'counterfactual.{key} is {value!r}, but must be a share {required}.'
    )
