"""Weights of the times in the loss, and densities of the times drawn in training.

[Hang23] arXiv 2303.09556 (min-SNR-gamma), [Esser24] arXiv 2403.03206 (logit-normal),
[Ghalebikesabi23] arXiv 2302.13861 (piecewise, for private training). Both change the
loss of one example before its gradient is computed, so in private training they take
effect before clipping and cost no privacy, unless they are chosen by looking at private
data.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from ldm_jax.diffusion import process
from ldm_jax.diffusion.process import AnyLevel
from ldm_jax.types import Array

DENSITIES = ('uniform', 'logit_normal', 'beta', 'piecewise', 'private')
# [Ghalebikesabi23] App. C, as fractions of 1000 times: 90 % of the draws from 30 to
# 800, which matter most for the content of images; the ends are rarely drawn.
PRIVATE_PIECES = ((0.0, 0.03, 0.05), (0.03, 0.8, 0.9), (0.8, 1.0, 0.05))


def min_snr(level_t: AnyLevel, prediction: str, gamma: float) -> jax.Array:
  """Returns the weight of a squared error at a level, shaped like it. [Hang23].

  The squared error of the clean latent has the weight min(snr, gamma), snr = (signal /
  noise)^2. Converted to the error of what the network predicts this is
    weight = min(signal^2, gamma noise^2) / scale^2
  with scale = signal for `epsilon`, noise for `sample`, 1 for `v` (if the variance is
  preserved) and signal + noise for `flow`, so that the loss is the same for every
  prediction. At a level without signal the weight is 0, for `epsilon` 1.
  """
  process.check_prediction(prediction)
  signal, noise = process.signal_and_noise(level_t, jnp.zeros(()))
  if prediction == 'epsilon':
    return jnp.minimum(1.0, gamma * (noise / signal) ** 2)
  scales: dict[str, Array] = {'sample': noise, 'v': 1.0, 'flow': signal + noise}
  return jnp.minimum(signal**2, gamma * noise**2) / scales[prediction] ** 2


def density(
  name: str,
  num_timesteps: int,
  mean: float = 0.0,
  std: float = 1.0,
  shape: Sequence[float] = (1.0, 1.0),
  pieces: Sequence[Sequence[float]] = (),
) -> np.ndarray:
  """Returns the probability of every time 0..T-1, float64 (T,); they sum to 1.

  Time t stands for the interval [t / T, (t + 1) / T] of x in [0, 1], 0 clean.

  Args:
    name: one of DENSITIES.
    num_timesteps: T.
    mean, std: of `logit_normal`, logit(x) ~ N(mean, std^2). [Esser24] Sec. 3.1.
    shape: (a, b) of `beta`, x ~ Beta(a, b); with b = 1 the density is a x^(a - 1).
    pieces: (from, to, share) of `piecewise`, uniform within each; 0 <= from < to <= 1,
      shares sum to 1, pieces may overlap. `private` is `piecewise` with PRIVATE_PIECES.

  Raises:
    ValueError: an unknown name or parameters out of range.
  """
  if name == 'private':
    name, pieces = 'piecewise', PRIVATE_PIECES
  below: Array
  edges = np.arange(num_timesteps + 1) / num_timesteps
  if name == 'uniform':
    below = edges
  elif name == 'logit_normal':
    _require(std > 0, 'logit_std', std, 'positive')
    with np.errstate(divide='ignore'):
      logit = np.log(edges) - np.log1p(-edges)
    below = special.ndtr((logit - mean) / std)
  elif name == 'beta':
    fits = len(shape) == 2 and min(shape) > 0
    _require(fits, 'beta', shape, 'two positive numbers')
    below = special.betainc(*shape, edges)
  elif name == 'piecewise':
    _check_pieces(pieces)
    below = sum(
      share * np.clip((edges - start) / (end - start), 0, 1)
      for start, end, share in pieces
    )
  else:
    raise ValueError(
      f'The density of times is {name!r}, expected one of {list(DENSITIES)}; change '
      'diffusion.times.density or adapt.times.density.'
    )
  probabilities = np.maximum(np.diff(below), 0)
  return probabilities / probabilities.sum()


def draw_time(key: jax.Array, probabilities: Array) -> jax.Array:
  """Draws one time, int32 (), from probabilities (T,), by inversion."""
  below = np.cumsum(probabilities)
  # Divided so that the last edge is exactly 1: no time of probability 0 is drawn.
  edges = jnp.asarray(below[:-1] / below[-1], jnp.float32)
  return jnp.searchsorted(edges, jax.random.uniform(key), side='right').astype('int32')


def _check_pieces(pieces):
  fits = len(pieces) > 0 and all(
    isinstance(piece, tuple | list)
    and len(piece) == 3
    and 0 <= piece[0] < piece[1] <= 1
    and piece[2] > 0
    for piece in pieces
  )
  _require(
    fits and abs(sum(piece[2] for piece in pieces) - 1) < 1e-6,
    'pieces',
    pieces,
    'triples (from, to, share), 0 <= from < to <= 1, whose shares sum to 1, such as '
    '((0.0, 0.03, 0.05), (0.03, 0.8, 0.9), (0.8, 1.0, 0.05))',
  )


def _require(holds, key, value, required):
  if not holds:
    raise ValueError(
      f'times.{key} is {value!r}, expected {required}. Change diffusion.times.{key}, '
      f'or adapt.times.{key} if adaptation has its own.'
    )
