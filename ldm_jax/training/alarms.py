"""Warnings about an autoencoder in training, each naming the tensor concerned."""

from collections.abc import Mapping

import numpy as np

from ldm_jax.types import Array

CONSTANT = 1e-3
LARGE = 1e3
# Nats per latent element below which a channel carries no information.
EMPTY = 1e-3


def of_latents(
  mean: Array, std: Array | None = None, may_be_constant: bool = False
) -> list[str]:
  """Alarms about posterior means (n,*space,c) and, unless None, deviations.

  may_be_constant: whether a channel without information is no cause for alarm.
  """
  mean = np.asarray(mean, np.float64)
  found = []
  for channel in range(mean.shape[-1]):
    values, name = mean[..., channel], f'latent channel {channel}'
    if not np.isfinite(values).all():
      found.append(f'{name} is not finite')
    elif np.abs(values).max() > LARGE:
      found.append(f'{name} blows up: it reaches {np.abs(values).max():.3g}')
    elif may_be_constant:
      continue
    elif values.std() < CONSTANT:
      found.append(f'{name} collapsed: its standard deviation is {values.std():.2g}')
    elif std is not None:
      s = np.asarray(std, np.float64)[..., channel]
      kl = (0.5 * (values**2 + s**2 - 1) - np.log(s)).mean()
      if kl < EMPTY:
        found.append(f'{name} collapsed to the prior: {kl:.2g} nats an element')
  return found


def of_reconstruction(x: Array, x_hat: Array) -> list[str]:
  """Alarms about reconstructions (n,*space,c) of volumes."""
  x, x_hat = np.asarray(x, np.float64), np.asarray(x_hat, np.float64)
  if not np.isfinite(x_hat).all():
    return ['reconstruction is not finite']
  axes = tuple(range(1, x.ndim))
  flat = x_hat.std(axes) < 0.05 * x.std(axes)
  if flat.all():
    return ['reconstruction is constant, whatever the volume']
  return []


def of_parameters(parameters: Mapping[str, Array]) -> list[str]:
  """Alarms about a flat dict path -> array."""
  found = []
  for path, leaf in parameters.items():
    size = float(np.sqrt(np.square(np.asarray(leaf, np.float64)).mean()))
    if not size < LARGE:
      found.append(f'parameter {path} blows up: its root mean square is {size:.3g}')
  return found


def of_codebook(statistics: Mapping[str, float]) -> list[str]:
  """Alarms about `training.codebook.usage_statistics`."""
  used, codes = statistics['used'], statistics['codes']
  if used > max(1, 0.05 * codes):
    return []
  return [f'quantizer/codebook collapsed: {used} of {codes} codes are used']


def of_discriminator(hinge: float) -> list[str]:
  """Alarms about a discriminator that always wins (hinge loss near 0)."""
  if hinge < 0.02:
    return [f'discriminator has won: its hinge loss of {hinge:.2g} gives no gradient']
  return []
