"""Tighter lower bounds on epsilon that assume Gaussian noise.

If the noise is known to be Gaussian, its standard deviation and mean are sufficient,
and no rates of rare guesses have to be estimated: a few dozen canaries reveal noise
that is a few tens of percent too small. `audit.py` has the bounds without assumption.

[Nasr23] Nasr et al., Tight Auditing of DP-SGD, USENIX 2023 (Gaussian trade-off).
"""

import math

import numpy as np
from scipy import stats

from ldm_jax.privacy import accounting
from ldm_jax.types import Array


def epsilon_from_gaussian_scores(
  member_scores: Array, other_scores: Array, delta: float, confidence: float = 0.95
) -> float:
  """Lower bound on epsilon of a Gaussian mechanism from two sets of scores. [Nasr23]

  Assumes independent Gaussian scores of equal standard deviation. Then
  mu = (difference of means) / deviation is the parameter of the mechanism in the sense
  of Gaussian DP. It is bounded from below by limits of Student's t and the chi-squared
  distribution, each with half of the error probability.

  Args:
    member_scores, other_scores: (n,), (m,), with and without the canary.
    delta: in (0, 1), of the mechanism that is audited.
    confidence: probability that the bound holds.

  Returns:
    epsilon >= 0; inf for scores without any spread.
  """
  members, others = _checked(member_scores), _checked(other_scores)
  freedom = members.size + others.size - 2
  error = (1 - confidence) / 2
  squares = np.sum((members - members.mean()) ** 2)
  squares += np.sum((others - others.mean()) ** 2)
  largest = math.sqrt(squares / stats.chi2.ppf(error, freedom))
  pooled = math.sqrt(squares / freedom)
  widths = math.sqrt(1 / members.size + 1 / others.size)
  difference = members.mean() - others.mean()
  difference -= stats.t.ppf(1 - error, freedom) * pooled * widths
  if not difference > 1e-3 * largest:
    return 0.0
  if not largest > 1e-6 * difference:
    return math.inf
  mu = difference / largest
  return accounting.epsilon([accounting.gaussian_event(1 / mu)], delta)['pld']


def deviation(values: Array, confidence: float = 0.95) -> dict[str, float]:
  """Standard deviation about zero of Gaussian values, with its chi-squared interval.

  Args:
    values: any shape, at least 2 values.
    confidence: of the interval.

  Returns:
    {'value':, 'low':, 'high':, 'n':}
  """
  values = _checked(values)
  squares, error = float(np.sum(values**2)), (1 - confidence) / 2
  return {
    'value': math.sqrt(squares / values.size),
    'low': math.sqrt(squares / stats.chi2.ppf(1 - error, values.size)),
    'high': math.sqrt(squares / stats.chi2.ppf(error, values.size)),
    'n': values.size,
  }


def _checked(values):
  values = np.asarray(values, np.float64).ravel()
  if values.size < 2 or not np.all(np.isfinite(values)):
    raise ValueError(
      f'expected at least 2 scores, all finite, got {values.size} scores; check the '
      'values for NaN and infinity.'
    )
  return values
