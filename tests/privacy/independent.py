"""An accountant that shares no code with the package: densities, grids and Fourier.

A pair of distributions is (weights, centres) of two mixtures of unit-step normals on a
line; its privacy loss is put on a grid and composed by plain FFT.
"""

import math

import numpy as np
from scipy.stats import norm


def density(mixture, sigma, x):
  """Density at x of {centre: weight}, normals of deviation sigma."""
  return sum(weight * norm.pdf(x, centre, sigma) for centre, weight in mixture.items())


def log_density(mixture, sigma, x):
  parts = [
    math.log(weight) + norm.logpdf(x, centre, sigma)
    for centre, weight in mixture.items()
    if weight > 0
  ]
  return np.logaddexp.reduce(parts, axis=0)


def sampled(q, reach=1.0):
  """Poisson-sampled Gaussian, one patient added: both directions."""
  pair = ({0.0: 1 - q, reach: q}, {0.0: 1.0})
  return [pair, pair[::-1]]


def exchanged(q, reach=1.0):
  """The same with one patient exchanged for the opposite one."""
  pair = ({0.0: 1 - q, -reach: q}, {0.0: 1 - q, reach: q})
  return [pair, pair[::-1]]


def loss_pmf(pair, sigma, step, cells):
  """Privacy loss under the first mixture, split on two cells: its mean stays exact."""
  x = np.linspace(-5 - 12 * sigma, 5 + 12 * sigma, 100_001)
  loss = log_density(pair[0], sigma, x) - log_density(pair[1], sigma, x)
  mass = density(pair[0], sigma, x) * (x[1] - x[0])
  low = np.floor(loss / step)
  share, index = loss / step - low, low.astype(int) + cells // 2
  keep = mass > 1e-25
  pmf = np.zeros(cells)
  np.add.at(pmf, index[keep], (mass * (1 - share))[keep])
  np.add.at(pmf, index[keep] + 1, (mass * share)[keep])
  return pmf


def epsilon(runs, delta, step=1e-3, reach=100.0):
  """Epsilon at delta of runs on the same patients.

  Args:
    runs: list of (both directions of steps, sigma, count), where a direction is a list
      of (weight, pair): the step is one of the pairs, and which one is known.
  """
  cells = 2 * int(reach / step)
  grid = (np.arange(cells) - cells // 2) * step
  worst = 0.0
  for direction in (0, 1):
    spectrum = 1.0
    for directions, sigma, count in runs:
      pmf = sum(
        weight * loss_pmf(pair, sigma, step, cells)
        for weight, pair in directions[direction]
      )
      spectrum = spectrum * np.fft.rfft(np.fft.ifftshift(pmf)) ** count
    total = np.fft.fftshift(np.fft.irfft(spectrum, cells))
    low, high = 0.0, reach / 2
    for _ in range(50):
      middle = (low + high) / 2
      tail = grid > middle
      excess = np.sum(total[tail] * -np.expm1(middle - grid[tail])) - delta
      low, high = (middle, high) if excess > 0 else (low, middle)
    worst = max(worst, high)
  return worst


def binomial(n, q, k):
  return math.comb(n, k) * q**k * (1 - q) ** (n - k)


def truncated(n, q, limit, exchange=False, tight=True):
  """Both directions of a truncated step among n patients, derived from its rule."""
  tau = sum(binomial(n - 1, q, k) for k in range(limit, n))
  kept = sum(
    binomial(n - 1, q, k) * q * limit / (k + 1) for k in range(limit, n)
  ) / max(tau, 1e-300)
  plain = exchanged(q) if exchange else sampled(q)
  cut = sampled(kept, 2.0) if tight and not exchange else exchanged(kept, 2.0)
  return [[(1 - tau, a), (tau, b)] for a, b in zip(plain, cut, strict=True)]


def run_of(release, relation, tight, grown):
  """A run for `epsilon`, from the fields of a release in privacy.json."""
  q, steps = release['sampling_probability'], release['steps']
  exchange = relation == 'substitute_one'
  one = [[(1.0, pair)] for pair in (exchanged(q) if exchange else sampled(q))]
  if release['mechanism'] == 'truncated_gaussian':
    n, limit = release['num_patients'] + grown, release['max_batch_size']
    one = truncated(n, q, limit, exchange, tight)
  if release['mechanism'] == 'banded_gaussian':
    steps = math.ceil(steps / release['num_bands'])
  return one, release['noise_multiplier'], steps


def of_releases(releases, delta, relation='add_or_remove_one', tight=False):
  """Epsilon at delta of releases on the same patients, one more or one less.

  tight: False bounds the truncated steps as dp_accounting does, from above.
  """
  truncates = any('max_batch_size' in release for release in releases)
  sizes = (0, 1) if truncates and relation == 'add_or_remove_one' else (0,)
  return max(
    epsilon([run_of(each, relation, tight, grown) for each in releases], delta)
    for grown in sizes
  )


def hockey_stick(p, q, volume, epsilon):
  """sup_E P(E) - e^epsilon Q(E) of two densities on one grid."""
  return float(np.sum(np.maximum(p - math.exp(epsilon) * q, 0)) * volume)
