"""Banded strategies of correlated noise: (steps, bands) -> Toeplitz coefficients (b,).

A strategy is the lower-triangular matrix M (steps, steps), called C in [Choquette23],
with the coefficients c_0 ... c_{b-1} along its diagonals and every column scaled to L2
norm 1. Private training releases the clipped sums plus sigma * clip_norm * M^{-1} z,
with z standard normal. The following steps cancel much of the noise of a step, so the
sum of all updates contains less noise than with independent noise.

[Choquette23] Choquette-Choo et al., (Amplified) Banded Matrix Factorization, NeurIPS
  2023, arXiv:2306.08153.
[McKenna24] McKenna, Scaling up the Amplified Banded Matrix Factorization Mechanism,
  arXiv:2405.15913 (Toeplitz strategies are within 0.5 % of the best banded ones).
"""

import math
from collections.abc import Sequence

import numpy as np

TOLERANCE = 1e-12


def optimal(steps: int, num_bands: int) -> tuple[float, ...]:
  """Coefficients (num_bands,) that minimise the mean squared error of all prefix sums.

  Returns:
    Tuple of floats of L2 norm 1; (1.0,) for one band. Found by numerical optimisation,
    so other versions and machines may find other values: the ledger stores those in
    use.

  Raises:
    ValueError: more bands than steps.
  """
  if num_bands > steps:
    raise ValueError(
      f'expected at most as many bands as the {steps} steps, got {num_bands}; lower '
      'adapt.privacy.num_bands.'
    )
  if num_bands == 1:
    return (1.0,)
  from jax_privacy.matrix_factorization import toeplitz  # here, because it imports jax

  found = np.asarray(toeplitz.optimize_banded_toeplitz(steps, num_bands), np.float64)
  return tuple(float(value) for value in found / np.linalg.norm(found))


def column_norms(coefficients: Sequence[float] | np.ndarray, steps: int) -> np.ndarray:
  """L2 norms (steps,) of the unscaled columns; the last b-1 columns are truncated."""
  squares = np.cumsum(np.square(np.asarray(coefficients, np.float64)))
  rows = np.minimum(steps - np.arange(steps), len(coefficients))
  return np.sqrt(squares[rows - 1])


def matrix(coefficients: Sequence[float] | np.ndarray, steps: int) -> np.ndarray:
  """M (steps, steps) in float64, with columns scaled to norm 1."""
  result = np.zeros((steps, steps))
  for band, value in enumerate(coefficients[:steps]):
    result += value * np.eye(steps, k=-band)
  return result / column_norms(coefficients, steps)


def check(coefficients: Sequence[float] | np.ndarray, steps: int) -> None:
  """Verifies numerically the conditions of the sensitivity proof; see schemes.Banded.

  The columns of M have norm 1, and two columns at distance b or more have no row in
  common. Toeplitz columns repeat, so a matrix of min(steps, 4 b) steps contains every
  case.

  Raises:
    ValueError: a condition does not hold, or M is not invertible.
  """
  values = np.asarray(coefficients, np.float64)
  bands = values.size
  if values.ndim != 1 or not 1 <= bands <= steps or not np.isfinite(values).all():
    raise ValueError(
      f'expected a strategy of 1 to {steps} finite numbers, got {coefficients}; '
      'restore the ledger that it comes from, or correct the call.'
    )
  if not abs(values[0]) > TOLERANCE:
    raise ValueError(
      f'expected a strategy that begins with a number other than 0, got '
      f'{coefficients}, whose matrix has no inverse; restore the ledger.'
    )
  found = matrix(values, min(steps, 4 * bands))
  norms = np.linalg.norm(found, axis=0)
  overlap = np.abs(np.triu((found != 0).T.astype(int) @ (found != 0), k=bands))
  if np.abs(norms - 1).max() > TOLERANCE or overlap.any():
    raise ValueError(
      'expected columns of norm 1 without overlap at distance num_bands, got norms '
      f'{norms.min()} to {norms.max()} and {int((overlap > 0).sum())} overlapping '
      f'pairs for the strategy {coefficients}; report this as a bug.'
    )


def mean_error(coefficients: Sequence[float] | np.ndarray, steps: int) -> float:
  """Root mean square error of the prefix sums, per unit of noise.

  sqrt(mean over t of the squared norms of the rows of A M^{-1}), A the matrix of prefix
  sums. It is largest for one band.
  """
  rows = np.cumsum(np.linalg.inv(matrix(coefficients, steps)), axis=0)
  return math.sqrt(np.mean(np.sum(np.square(rows), axis=1)))
