"""Latent drifting: a signed shift (delta) of the noise the process starts from.

[Yeganeh25] arXiv 2412.20651, read as a shifted Gaussian prior:
  train   eps = normal + delta, z_t as usual, the target is the shifted noise;
  sample  z_T = normal + delta, then any solver in the centred coordinates
          y_t = z_t - noise_t delta, noise_t = sqrt(1 - alpha_bar_t), in a flow t.
Drift is a scalar or per channel (c,); latents are (b, ..., c), levels as in `process`.
In the coordinates y this is ordinary diffusion: what a drift changes is where
fine-tuning starts.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.diffusion import process


def is_zero(drift):
  """True for None and for concrete zeros: then every function here is the identity."""
  if drift is None:
    return True
  return not isinstance(drift, jax.core.Tracer) and not np.any(np.asarray(drift))


def check_drift(drift, num_channels):
  """Raises ValueError unless drift is None, a finite scalar or (num_channels,)."""
  if drift is None:
    return
  shape = np.shape(drift)
  if shape not in ((), (num_channels,)):
    raise ValueError(
      f'A drift of shape {shape} does not fit latents of {num_channels} channels; '
      f'set adapt.drift to a number or to {num_channels} numbers.'
    )
  if not isinstance(drift, jax.core.Tracer) and not np.all(np.isfinite(drift)):
    raise ValueError(f'Drift {drift} is not finite; change adapt.drift.')


def shift_noise(eps, drift):
  """Returns the noise eps (b, ..., c) plus the drift; used to train and to start."""
  return eps if is_zero(drift) else eps + jnp.asarray(drift, eps.dtype)


def to_centred(z_t, level_t, drift):
  """Returns y_t = z_t - noise_t drift."""
  return z_t if is_zero(drift) else z_t - _offset(z_t, level_t, drift)


def from_centred(y_t, level_t, drift):
  """Returns z_t = y_t + noise_t drift."""
  return y_t if is_zero(drift) else y_t + _offset(y_t, level_t, drift)


def centred(denoise, schedule, drift, prediction='epsilon'):
  """Wraps denoise (z_t, t) -> output for use on centred latents y_t.

  eps_c(y, t) = eps(y + noise_t drift, t) - drift; the clean latent is the same in
  both coordinates, so v changes by signal_t drift and the flow's velocity by drift.
  """
  process.check_prediction(prediction)
  if is_zero(drift):
    return denoise

  def denoise_centred(y_t, t):
    level_t = schedule.at(t)
    output = denoise(from_centred(y_t, level_t, drift), t)
    if prediction == 'sample':
      return output
    if prediction in ('epsilon', 'flow'):
      return output - jnp.asarray(drift, output.dtype)
    signal, _ = process.signal_and_noise(level_t, y_t)
    return output - signal * jnp.asarray(drift, output.dtype)

  return denoise_centred


def _offset(z, level_t, drift):
  _, noise = process.signal_and_noise(level_t, z)
  return noise * jnp.asarray(drift, z.dtype)
