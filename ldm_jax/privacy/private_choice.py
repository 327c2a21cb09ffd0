"""What it costs to publish only the best of several private runs. [Papernot22]

A secret number K >= 1 of runs is drawn, geometric with mean 1/gamma, whatever their
results; each run is made with noise of its own, and the best by its own output (or by
public data) is published; the others are destroyed unseen. If one run, its arm drawn at
random, has Renyi divergences e(a) at orders a, the choice has at order a

    e(a) + min over b of 2 (1 - 1/b) e(b) + 2 log(1/gamma) / b, + log(1/gamma) / (a - 1)

[Papernot22, Theorem 2 with eta = 1]: about three times the epsilon of one run, however
many runs there are on average, where k published runs cost about sqrt(k) times it. It
holds only if nobody learns K or any other run. The theorem is about Renyi divergences;
there is no figure by PLD.

[Papernot22] Papernot, Steinke, Hyperparameter Tuning with Renyi Differential Privacy,
  ICLR 2022, arXiv:2110.03620."""

import math
from collections.abc import Iterable

import dp_accounting
import numpy as np
from dp_accounting import rdp

from ldm_jax.privacy import accountants, accounting


def divergences(
  orders: np.ndarray, one_run: np.ndarray, mean_runs: float
) -> np.ndarray:
  """Renyi divergences (n,) of the choice, from those of one run at orders (n,) > 1."""
  cost = math.log(mean_runs)
  repeated = np.min(2 * (1 - 1 / orders) * one_run + 2 * cost / orders)
  return one_run + repeated + cost / (orders - 1)


def epsilon(
  events: Iterable[dp_accounting.DpEvent],
  delta: float,
  mean_runs: float,
  relation: str = accounting.RELATION_NAME,
) -> float:
  """Epsilon of publishing the best of a geometric number of runs, by Renyi divergences.

  Args:
    events: of one run, as `accounting.event` makes them. Of arms that differ in them,
      compute each and take the largest figure only where their divergences are ordered
      alike; arms of equal noise, sampling and steps have equal events.
    delta: in (0, 1).
    mean_runs: mean of K, >= 1.
    relation: of `accounting.epsilon`.

  Raises:
    ValueError: a mean below 1.
  """
  if not 1 <= mean_runs < math.inf:
    raise ValueError(
      f'the mean number of runs is {mean_runs}; it must be finite and at least 1. '
      'Change --best_of.'
    )
  orders, one_run = accountants.renyi(tuple(events), relation)
  found = divergences(orders, one_run, mean_runs)
  with accountants.quiet():
    return float(rdp.compute_epsilon(orders, found, delta)[0])
