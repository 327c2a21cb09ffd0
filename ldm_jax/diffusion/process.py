"""The forward process, its posterior, and what a network may predict of it.

Latents are (b, ..., c), times and alpha_bar_t are (b,) or scalars.
z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps, eps ~ N(0, 1).
[Ho20] arXiv 2006.11239, [Salimans22] arXiv 2202.00512 (v-prediction).
"""

import jax.numpy as jnp

PREDICTIONS = ('epsilon', 'v', 'sample')


def expand_like(a, z):
  """Gives a scalar or (b,) array trailing axes so that it multiplies z (b, ..., c)."""
  a = jnp.asarray(a)
  return a.reshape(a.shape + (1,) * (z.ndim - a.ndim)) if a.ndim else a


def signal_and_noise(alpha_bar_t, z):
  """Returns sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), shaped to multiply z."""
  a_t = expand_like(alpha_bar_t, z)
  return jnp.sqrt(a_t), jnp.sqrt(1 - a_t)


def add_noise(z_0, eps, alpha_bar_t):
  """Diffuses z_0 (b, ..., c) to time t with the noise eps. [Ho20] Eq. 4."""
  signal, noise = signal_and_noise(alpha_bar_t, z_0)
  return signal * z_0 + noise * eps


def velocity(z_0, eps, alpha_bar_t):
  """Returns v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z_0. [Salimans22] App. D."""
  signal, noise = signal_and_noise(alpha_bar_t, z_0)
  return signal * eps - noise * z_0


def training_target(z_0, eps, alpha_bar_t, prediction='epsilon'):
  """Returns what the network should output for `prediction` in PREDICTIONS."""
  check_prediction(prediction)
  if prediction == 'epsilon':
    return eps
  if prediction == 'sample':
    return z_0
  return velocity(z_0, eps, alpha_bar_t)


def to_epsilon(output, z_t, alpha_bar_t, prediction='epsilon'):
  """Turns a network output at z_t (b, ..., c) into the predicted noise."""
  check_prediction(prediction)
  if prediction == 'epsilon':
    return output
  signal, noise = signal_and_noise(alpha_bar_t, z_t)
  if prediction == 'sample':
    return (z_t - signal * output) / noise
  return signal * output + noise * z_t


def to_z_0(eps_hat, z_t, alpha_bar_t):
  """Returns the clean latent that z_t and the predicted noise imply; alpha_bar > 0."""
  signal, noise = signal_and_noise(alpha_bar_t, z_t)
  return (z_t - noise * eps_hat) / signal


def to_pair(output, z_t, alpha_bar_t, prediction='epsilon'):
  """Turns a network output into (z_0_hat, eps_hat), the pair every solver moves by.

  Each of the two is computed from the output itself, so `v` and `sample` stay
  defined where alpha_bar_t = 0 (a schedule that ends in pure noise).
  """
  eps_hat = to_epsilon(output, z_t, alpha_bar_t, prediction)
  if prediction == 'sample':
    return output, eps_hat
  if prediction == 'v':
    signal, noise = signal_and_noise(alpha_bar_t, z_t)
    return signal * z_t - noise * output, eps_hat
  return to_z_0(eps_hat, z_t, alpha_bar_t), eps_hat


def posterior(z_0, z_t, alpha_bar_t, alpha_bar_s):
  """Returns mean and variance of q(z_s | z_t, z_0) for any s < t. [Ho20] Eq. 7.

  Written for two times of a respaced grid: alpha between them is the ratio of the
  two alpha_bar. At the clean time (alpha_bar_s = 1) it is z_0 with variance 0.
  """
  a_t, a_s = expand_like(alpha_bar_t, z_t), expand_like(alpha_bar_s, z_t)
  alpha = a_t / a_s
  mean = (
    jnp.sqrt(a_s) * (1 - alpha) / (1 - a_t) * z_0
    + jnp.sqrt(alpha) * (1 - a_s) / (1 - a_t) * z_t
  )
  return mean, (1 - alpha) * (1 - a_s) / (1 - a_t)


def check_prediction(prediction):
  """Raises ValueError unless `prediction` is one of PREDICTIONS."""
  if prediction not in PREDICTIONS:
    raise ValueError(
      f'Unknown prediction {prediction!r}; diffusion.prediction must be one of '
      f'{list(PREDICTIONS)}.'
    )
