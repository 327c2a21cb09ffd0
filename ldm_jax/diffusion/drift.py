"""Latent drifting: a signed shift (delta) of the noise the process starts from.

[Yeganeh25] arXiv 2412.20651. Its Eq. 4 adds delta to the mean of every reverse step;
what its figures show is a shifted Gaussian prior. Every reading is a `Drift.variant`:

  prior               train: eps = normal + delta at every time, z_t as usual;
                      sample: z_T = normal + delta, then any solver in the centred
                      coordinates y_t = z_t - noise_t delta (noise_t = sqrt(1 -
                      alpha_bar_t), in a flow t). The default.
  posterior_constant  trained as `prior`; z_T = normal + delta, and delta is added to
                      where every step arrives: Eq. 4 to the letter. How far a sample
                      drifts then grows with the number of steps.
  init_only           trained with shifted noise at the last time alone; z_T = normal +
                      delta, then the plain solver. With a deterministic solver it
                      samples what `prior` samples.

Latents are (b, ..., c), levels as in `process`. Three functions drift a run, inside its
loop: `centred` wraps the denoiser, `start` makes z_T, `step_shift` is what a step adds.
In the coordinates y `prior` is ordinary diffusion: what a drift changes is where
fine-tuning starts.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.diffusion import process

VARIANTS = ('prior', 'posterior_constant', 'init_only')
TARGETS = ('shifted', 'raw')


@dataclasses.dataclass(frozen=True, eq=False)
class Drift:
  """A drift and how it is read; functions here take one, a bare value, or None.

  Attributes:
    value: delta, a scalar or (c,); traced in a search over many.
    variant: one of VARIANTS, see the module.
    target: what the network learns where noise is shifted: the 'shifted' noise, or
      the 'raw' noise before the shift, which sampling then shifts by itself.
    random_std: in training each example adds an offset of its own, N(0, random_std^2)
      per channel: offset noise, the baseline of drifting. Sampling has none.

  Raises:
    ValueError: an unknown variant or target, a negative deviation, or offsets that a
      raw target would hide from the sampler.
  """

  value: object = 0.0
  variant: str = 'prior'
  target: str = 'shifted'
  random_std: float = 0.0

  def __post_init__(self):
    for name, choices in (('variant', VARIANTS), ('target', TARGETS)):
      if getattr(self, name) not in choices:
        raise ValueError(
          f'adapt.drift.{name} is {getattr(self, name)!r}; it must be one of '
          f'{", ".join(choices)}. Set --config.adapt.drift.{name}=...'
        )
    if not 0 <= self.random_std < np.inf:
      raise ValueError(
        f'adapt.drift.random_std is {self.random_std}; it must be a number from 0 up.'
      )
    if self.random_std and self.target == 'raw':
      raise ValueError(
        "adapt.drift.random_std > 0 came with adapt.drift.target='raw': no sampler "
        "knows an offset that the network was told to hide. Set target='shifted'."
      )


def of(drift):
  """A Drift from a Drift, a scalar or (c,) value; None where it changes nothing."""
  if drift is None:
    return None
  drift = drift if isinstance(drift, Drift) else Drift(drift)
  return None if _is_zero(drift.value) and not drift.random_std else drift


def check_drift(drift, num_channels, schedule=None, solver=None):
  """Refuses a drift that does not fit the latents, the schedule or the solver.

  Raises:
    ValueError: a value that is neither finite scalar nor (num_channels,), or
      `posterior_constant` where no step has a mean to shift.
  """
  if drift is None:
    return
  drift = drift if isinstance(drift, Drift) else Drift(drift)
  shape = np.shape(drift.value)
  if shape not in ((), (num_channels,)):
    raise ValueError(
      f'A drift of shape {shape} does not fit latents of {num_channels} channels; '
      f'set adapt.drift.value to a number or to {num_channels} numbers.'
    )
  if not isinstance(drift.value, jax.core.Tracer) and not np.all(
    np.isfinite(drift.value)
  ):
    raise ValueError(f'Drift {drift.value} is not finite; change adapt.drift.value.')
  check_variant(drift, schedule, solver)


def check_variant(drift, schedule=None, solver=None):
  """The part of `check_drift` that needs no latents."""
  if of(drift) is None or of(drift).variant != 'posterior_constant':
    return
  if schedule is not None and not schedule.keeps_variance:
    raise ValueError(
      "adapt.drift.variant='posterior_constant' shifts the steps of a diffusion, "
      "which the schedule 'flow' does not have; set adapt.drift.variant='prior'."
    )
  if solver == 'unipc':
    raise ValueError(
      "adapt.drift.variant='posterior_constant' came with the solver 'unipc', which "
      'corrects each step after the next call and would undo the shift; set '
      "sample.solver='dpmpp_2m' or adapt.drift.variant='prior'."
    )


def training_noise(eps, t, num_timesteps, drift, keys=None):
  """Shifts the noise of training examples.

  Args:
    eps: (b, ..., c) standard noise.
    t: (b,) times.
    num_timesteps: T of the schedule.
    drift: Drift, value or None.
    keys: (b,) of the examples, for `random_std`: nothing depends on the other rows.

  Returns:
    (noise that makes z_t, noise that is to be predicted), both eps without drift.
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


def start(noise, drift):
  """Where a run starts from standard noise (b, ..., c), in the run's coordinates.

  In centred coordinates the drifted start is plain noise.
  """
  drift = of(drift)
  if drift is None or _is_prior(drift):
    return noise
  return noise + jnp.asarray(drift.value, noise.dtype)


def step_shift(drift):
  """What every step adds where it arrives: delta, or None. [Yeganeh25] Eq. 4.

  `solvers.sample` takes it in `after_step`, `inversion` as `shift`.
  """
  drift = of(drift)
  constant = drift is not None and drift.variant == 'posterior_constant'
  return drift.value if constant else None


def after_step(drift, then=None):
  """The argument `after_step` of `solvers.sample`: the drift's shift, `then` yours."""
  shift = step_shift(drift)
  if shift is None:
    return then

  def shifted(z_s, i):
    z_s = z_s + jnp.asarray(shift, z_s.dtype)
    return z_s if then is None else then(z_s, i)

  return shifted


def to_centred(z_t, level_t, drift):
  """Returns y_t = z_t - noise_t delta; z_t itself unless the variant is `prior`."""
  return z_t if not _moves(drift) else z_t - _offset(z_t, level_t, of(drift))


def from_centred(y_t, level_t, drift):
  """Returns z_t = y_t + noise_t delta, the inverse of `to_centred`."""
  return y_t if not _moves(drift) else y_t + _offset(y_t, level_t, of(drift))


def centred(denoise, schedule, drift, prediction='epsilon'):
  """Wraps denoise (z_t, t) -> output for the coordinates that the solver runs in.

  prior: eps_c(y, t) = eps(y + noise_t delta, t) - delta; the clean latent is the same
  in both coordinates, so v changes by signal_t delta and the flow's velocity by delta.
  A `raw` network returns centred noise already. The other variants run on z_t itself:
  there a raw output gets back what its target left out.
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


def _moves(drift):
  drift = of(drift)
  return drift is not None and _is_prior(drift) and not _is_zero(drift.value)


def _offset(z, level_t, drift):
  _, noise = process.signal_and_noise(level_t, z)
  return noise * jnp.asarray(drift.value, z.dtype)


def _is_zero(value):
  """True for concrete zeros: then every function here is the identity."""
  return not isinstance(value, jax.core.Tracer) and not np.any(np.asarray(value))
