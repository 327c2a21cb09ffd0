"""What (epsilon, delta) pairs mean for an attacker: errors of any test, right guesses.

One pair bounds the two errors of every test between two neighbouring cohorts:
miss >= max(1 - delta - e^epsilon alarm, e^-epsilon (1 - delta - alarm)) [Kairouz15,
Theorem 2.1]. Of many pairs that hold for the same releases the largest bound counts
[Dong22, Proposition 2.5].

[Kairouz15] Kairouz, Oh, Viswanath, The composition theorem for differential privacy,
  ICML 2015.
[Dong22] Dong, Roth, Su, Gaussian differential privacy, JRSS B 84, 2022."""

import math
from collections.abc import Iterable

FALSE_ALARMS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def misses(pairs: Iterable[tuple[float, float]], false_alarms: float) -> float:
  """The least rate of misses of any test with this rate of false alarms.

  Args:
    pairs: (epsilon, delta) that hold for the same releases, epsilon >= 0.
    false_alarms: in [0, 1].
  """
  least = 0.0
  for epsilon, delta in pairs:
    grown = math.inf if epsilon > 50 else math.exp(epsilon) * false_alarms
    shrunk = math.exp(-epsilon) * (1 - delta - false_alarms)
    least = max(least, 1 - delta - grown, shrunk)
  return least


def attack_bounds(
  epsilon: float, delta: float, profile: Iterable[tuple[float, float]] = ()
) -> dict[str, float]:
  """What any membership attack can reach at most. [Kairouz15] Theorem 2.1

  The attacker knows everything except which of two neighbouring cohorts was used, with
  even prior odds. Any (epsilon, delta) pair that holds gives a bound; the smallest
  counts.

  Args:
    epsilon: privacy loss.
    delta: probability that the loss may exceed it.
    profile: further (epsilon, delta) pairs that hold for the same releases.

  Returns:
    dict accuracy (share of right guesses, 0.5 is blind), advantage (true minus
    false positive rate), detection (true positive rate at 1 % false alarms).
  """
  accuracy, pairs = 1.0, [(epsilon, delta), *profile]
  for eps, d in pairs:
    # 1 - (1 - d) / (1 + e^eps), written so that a large epsilon does not overflow.
    accuracy = min(accuracy, 1 - (1 - d) * math.exp(-eps) / (1 + math.exp(-eps)))
  return {
    'accuracy': accuracy,
    'advantage': 2 * accuracy - 1,
    'detection': max(0.01, 1 - misses(pairs, 0.01)),
  }
