"""Noise that arithmetic cannot strip, for small releases: the exact discrete Gaussian.

A float32 normal added to a float32 sum lies on a grid that depends on the sum, so that
an attacker who knows all other patients sees from the last bits whether one took part
[Mironov12]. Here everything is whole numbers: each patient's row is rounded to a public
grid, rows are added exactly, and integer noise is drawn exactly, by Python's integers
[Canonne20, Algorithms 1 to 3]. Every multiple of the grid can be the result, whoever
takes part.

Privacy. Rows are rounded towards zero, so a row of L2 norm at most C keeps it: the sum
of the rounded rows has sensitivity C, rounding included. With deviation s in units of
the grid, at least the asked noise multiplier times C, the release satisfies
C^2 / (2 (s grid)^2)-zCDP, as the continuous Gaussian does ([Canonne20], concentrated
privacy of the multivariate discrete Gaussian), so its Renyi divergences are at most
those of the Gaussian. For (epsilon, delta) see `finite_precision.discrete`.

[Canonne20] Canonne, Kamath, Steinke, The Discrete Gaussian for Differential Privacy,
  NeurIPS 2020, arXiv:2004.00010.
[Mironov12] On Significance of the Least Significant Bits for Differential Privacy, CCS
  2012."""

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction

import jax
import numpy as np

from ldm_jax.privacy import chacha20, secret_key

# The grid is between 2^-35 and 2^-34 of the noise's standard deviation.
GRID_BITS = 34
LARGEST_SIZE = 2**20  # coordinates of one release, for `finite_precision.discrete`


class SecretStream:
  """Secret random integers from a key: SHAKE-256 of the key and a counter.

  The same key gives the same integers, so that a resumed run repeats its noise.
  """

  def __init__(self, secret: bytes):
    self._secret, self._block, self._bytes, self._place = secret, 0, b'', 0

  def __repr__(self):
    return 'SecretStream(secret)'

  def below(self, limit: int) -> int:
    """A uniform integer in 0 ... limit - 1, without bias."""
    bits = (limit - 1).bit_length()
    count = -(-bits // 8)
    while True:
      found = int.from_bytes(self._take(count)) >> (8 * count - bits)
      if found < limit:
        return found

  def _take(self, count):
    while len(self._bytes) - self._place < count:
      self._bytes, self._place = self._bytes[self._place :] + self._next(), 0
      self._block += 1
    self._place += count
    return self._bytes[self._place - count : self._place]

  def _next(self):
    return hashlib.shake_256(self._secret + self._block.to_bytes(8)).digest(8192)


class ChaCha20Stream(SecretStream):
  """The same from ChaCha20, for `adapt.privacy.generator='chacha20'`."""

  def __init__(self, secret: bytes):
    super().__init__(secret)
    self._keystream = chacha20.Keystream(secret)

  def _next(self):
    return self._keystream.take(chacha20.CHUNK)


def draw(deviation: int, below: Callable[[int], int]) -> int:
  """One exact sample of P(x) proportional to exp(-x^2 / (2 deviation^2)).

  [Canonne20, Algorithm 3]

  Args:
    deviation: whole number s >= 1.
    below: limit -> a uniform integer in 0 ... limit - 1.
  """
  scale = deviation + 1
  while True:
    x = _laplace(scale, below)
    distance = abs(x) * scale - deviation**2
    if _is_exponential(distance**2, 2 * deviation**2 * scale**2, below):
      return x


def _laplace(scale, below):
  """P(x) proportional to exp(-|x| / scale). [Canonne20, Algorithm 2]"""
  while True:
    rest = below(scale)
    if not _is_exponential(rest, scale, below):
      continue
    whole = 0
    while _is_exponential(1, 1, below):
      whole += 1
    size, is_negative = rest + scale * whole, below(2)
    if size or not is_negative:  # zero has one sign
      return -size if is_negative else size


def _is_exponential(above, under, below):
  """True with probability exp(-above / under). [Canonne20, Algorithm 1]"""
  while above > under:
    if not _is_exponential(1, 1, below):
      return False
    above -= under
  count = 1
  while below(under * count) < above:
    count += 1
  return count % 2 == 1


def grid(noise_multiplier: float, clip_norm: float) -> tuple[float, int]:
  """(spacing, noise deviation in units of the spacing) for a release.

  The spacing is a power of two and depends on public numbers alone. The deviation is
  rounded up, so the noise is never less than noise_multiplier * clip_norm.
  """
  wanted = Fraction(noise_multiplier) * Fraction(clip_norm)
  spacing = Fraction(2) ** (math.frexp(float(wanted))[1] - 1 - GRID_BITS)
  return float(spacing), math.ceil(wanted / spacing)


def noisy_sum(
  rows: np.ndarray, clip_norm: float, noise_multiplier: float, key: jax.Array
) -> np.ndarray:
  """Sum of rows with discrete Gaussian noise, on the public grid of `grid`.

  Args:
    rows: (n, m) float64, each of L2 norm at most clip_norm. They are made shorter by a
      factor 1 - (m + 16) 2^-52 before they are rounded towards zero, which exceeds the
      rounding errors of a norm of m numbers in float64.
    clip_norm, noise_multiplier: finite, > 0.
    key: a secret key of this release alone, () or (4,) as of `secret_key`, which says
      by which generator the noise is drawn.

  Returns:
    (m,) float64 multiples of the spacing, exact.

  Raises:
    ValueError: more columns than LARGEST_SIZE.
  """
  count, size = rows.shape
  if size > LARGEST_SIZE:
    raise ValueError(
      f'expected at most {LARGEST_SIZE} numbers in one private release, got {size}; '
      'release fewer bins or coordinates (adapt.privacy.releases).'
    )
  spacing, deviation = grid(noise_multiplier, clip_norm)
  whole = on_grid(rows, spacing)
  if clip_norm / spacing * max(count, 1) < 2**62:
    sums = [int(total) for total in whole.astype(np.int64).sum(axis=0)]
  else:  # hardly any noise: beyond 64 bits
    sums = [sum(map(int, column)) for column in whole.T]
  data = np.asarray(jax.random.key_data(key), '<u4').tobytes()
  is_chacha20 = secret_key.generator_of(key) == secret_key.CHACHA20
  kind = ChaCha20Stream if is_chacha20 else SecretStream
  stream = kind(b'ldm_jax discrete gaussian ' + data)
  noisy = [total + draw(deviation, stream.below) for total in sums]
  return np.array([float(number * Fraction(spacing)) for number in noisy])


def on_grid(rows: np.ndarray, spacing: float) -> np.ndarray:
  """Rows (n, m) -> whole multiples of the spacing, no row longer than before."""
  shorter = 1 - (rows.shape[1] + 16) * 2.0**-52
  return np.trunc(rows * shorter / spacing)
