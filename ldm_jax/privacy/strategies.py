"""Banded strategies of correlated noise: (steps, bands) -> Toeplitz coefficients (b,).

A strategy is the lower-triangular matrix C, (steps, steps), with the coefficients
c_0 ... c_{b-1} along its diagonals and every column scaled to L2 norm 1. Private
training releases the clipped sums plus sigma * clip_norm * C^{-1} z, z standard normal:
much of the noise of one step is taken back in the next ones, so that the sum of all
updates holds less of it than with independent noise.

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
  """Coefficients (num_bands,) of least mean squared error of all prefix sums.

  Returns:
    Tuple of floats of L2 norm 1; (1.0,) for one band. Found by numerical optimisation,
    so other versions and machines may find others: the ledger keeps what was used.

  Raises:
    ValueError: more bands than steps.
  """
  if num_bands > steps:
    raise ValueError(
      f'adapt.privacy.num_bands is {num_bands}, but there are {steps} steps; required '
      'are at most as many bands as steps. Change adapt.privacy.num_bands.'
    )
  if num_bands == 1:
    return (1.0,)
  from jax_privacy.matrix_factorization import toeplitz  # it imports jax

  found = np.asarray(toeplitz.optimize_banded_toeplitz(steps, num_bands), np.float64)
  return tuple(float(value) for value in found / np.linalg.norm(found))


def column_norms(coefficients: Sequence[float] | np.ndarray, steps: int) -> np.ndarray:
  """L2 norms (steps,) of the columns before scaling: the last b-1 are cut short."""
  squares = np.cumsum(np.square(np.asarray(coefficients, np.float64)))
  rows = np.minimum(steps - np.arange(steps), len(coefficients))
  return np.sqrt(squares[rows - 1])


def matrix(coefficients: Sequence[float] | np.ndarray, steps: int) -> np.ndarray:
  """C (steps, steps) in float64, its columns scaled to norm 1."""
  result = np.zeros((steps, steps))
  for band, value in enumerate(coefficients[:steps]):
    result += value * np.eye(steps, k=-band)
  return result / column_norms(coefficients, steps)


def check(coefficients: Sequence[float] | np.ndarray, steps: int) -> None:
  """Verifies in numbers what the sensitivity rests on; see schemes.Banded.

  The columns of C have norm 1, and two columns b or more apart have no row in common.
  Toeplitz columns repeat, so the first and the last 2 b of them stand for all.

  Raises:
    ValueError: where that does not hold, or C is not invertible.
  """
  values = np.asarray(coefficients, np.float64)
  bands = values.size
  if values.ndim != 1 or not 1 <= bands <= steps or not np.isfinite(values).all():
    raise ValueError(
      f'the strategy {coefficients} is no list of 1 to {steps} finite numbers. The '
      'ledger or the call that it comes from is damaged.'
    )
  if not abs(values[0]) > TOLERANCE:
    raise ValueError(f'the strategy {coefficients} begins with 0: it has no inverse.')
  found = matrix(values, min(steps, 4 * bands))
  norms = np.linalg.norm(found, axis=0)
  overlap = np.abs(np.triu((found != 0).T.astype(int) @ (found != 0), k=bands))
  if np.abs(norms - 1).max() > TOLERANCE or overlap.any():
    raise ValueError(
      f'the strategy {coefficients} gives columns of norm {norms.min()} to '
      f'{norms.max()}, {int((overlap > 0).sum())} pairs of them {bands} or more apart '
      'overlapping; required are norm 1 and none. Report this.'
    )


def mean_error(coefficients: Sequence[float] | np.ndarray, steps: int) -> float:
  """Root mean square error of the prefix sums per unit of noise; 1 band: the worst.

  sqrt(mean over t of the squared norms of the rows of A C^{-1}), A the prefix sums.
  """
  rows = np.cumsum(np.linalg.inv(matrix(coefficients, steps)), axis=0)
  return math.sqrt(np.mean(np.sum(np.square(rows), axis=1)))
