"""Latent drifting: a signed shift (delta) of the noise that the process starts from.

[Yeganeh25] arXiv 2412.20651. Its Eq. 4 adds delta to the mean of every reverse step,
while its figures show a shifted Gaussian prior. Each interpretation is one of
`Drift.variant`:

  prior               train: eps = normal + delta at every time, z_t as usual;
                      sample: z_T = normal + delta, then any solver in the centred
                      coordinates y_t = z_t - noise_t delta (noise_t = sqrt(1 -
                      alpha_bar_t), in a flow t). The default.
  posterior_constant  trained as `prior`; z_T = normal + delta, and delta is added to
                      the result of every step: Eq. 4 taken literally. How far a sample
                      drifts then grows with the number of steps.
  init_only           trained with shifted noise at the last time only; z_T = normal +
                      delta, then the plain solver. With a deterministic solver it
                      gives the same samples as `prior`.

Latents are (b, ..., c), levels as in `process`. Three functions apply a drift to a
sampling run: `centred` wraps the denoiser, `start` makes z_T, `step_shift` is what each
step adds. In the coordinates y `prior` is ordinary diffusion: what a drift changes is
the model from which fine-tuning starts.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.diffusion import process
from ldm_jax.diffusion.process import AfterStep, AnyLevel, Denoiser
from ldm_jax.diffusion.schedules import AnySchedule
from ldm_jax.types import Array

VARIANTS = ('prior', 'posterior_constant', 'init_only')
TARGETS = ('shifted', 'raw')


@dataclasses.dataclass(frozen=True, eq=False)
class Drift:
  """A drift and its interpretation; functions here take one, a bare value, or None.

  Attributes:
    value: delta, a scalar or (c,); may be traced, as in a search over many values.
    variant: one of VARIANTS, see the module.
    target: what the network learns where noise is shifted: the 'shifted' noise, or
      the 'raw' noise before the shift; then sampling adds the shift itself.
    random_std: in training each example adds its own random offset, N(0, random_std^2)
      per channel: offset noise, the baseline that drifting is compared with. Sampling
      adds none.

  Raises:
    ValueError: an unknown variant or target, a negative deviation, or random_std > 0
      with target 'raw', because the sampler cannot know those offsets.
  """

  value: Any = 0.0
  variant: str = 'prior'
  target: str = 'shifted'
  random_std: float = 0.0

  def __post_init__(self):
    for name, choices in (('variant', VARIANTS), ('target', TARGETS)):
      if getattr(self, name) not in choices:
        raise ValueError(
          f'adapt.drift.{name} is {getattr(self, name)!r}, expected one of '
          f'{", ".join(choices)}. Set --config.adapt.drift.{name}=...'
        )
    if not 0 <= self.random_std < np.inf:
      raise ValueError(
        f'adapt.drift.random_std is {self.random_std}, expected a finite number >= 0. '
        'Set --config.adapt.drift.random_std=...'
      )
    if self.random_std and self.target == 'raw':
      raise ValueError(
        "adapt.drift.random_std > 0 does not work with adapt.drift.target='raw': the "
        'network would not predict the offsets and the sampler does not know them. Set '
        "adapt.drift.target='shifted' or adapt.drift.random_std=0."
      )


def of(drift: Any) -> Drift | None:
  """A Drift from a Drift, a scalar or (c,) value; None where it changes nothing."""
  if drift is None:
    return None
  drift = drift if isinstance(drift, Drift) else Drift(drift)
  return None if _is_zero(drift.value) and not drift.random_std else drift


def check_drift(
  drift: Any,
  num_channels: int,
  schedule: AnySchedule | None = None,
  solver: str | None = None,
) -> None:
  """Raises an error if a drift does not fit the latents, the schedule or the solver.

  Raises:
    ValueError: a value that is neither a finite scalar nor a finite (num_channels,),
      or `posterior_constant` with a schedule or solver that cannot add it.
  """
  if drift is None:
    return
  drift = drift if isinstance(drift, Drift) else Drift(drift)
  shape = np.shape(drift.value)
  if shape not in ((), (num_channels,)):
    raise ValueError(
      f'The drift has shape {shape}, but the latents have {num_channels} channels; '
      f'set adapt.drift.value to a number or to {num_channels} numbers.'
    )
  if not isinstance(drift.value, jax.core.Tracer) and not np.all(
    np.isfinite(drift.value)
  ):
    raise ValueError(
      f'The drift is {drift.value}, expected finite numbers; change adapt.drift.value.'
    )
  check_variant(drift, schedule, solver)


def check_variant(
  drift: Any, schedule: AnySchedule | None = None, solver: str | None = None
) -> None:
  """The part of `check_drift` that needs no latents."""
  drift = of(drift)
  if drift is None or drift.variant != 'posterior_constant':
    return
  if schedule is not None and not schedule.keeps_variance:
    raise ValueError(
      "adapt.drift.variant='posterior_constant' shifts the steps of a diffusion, "
      "which the schedule 'flow' does not have; set adapt.drift.variant='prior'."
    )
  if solver == 'unipc':
    raise ValueError(
      "adapt.drift.variant='posterior_constant' does not work with the solver 'unipc', "
      'which corrects each step after the next call and would undo the shift; set '
      "sample.solver='dpmpp_2m' or adapt.drift.variant='prior'."
    )


def training_noise(
  eps: jax.Array,
  t: Array,
  num_timesteps: int,
  drift: Any,
  keys: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Shifts the noise of training examples.

  Args:
    eps: (b, ..., c) standard noise.
    t: (b,) times.
    num_timesteps: T of the schedule.
    drift: Drift, value or None.
    keys: (b,) of the examples, needed if `random_std` > 0. A row depends on its own
      key only.

  Returns:
    (noise that z_t is made with, noise that is the target); both eps without drift.
  """
  drift = of(drift)
  if drift is None:
    return eps, eps
  delta = jnp.broadcast_to(jnp.asarray(drift.value, eps.dtype), eps.shape[-1:])
  delta = jnp.broadcast_to(delta, (len(eps), len(delta)))
  if drift.random_std:
    draw = lambda key: jax.random.normal(jax.random.fold_in(key, 1), eps.shape[-1:])
    delta = delta + drift.random_std * jax.vmap(draw)(keys)
  if drift.variant == 'init_only':
    delta = jnp.where((t == num_timesteps - 1)[:, None], delta, 0.0)
  shifted = eps + delta.reshape(len(eps), *(1,) * (eps.ndim - 2), -1)
  return shifted, shifted if drift.target == 'shifted' else eps


def start(noise: jax.Array, drift: Any) -> jax.Array:
  """Start of a run from standard noise (b, ..., c), in the coordinates of the run.

  These are centred for the variant `prior`, where the start is the noise itself.
  """
  drift = of(drift)
  if drift is None or _is_prior(drift):
    return noise
  return noise + jnp.asarray(drift.value, noise.dtype)


def step_shift(drift: Any) -> Array | None:
  """What is added to the result of every step: delta, or None. [Yeganeh25] Eq. 4.

  `solvers.sample` takes it in `after_step`, `inversion` as `shift`.
  """
  drift = of(drift)
  if drift is None or drift.variant != 'posterior_constant':
    return None
  return drift.value


def after_step(drift: Any, then: AfterStep | None = None) -> AfterStep | None:
  """The argument `after_step` of `solvers.sample`: the drift's shift, then `then`."""
  shift = step_shift(drift)
  if shift is None:
    return then

  def shifted(z_s, i):
    z_s = z_s + jnp.asarray(shift, z_s.dtype)
    return z_s if then is None else then(z_s, i)

  return shifted


def from_centred(y_t: jax.Array, level_t: AnyLevel, drift: Any) -> jax.Array:
  """Returns z_t = y_t + noise_t delta; y_t itself unless the variant is `prior`."""
  drift = of(drift)
  if drift is None or not _is_prior(drift) or _is_zero(drift.value):
    return y_t
  _, noise = process.signal_and_noise(level_t, y_t)
  return y_t + noise * jnp.asarray(drift.value, y_t.dtype)


def centred(
  denoise: Denoiser, schedule: AnySchedule, drift: Any, prediction: str = 'epsilon'
) -> Denoiser:
  """Wraps denoise (z_t, t) -> output for the coordinates that the solver runs in.

  prior: eps_c(y, t) = eps(y + noise_t delta, t) - delta; the clean latent is the same
  in both coordinates, so v changes by signal_t delta and the flow's velocity by delta.
  A `raw` network returns centred noise already. The other variants run on z_t itself:
  there delta is added to the output of a raw network.
  """
  process.check_prediction(prediction)
  drift = of(drift)
  if drift is None or _is_zero(drift.value):
    return denoise
  raw = drift.target == 'raw'
  if not raw and not _is_prior(drift):
    return denoise
  factor = 0.0 if raw and _is_prior(drift) else 1.0 if raw else -1.0

  def wrapped(y_t, t):
    level_t = schedule.at(t)
    output = denoise(from_centred(y_t, level_t, drift), t)
    if prediction == 'sample' or not factor:
      return output
    change = factor * jnp.asarray(drift.value, output.dtype)
    if prediction == 'v':
      change = process.signal_and_noise(level_t, y_t)[0] * change
    if drift.variant == 'init_only':
      is_last = process.expand_like(t == schedule.num_timesteps - 1, y_t)
      change = jnp.where(is_last, change, 0.0)
    return output + change

  return wrapped


def _is_prior(drift):
  return drift.variant == 'prior'


def _is_zero(value):
  """True for zeros that are not traced; then every function here is the identity."""
  return not isinstance(value, jax.core.Tracer) and not np.any(np.asarray(value))
