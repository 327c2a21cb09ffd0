"""Noise schedules: how much of the signal is left at every time.

Times are integers 0..T-1; time -1 is the clean latent. `Schedule` preserves the
variance (level alpha_bar), `FlowSchedule` is the straight line from latent to noise.
[Ho20] arXiv 2006.11239, [Nichol21] arXiv 2102.09672, [Lin24] arXiv 2305.08891,
[Liu23] arXiv 2209.03003, [Esser24] arXiv 2403.03206. `linear` has evenly spaced
betas, `scaled_linear` evenly spaced square roots of them (Stable Diffusion), `sigmoid`
betas on a logistic curve, `cosine` is [Nichol21] Eq. 17 with betas clipped at 0.999.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.diffusion.process import Level
from ldm_jax.types import Array

NAMES = ('linear', 'scaled_linear', 'sigmoid', 'cosine', 'flow')


@flax.struct.dataclass
class Schedule:
  """A pytree of betas (T,) and alpha_bar (T,), the cumulative product of 1 - beta.

  `clean` is alpha_bar at time -1. It is 1; MONAI and diffusers use alpha_bar[0] with
  `set_alpha_to_one=False`.
  """

  betas: jax.Array
  alpha_bar: jax.Array
  clean: float = 1.0

  keeps_variance = True

  @property
  def num_timesteps(self) -> int:
    """T."""
    return self.alpha_bar.shape[0]

  @property
  def ends_in_noise(self) -> bool:
    """Whether no signal is left at time T-1; False while traced."""
    traced = isinstance(self.alpha_bar, jax.core.Tracer)
    return not traced and float(np.asarray(self.alpha_bar)[-1]) == 0

  def at(self, t: Array) -> jax.Array:
    """Returns alpha_bar at integer times t of any shape; `clean` at time -1."""
    t = jnp.asarray(t)
    return jnp.where(t < 0, self.clean, self.alpha_bar[jnp.maximum(t, 0)])

  def between(self, t: Array, s: Array) -> jax.Array:
    """Returns the variance that is added from time s to t > s, given z_s.

    It is 1 - alpha_bar_t / alpha_bar_s; between neighbours beta itself, from which the
    quotient of rounded numbers differs by up to 1e-3 of its size.
    """
    t, s = jnp.asarray(t), jnp.asarray(s)
    return jnp.where(s == t - 1, self.betas[t], 1 - self.at(t) / self.at(s))


@flax.struct.dataclass
class FlowSchedule:
  """Rectified flow: z_t = (1 - u) z_0 + u eps with u = noise[t]. [Liu23] Eq. 1.

  A pytree of noise (T,), increasing to exactly 1 at time T-1. A denoiser sees the
  integer time t as under any other schedule; 1 / T is the resolution of u.
  """

  noise: jax.Array

  keeps_variance = False
  ends_in_noise = True

  @property
  def num_timesteps(self) -> int:
    """T."""
    return self.noise.shape[0]

  def at(self, t: Array) -> Level:
    """Returns the `Level` at integer times t of any shape; clean at time -1."""
    t = jnp.asarray(t)
    noise = jnp.where(t < 0, 0.0, self.noise[jnp.maximum(t, 0)])
    return Level(1 - noise, noise)

  def between(self, t: Array, s: Array) -> jax.Array:
    """Returns the variance that is added from time s to t > s, given z_s."""
    (signal_t, noise_t), (signal_s, noise_s) = self.at(t), self.at(s)
    return noise_t**2 - (signal_t / signal_s * noise_s) ** 2


AnySchedule = Schedule | FlowSchedule
# Of the signal's amplitude at the last time; with more left, samples, which start from
# pure noise, lack part of the data's spread of brightness. [Lin24] Section 3.1
MOST_SIGNAL_LEFT = 0.1


def signal_left(schedule: AnySchedule) -> float:
  """The coefficient of z_0 at the last time: sqrt(alpha_bar_T), 0 of a flow."""
  if isinstance(schedule, FlowSchedule):
    return 0.0
  return float(np.sqrt(np.asarray(schedule.alpha_bar, np.float64)[-1]))


def schedule(
  name: str = 'scaled_linear',
  num_timesteps: int = 1000,
  beta_start: float = 1e-4,
  beta_end: float = 2e-2,
  zero_terminal_snr: bool = False,
  shift: float = 1.0,
) -> AnySchedule:
  """Builds the named schedule, stored in float32.

  Args:
    name: one of NAMES; `flow` gives a `FlowSchedule`, the others a `Schedule`.
    num_timesteps: T.
    beta_start, beta_end: ignored by `cosine` and `flow`.
    zero_terminal_snr: see `to_zero_terminal_snr`; always true of `flow`.
    shift: see `flow`; ignored by the others.

  Raises:
    ValueError: an unknown name, no timesteps, betas outside (0, 1), a shift <= 0.
  """
  if num_timesteps < 1:
    raise ValueError(
      f'Expected at least 1 timestep, got {num_timesteps}; set '
      'diffusion.schedule.num_timesteps.'
    )
  if name not in NAMES:
    raise ValueError(
      f'The schedule is {name!r}, expected one of {list(NAMES)}; change '
      'diffusion.schedule.name.'
    )
  if name == 'flow':
    return flow(num_timesteps, shift)
  if name != 'cosine' and not 0 < beta_start <= beta_end < 1:
    raise ValueError(
      f'Expected 0 < beta_start <= beta_end < 1, got beta_start={beta_start} and '
      f'beta_end={beta_end}; change them in diffusion.schedule.'
    )
  # Numbers, also where the caller is traced: a schedule depends on no traced value.
  with jax.ensure_compile_time_eval():
    built = from_betas(_betas(name, num_timesteps, beta_start, beta_end))
    return to_zero_terminal_snr(built) if zero_terminal_snr else built


def from_betas(betas: Array) -> Schedule:
  """Builds a schedule from any betas (T,) in (0, 1].

  1 - beta is rounded to float32 before the product, as in the implementations that
  published weights were trained with; it changes 1 - alpha_bar at the first times by a
  factor of up to 1e-4.
  """
  betas = np.asarray(betas, np.float32)
  alpha_bar = np.cumprod((1 - betas).astype(np.float64))
  return Schedule(betas=jnp.asarray(betas), alpha_bar=jnp.asarray(alpha_bar, 'float32'))


def to_zero_terminal_snr(schedule: Schedule) -> Schedule:
  """Shifts and scales sqrt(alpha_bar) so that it ends at 0. [Lin24] Algorithm 1.

  The first alpha_bar is unchanged. Training and sampling then both include pure noise;
  the network must not predict `epsilon`, which does not determine z_0 there.

  Raises:
    ValueError: a schedule of fewer than 2 times.
  """
  if schedule.num_timesteps < 2:
    raise ValueError(
      f'Expected at least 2 times for zero_terminal_snr, got {schedule.num_timesteps}; '
      'set diffusion.schedule.num_timesteps or zero_terminal_snr=False.'
    )
  signal = np.sqrt(np.asarray(schedule.alpha_bar, np.float64))
  first, last = signal[0], signal[-1]
  alpha_bar = ((signal - last) * first / (first - last)) ** 2
  betas = 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])
  return dataclasses.replace(
    schedule,
    betas=jnp.asarray(betas, jnp.float32),
    alpha_bar=jnp.asarray(alpha_bar, jnp.float32),
  )


def flow(num_timesteps: int = 1000, shift: float = 1.0) -> FlowSchedule:
  """Builds a `FlowSchedule`: u = shift x / (1 + (shift - 1) x), x = (t + 1) / T.

  A shift above 1 puts more times near the noise, which large latents need.
  [Esser24] Eq. 23, with shift = sqrt(m / n).

  Raises:
    ValueError: a shift that is not positive.
  """
  if not shift > 0:
    raise ValueError(
      f'Expected a positive shift, got {shift}; set diffusion.schedule.shift.'
    )
  x = np.arange(1, num_timesteps + 1) / num_timesteps
  return FlowSchedule(noise=jnp.asarray(shift * x / (1 + (shift - 1) * x), 'float32'))


def _betas(name, num_timesteps, beta_start, beta_end):
  """Betas (T,) float32, each rounded as in the reference (see `from_betas`)."""
  if name == 'linear':
    return _linspace(beta_start, beta_end, num_timesteps)
  if name == 'scaled_linear':
    return _linspace(beta_start**0.5, beta_end**0.5, num_timesteps) ** 2
  if name == 'sigmoid':
    logistic = 1 / (1 + np.exp(-_linspace(-6, 6, num_timesteps)))
    return logistic * np.float32(beta_end - beta_start) + np.float32(beta_start)
  u = np.arange(num_timesteps + 1, dtype=np.float32) / np.float32(num_timesteps)
  angle = (u + np.float32(0.008)) / np.float32(1.008) * np.float32(np.pi) / 2
  alpha_bar = np.cos(angle) ** 2
  return np.clip(1 - alpha_bar[1:] / alpha_bar[:-1], 0, 0.999)


def _linspace(start, end, num):
  """Evenly spaced float32 numbers: multiples of a float32 step from the nearer end."""
  start, end = np.float32(start), np.float32(end)
  step, i = np.float64((end - start) / np.float32(max(num - 1, 1))), np.arange(num)
  spaced = np.where(i < (num + 1) // 2, start + step * i, end - step * (num - 1 - i))
  return spaced.astype(np.float32)
