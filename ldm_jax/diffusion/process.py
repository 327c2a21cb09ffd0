"""The forward process, its posterior, and what a network may predict.

Latents are (b, ..., c); z_t = signal z_0 + noise eps, eps ~ N(0, 1). A level gives the
two coefficients: a `Level(signal, noise)`, or alpha_bar alone if the process preserves
the variance, signal = sqrt(alpha_bar) and noise = sqrt(1 - alpha_bar). Both are (b,) or
scalars; `schedule.at(t)` gives them. All formulas here hold for any level.
[Ho20] arXiv 2006.11239, [Salimans22] arXiv 2202.00512 (v-prediction), [Liu23] arXiv
2209.03003 (rectified flow), [Kingma21] arXiv 2107.00630 (any signal and noise).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ldm_jax.types import Array

PREDICTIONS = ('epsilon', 'v', 'sample', 'flow')


class Level(NamedTuple):
  """The coefficients of z_0 and of the noise in z_t, (b,) or scalars."""

  signal: jax.Array
  noise: jax.Array


# A Level, or alpha_bar.
AnyLevel = Level | Array
# (z_t (b, ..., c), t (b,)) -> output (b, ..., c).
Denoiser = Callable[[Array, Array], Array]
# (z_s (b, ..., c), number of the step ()) -> z_s.
AfterStep = Callable[[Array, Array], Array]


def expand_like(a: Array, z: Array) -> jax.Array:
  """Gives a scalar or (b,) array trailing axes so that it multiplies z (b, ..., c)."""
  a = jnp.asarray(a)
  return a.reshape(a.shape + (1,) * (z.ndim - a.ndim)) if a.ndim else a


def signal_and_noise(level: AnyLevel, z: Array) -> tuple[jax.Array, jax.Array]:
  """Returns the coefficients of z_0 and eps at a level, shaped to multiply z."""
  if isinstance(level, Level):
    return expand_like(level.signal, z), expand_like(level.noise, z)
  alpha_bar = expand_like(level, z)
  return jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)


def add_noise(z_0: Array, eps: Array, level_t: AnyLevel) -> jax.Array:
  """Diffuses z_0 (b, ..., c) to time t with the noise eps. [Ho20] Eq. 4."""
  signal, noise = signal_and_noise(level_t, z_0)
  return signal * z_0 + noise * eps


def velocity(z_0: Array, eps: Array, level_t: AnyLevel) -> jax.Array:
  """Returns v = signal eps - noise z_0. [Salimans22] App. D."""
  signal, noise = signal_and_noise(level_t, z_0)
  return signal * eps - noise * z_0


def training_target(
  z_0: Array, eps: Array, level_t: AnyLevel, prediction: str = 'epsilon'
) -> Array:
  """Returns what the network should output for `prediction` in PREDICTIONS.

  `flow` is the velocity eps - z_0 of the straight line. [Liu23] Eq. 1.
  """
  check_prediction(prediction)
  if prediction == 'epsilon':
    return eps
  if prediction == 'sample':
    return z_0
  if prediction == 'flow':
    return eps - z_0
  return velocity(z_0, eps, level_t)


def to_epsilon(
  output: Array, z_t: Array, level_t: AnyLevel, prediction: str = 'epsilon'
) -> Array:
  """Turns a network output at z_t (b, ..., c) into the predicted noise."""
  check_prediction(prediction)
  if prediction == 'epsilon':
    return output
  signal, noise = signal_and_noise(level_t, z_t)
  if prediction == 'sample':
    return (z_t - signal * output) / noise
  if prediction == 'flow':
    return (z_t + signal * output) / (signal + noise)
  return signal * output + noise * z_t


def to_z_0(eps_hat: Array, z_t: Array, level_t: AnyLevel) -> jax.Array:
  """Returns the clean latent that follows from z_t and the noise; needs signal > 0."""
  signal, noise = signal_and_noise(level_t, z_t)
  return (z_t - noise * eps_hat) / signal


def to_pair(
  output: Array, z_t: Array, level_t: AnyLevel, prediction: str = 'epsilon'
) -> tuple[Array, Array]:
  """Turns a network output into (z_0_hat, eps_hat), which the solvers use.

  Each of the two is computed from the output itself, so all predictions but `epsilon`
  are defined also where no signal is left (a schedule that ends in pure noise).
  """
  eps_hat = to_epsilon(output, z_t, level_t, prediction)
  signal, noise = signal_and_noise(level_t, z_t)
  if prediction == 'sample':
    return output, eps_hat
  if prediction == 'v':
    return signal * z_t - noise * output, eps_hat
  if prediction == 'flow':
    return (z_t - noise * output) / (signal + noise), eps_hat
  return to_z_0(eps_hat, z_t, level_t), eps_hat


def posterior(
  z_0: Array,
  z_t: Array,
  level_t: AnyLevel,
  level_s: AnyLevel,
  added: Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Returns mean and variance of q(z_s | z_t, z_0) for any s < t. [Kingma21] App. A.2.

  For any two times of a respaced grid; [Ho20] Eq. 7 for neighbours. At the clean time
  (noise_s = 0) it is z_0 with variance 0. `added` is the variance of z_t given z_s from
  `schedule.between`, which is more accurate than if computed from the two levels.
  """
  signal_t, noise_t = signal_and_noise(level_t, z_t)
  signal_s, noise_s = signal_and_noise(level_s, z_t)
  added = _added(added, z_t, level_t, level_s)
  share = (noise_s / noise_t) ** 2
  mean = signal_s * added / noise_t**2 * z_0 + share * signal_t / signal_s * z_t
  return mean, share * added


def posterior_variance(
  z_t: Array, level_t: AnyLevel, level_s: AnyLevel, added: Array | None = None
) -> jax.Array:
  """The variance of `posterior` alone."""
  _, noise_t = signal_and_noise(level_t, z_t)
  _, noise_s = signal_and_noise(level_s, z_t)
  return (noise_s / noise_t) ** 2 * _added(added, z_t, level_t, level_s)


def check_prediction(prediction: str, schedule: Any = None) -> None:
  """Raises ValueError unless `prediction` is one of PREDICTIONS and fits a schedule."""
  if prediction not in PREDICTIONS:
    raise ValueError(
      f'The prediction is {prediction!r}, expected one of {list(PREDICTIONS)}; change '
      'diffusion.prediction.'
    )
  if schedule is None:
    return
  if prediction == 'v' and not schedule.keeps_variance:
    raise ValueError(
      "The prediction 'v' needs signal^2 + noise^2 = 1, which does not hold for the "
      "schedule 'flow'; set diffusion.prediction='flow'."
    )
  if prediction == 'epsilon' and schedule.ends_in_noise:
    raise ValueError(
      "The prediction 'epsilon' does not determine the clean latent at the end of this "
      "schedule, where no signal is left; set diffusion.prediction to 'v' (with "
      "zero_terminal_snr) or 'flow'."
    )


def _added(added, z, level_t, level_s):
  """Variance of z_t given z_s, shaped to multiply z."""
  if added is not None:
    return expand_like(added, z)
  signal_t, noise_t = signal_and_noise(level_t, z)
  signal_s, noise_s = signal_and_noise(level_s, z)
  return noise_t**2 - (signal_t / signal_s * noise_s) ** 2
