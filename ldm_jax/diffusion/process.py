"""The forward process, its posterior, and what a network may predict of it.

Latents are (b, ..., c); z_t = signal z_0 + noise eps, eps ~ N(0, 1). A level says how
much of each is in z_t: a `Level(signal, noise)`, or alpha_bar alone where the variance
is kept, signal = sqrt(alpha_bar) and noise = sqrt(1 - alpha_bar). Both are (b,) or
scalars; `schedule.at(t)` gives them. All formulas here hold for any level.
[Ho20] arXiv 2006.11239, [Salimans22] arXiv 2202.00512 (v-prediction), [Liu23] arXiv
2209.03003 (rectified flow), [Kingma21] arXiv 2107.00630 (any signal and noise).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

PREDICTIONS = ('epsilon', 'v', 'sample', 'flow')


class Level(NamedTuple):
  """The coefficients of z_0 and of the noise in z_t, (b,) or scalars."""

  signal: jax.Array
  noise: jax.Array


def expand_like(a, z):
  """Gives a scalar or (b,) array trailing axes so that it multiplies z (b, ..., c)."""
  a = jnp.asarray(a)
  return a.reshape(a.shape + (1,) * (z.ndim - a.ndim)) if a.ndim else a


def signal_and_noise(level, z):
  """Returns the coefficients of z_0 and eps at a level, shaped to multiply z."""
  if isinstance(level, Level):
    return expand_like(level.signal, z), expand_like(level.noise, z)
  alpha_bar = expand_like(level, z)
  return jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)


def add_noise(z_0, eps, level_t):
  """Diffuses z_0 (b, ..., c) to time t with the noise eps. [Ho20] Eq. 4."""
  signal, noise = signal_and_noise(level_t, z_0)
  return signal * z_0 + noise * eps


def velocity(z_0, eps, level_t):
  """Returns v = signal eps - noise z_0. [Salimans22] App. D."""
  signal, noise = signal_and_noise(level_t, z_0)
  return signal * eps - noise * z_0


def training_target(z_0, eps, level_t, prediction='epsilon'):
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


def to_epsilon(output, z_t, level_t, prediction='epsilon'):
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


def to_z_0(eps_hat, z_t, level_t):
  """Returns the clean latent that z_t and the predicted noise imply; signal > 0."""
  signal, noise = signal_and_noise(level_t, z_t)
  return (z_t - noise * eps_hat) / signal


def to_pair(output, z_t, level_t, prediction='epsilon'):
  """Turns a network output into (z_0_hat, eps_hat), the pair every solver moves by.

  Each of the two is computed from the output itself, so all but `epsilon` stay
  defined where no signal is left (a schedule that ends in pure noise).
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


def posterior(z_0, z_t, level_t, level_s, added=None):
  """Returns mean and variance of q(z_s | z_t, z_0) for any s < t. [Kingma21] App. A.2.

  Written for two times of a respaced grid; [Ho20] Eq. 7 for neighbours. At the clean
  time (noise_s = 0) it is z_0 with variance 0. `added` is the variance of z_t given
  z_s, from `schedule.between`, where it is known better than from the two levels.
  """
  signal_t, noise_t = signal_and_noise(level_t, z_t)
  signal_s, noise_s = signal_and_noise(level_s, z_t)
  added = _added(added, z_t, level_t, level_s)
  share = (noise_s / noise_t) ** 2
  mean = signal_s * added / noise_t**2 * z_0 + share * signal_t / signal_s * z_t
  return mean, share * added


def posterior_variance(z_t, level_t, level_s, added=None):
  """The variance of `posterior` alone."""
  _, noise_t = signal_and_noise(level_t, z_t)
  _, noise_s = signal_and_noise(level_s, z_t)
  return (noise_s / noise_t) ** 2 * _added(added, z_t, level_t, level_s)


def check_prediction(prediction, schedule=None):
  """Raises ValueError unless `prediction` is one of PREDICTIONS and fits a schedule."""
  if prediction not in PREDICTIONS:
    raise ValueError(
      f'Unknown prediction {prediction!r}; diffusion.prediction must be one of '
      f'{list(PREDICTIONS)}.'
    )
  if schedule is None:
    return
  if prediction == 'v' and not schedule.keeps_variance:
    raise ValueError(
      "The prediction 'v' needs signal^2 + noise^2 = 1, which the schedule 'flow' "
      "does not keep; set diffusion.prediction='flow'."
    )
  if prediction == 'epsilon' and schedule.ends_in_noise:
    raise ValueError(
      "The prediction 'epsilon' says nothing about a latent of which no signal is "
      "left, where this schedule ends; set diffusion.prediction to 'v' (with "
      "zero_terminal_snr) or 'flow'."
    )


def _added(added, z, level_t, level_s):
  """Variance of z_t given z_s, shaped to multiply z."""
  if added is not None:
    return expand_like(added, z)
  signal_t, noise_t = signal_and_noise(level_t, z)
  signal_s, noise_s = signal_and_noise(level_s, z)
  return noise_t**2 - (signal_t / signal_s * noise_s) ** 2
