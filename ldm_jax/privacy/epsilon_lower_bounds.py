"""Privacy audits: lower bounds on epsilon from experiments, and membership tests.

An accountant proves an upper bound on epsilon; an audit measures a lower bound. A lower
bound above the claimed epsilon shows that the implementation is broken. A lower bound
below the claim does not prove that the claim holds. All bounds hold with the stated
confidence, for the given delta, under adding or removing one canary.

[Steinke23] Steinke, Nasr, Jagielski, Privacy Auditing with One (1) Training Run, 2023.
[Newcombe06] Newcombe, Confidence intervals for an effect size measure (method 5), 2006.

Tighter lower bounds on epsilon that assume Gaussian noise.

If the noise is known to be Gaussian, its standard deviation and mean are sufficient,
and no rates of rare guesses have to be estimated: a few dozen canaries reveal noise
that is a few tens of percent too small. `epsilon_lower_bounds.py` has the bounds
without assumption.

[Nasr23] Nasr et al., Tight Auditing of DP-SGD, USENIX 2023 (Gaussian trade-off).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from ldm_jax.privacy import accounting
from ldm_jax.types import Array


def epsilon_one_run(
  num_correct: int,
  num_guesses: int,
  num_canaries: int,
  delta: float,
  confidence: float = 0.95,
) -> float:
  """Lower bound on epsilon from one training run with many canaries. [Steinke23]

  An independent fair coin decides for each canary whether it is included. An attacker
  guesses the coins of the canaries it is most certain about and abstains from the rest.
  Theorem 5.2: under (epsilon, delta)-DP, P[at least v correct of r] <= beta + 2 m delta
  alpha, with W ~ Binomial(r, e^epsilon / (1 + e^epsilon)), beta = P[W >= v] and
  alpha = max_i P[v > W >= v - i] / i. The bound is the largest epsilon that this
  inequality rejects.

  Args:
    num_correct: v, correct guesses.
    num_guesses: r, guesses made.
    num_canaries: m, all canaries, including those without a guess.
    delta: in [0, 1).
    confidence: probability that the bound holds.

  Returns:
    epsilon >= 0.

  Raises:
    ValueError: not 0 <= v <= r <= m.
  """
  _check_counts(num_guesses, num_canaries)
  if num_guesses == 0:
    return 0.0
  _check_counts(num_correct, num_guesses)

  def chance(epsilon):
    accuracy = 1 / (1 + math.exp(-epsilon))
    beta = stats.binom.sf(num_correct - 1, num_guesses, accuracy)
    depth = np.arange(1, num_correct + 1)
    between = stats.binom.sf(num_correct - depth - 1, num_guesses, accuracy) - beta
    alpha = np.max(between / depth, initial=0.0)
    return min(1.0, beta + 2 * num_canaries * delta * alpha)

  error = 1 - confidence
  if chance(0.0) >= error:
    return 0.0
  high = 1.0
  while chance(high) < error and high < 64:
    high *= 2
  if chance(high) < error:
    return high
  return optimize.brentq(lambda epsilon: chance(epsilon) - error, 0.0, high)


def epsilon_from_coins(
  scores: Array,
  included: Array,
  delta: float,
  confidence: float = 0.95,
  guessed: Sequence[float] = (0.05, 0.2, 0.5, 1.0),
) -> float:
  """Lower bound on epsilon from the scores and coins of one run's canaries. [Steinke23]

  The attacker guesses "included" for the highest scores and "left out" for as many of
  the lowest, and abstains from the rest. The numbers of guesses are fixed beforehand:
  the error probability is split evenly over the shares in `guessed`, and the largest
  bound is returned. Nothing is assumed about the mechanism, and scores may depend on
  each other: losses after training, distances to the nearest sample
  (`evaluation.memorisation.nearest`), or traces of gradient canaries.

  Args:
    scores: (m,), higher = more like a member.
    included: (m,) bool, independent fair coins thrown before the run.
    delta, confidence: as in `epsilon_one_run`.
    guessed: shares of the canaries that are guessed.

  Returns:
    epsilon >= 0.

  Raises:
    ValueError: scores and coins differ in shape, or scores are not finite.
  """
  scores, included = _scores(scores), np.asarray(included, bool).ravel()
  if scores.shape != included.shape:
    raise ValueError(
      f'expected one coin per score, got {scores.size} scores and {included.size} '
      'coins; pass arrays of equal length.'
    )
  order, bounds = np.argsort(scores, kind='stable'), [0.0]
  each = 1 - (1 - confidence) / len(guessed)
  for share in guessed:
    side = max(1, round(share * scores.size / 2))
    side = min(side, scores.size // 2)
    correct = np.sum(~included[order[:side]]) + np.sum(included[order[-side:]])
    bounds.append(epsilon_one_run(int(correct), 2 * side, scores.size, delta, each))
  return max(bounds)


def membership_auc(
  member_scores: Array, other_scores: Array, confidence: float = 0.95
) -> dict[str, float]:
  """Area under the ROC curve of a membership test, with a score interval. [Newcombe06]

  An AUC of 0.5 is random guessing. The interval solves |auc - a| = z sqrt(V(a)) for a,
  with Hanley and McNeil's variance V evaluated at a, so that its width is not zero when
  members and others are perfectly separated.

  Args:
    member_scores, other_scores: (n,), (m,), higher = more like a member.
    confidence: of the interval.

  Returns:
    {'auc':, 'low':, 'high':, 'num_members':, 'num_others':}

  Raises:
    ValueError: fewer than two scores, or scores that are not finite.
  """
  members, others = _scores(member_scores), _scores(other_scores)
  n, m = members.size, others.size
  ranks = stats.rankdata(np.concatenate([members, others]))
  auc = (np.sum(ranks[:n]) - n * (n + 1) / 2) / (n * m)
  z = stats.norm.ppf(0.5 + confidence / 2)
  pairs = (n + m) / 2 - 1

  def spread(a):
    tail = (1 - a) / (2 - a) + a / (1 + a)
    return z * math.sqrt(a * (1 - a) * (1 + pairs * tail) / (n * m))

  low = high = auc
  if auc > 0:
    low = optimize.brentq(lambda a: a + spread(a) - auc, 0.0, min(auc, 1 - 1e-9))
  if auc < 1:
    high = optimize.brentq(lambda a: a - spread(a) - auc, max(auc, 1e-9), 1.0)
  return {
    'auc': float(auc),
    'low': float(low),
    'high': float(high),
    'num_members': n,
    'num_others': m,
  }


def _check_counts(part, whole):
  if not 0 <= part <= whole or whole < 1:
    raise ValueError(
      f'expected counts with 0 <= part <= whole and whole >= 1, got {part} of {whole}; '
      'check the numbers of guesses and canaries.'
    )


def _scores(values):
  values = np.asarray(values, np.float64).ravel()
  if values.size < 2 or not np.all(np.isfinite(values)):
    raise ValueError(
      f'expected at least 2 scores, all finite, got {values.size} scores; check the '
      'values for NaN and infinity.'
    )
  return values


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
