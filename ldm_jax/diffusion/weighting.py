"""How much each time counts in the loss: weights, and densities of the times drawn.

[Hang23] arXiv 2303.09556 (min-SNR-gamma), [Esser24] arXiv 2403.03206 (logit-normal),
[Ghalebikesabi23] arXiv 2302.13861 (piecewise, for private training). Both change one
example's loss before its gradient exists, so in private training they come before
clipping and cost no privacy; chosen by looking at private data they would.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from ldm_jax.diffusion import process

DENSITIES = ('uniform', 'logit_normal', 'beta', 'piecewise', 'private')
# [Ghalebikesabi23] App. C, of 1000 times: nearly all draws from 30 to 800, where what
# is learned of an image is decided; the ends are rarely drawn.
PRIVATE_PIECES = ((0.0, 0.03, 0.05), (0.03, 0.8, 0.9), (0.8, 1.0, 0.05))


def min_snr(level_t, prediction, gamma):
  """Returns the weight of a squared error at a level, shaped like it. [Hang23].

  The error of the clean latent counts min(snr, gamma), snr = (signal / noise)^2, and
  a prediction's own error moves the clean latent by a known factor:
    weight = min(signal^2, gamma noise^2) / scale^2
  with scale = signal for `epsilon`, noise for `sample`, 1 for `v` (where the variance
  is kept) and signal + noise for `flow`. All predictions of one network thus have one
  loss. At a level without signal the weight is 0, of `epsilon` 1.
  """
  process.check_prediction(prediction)
  signal, noise = process.signal_and_noise(level_t, jnp.zeros(()))
  if prediction == 'epsilon':
    return jnp.minimum(1.0, gamma * (noise / signal) ** 2)
  scale = {'sample': noise, 'v': 1.0, 'flow': signal + noise}[prediction]
  return jnp.minimum(signal**2, gamma * noise**2) / scale**2


def density(name, num_timesteps, mean=0.0, std=1.0, shape=(1.0, 1.0), pieces=()):
  """Returns the probability of every time 0..T-1, float64 (T,); they sum to 1.

  Time t stands for the interval [t / T, (t + 1) / T] of x in [0, 1], 0 clean.

  Args:
    name: one of DENSITIES.
    num_timesteps: T.
    mean, std: of `logit_normal`, logit(x) ~ N(mean, std^2). [Esser24] Sec. 3.1.
    shape: (a, b) of `beta`, x ~ Beta(a, b); with b = 1 the power a x^(a - 1).
    pieces: (from, to, share) of `piecewise`, uniform within each; 0 <= from < to <= 1,
      shares sum to 1, pieces may overlap. `private` is PRIVATE_PIECES.

  Raises:
    ValueError: an unknown name or parameters out of range.
  """
  if name == 'private':
    name, pieces = 'piecewise', PRIVATE_PIECES
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
      f'Unknown density of times {name!r}; diffusion.times.density and '
      f'adapt.times.density must be one of {list(DENSITIES)}.'
    )
  probabilities = np.maximum(np.diff(below), 0)
  return probabilities / probabilities.sum()


def draw_time(key, probabilities):
  """Draws one time, int32 (), from probabilities (T,), by inversion."""
  below = np.cumsum(probabilities)
  # The last edge is 1 whatever the rounding, and no time of probability 0 is drawn.
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
      f'times.{key} is {value!r}, but must be {required}. Change '
      f'diffusion.times.{key}, or adapt.times.{key} where adaptation has its own.'
    )
