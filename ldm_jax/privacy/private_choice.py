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

The output of a run holds its arm, drawn uniformly among public ones, so its divergence
is at most the largest of any arm; `launch/sweep.py --best_of` therefore gives all arms
one noise multiplier, sampling probability and number of steps. It draws the runs here,
trains them under one release of the ledger, and keeps the best by a score that reads no
confidential scan (`score`).

[Papernot22] Papernot, Steinke, Hyperparameter Tuning with Renyi Differential Privacy,
  ICLR 2022, arXiv:2110.03620."""

import json
import math
import os
import pathlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import dp_accounting
import numpy as np
from dp_accounting import rdp

from ldm_jax.privacy import accountants, accounting, checks


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
  checks.check_best_of(mean_runs)
  orders, one_run = accountants.renyi(tuple(events), relation)
  found = divergences(orders, one_run, mean_runs)
  with accountants.quiet():
    return float(rdp.compute_epsilon(orders, found, delta)[0])


def draw_arms(
  names: Sequence[str],
  mean_runs: float,
  below: Callable[[int], int] = secrets.randbelow,
) -> list[str]:
  """The arms of the runs of a choice; how many there are is a secret.

  The number K of runs is geometric, P(K = k) = (1 - 1/m)^(k-1) / m for the mean m, and
  each arm is drawn uniformly; exact for the float that m is.

  Args:
    names: of the arms.
    mean_runs: m >= 1.
    below: limit -> a uniform integer in 0 ... limit - 1.

  Raises:
    ValueError: no arm, or a mean below 1.
  """
  checks.check_best_of(mean_runs)
  if not names:
    raise ValueError('expected at least one arm to choose from, got none; name arms.')
  mean, found = Fraction(mean_runs), []
  while True:
    found.append(names[below(len(names))])
    if below(mean.numerator) < mean.denominator:
      return found


def score(metrics: Mapping[str, Any], name: str) -> float:
  """The figure by which runs are compared; minus infinity where it is no number.

  Args:
    metrics: of metrics.json of one run.
    name: dotted, such as 'control.LV_volume.pearson_r'; with a minus before it, less is
      better.

  Raises:
    ValueError: there is no such figure, or it read confidential scans: choosing by it
      would be one more release, which nobody counted.
  """
  found: Any = metrics
  for key in name.removeprefix('-').split('.'):
    if not isinstance(found, Mapping) or key not in found:
      raise ValueError(
        f'metrics.json has no figure {name.removeprefix("-")!r}; expected one of its '
        'dotted names, such as control.LV_volume.pearson_r. Change --score.'
      )
    found = found[key]
    if isinstance(found, Mapping) and found.get('internal'):
      raise ValueError(
        f'--score={name} reads scans of {", ".join(found.get("reads") or ())}, and '
        'choosing by it would tell of these patients without noise. Expected a figure '
        'of metrics.json that is not marked internal, such as one of `control`.'
      )
  if isinstance(found, Mapping):
    found = found.get('value')
  if isinstance(found, bool) or not isinstance(found, int | float):
    return -math.inf
  found = -found if name.startswith('-') else found
  return -math.inf if math.isnan(found) else float(found)


def ledger_name(choice: str) -> str:
  """Name in the ledger of all runs of the choice with this name."""
  return f'choice {choice}'


def decide(ledger: str | os.PathLike, choice: str, run: str) -> None:
  """Writes beside a ledger, once, which run was chosen.

  Args:
    ledger: path of the ledger.
    choice: name of the choice.
    run: random name of the chosen run (started.json).

  Raises:
    ValueError: another run was chosen before.
  """
  path = _decision(ledger, choice)
  try:
    with open(path, 'x') as file:
      file.write(json.dumps({'run': run}))
      file.flush()
      os.fsync(file.fileno())
  except FileExistsError:
    if decided(ledger, choice) != run:
      raise ValueError(
        f'{path} says that the private choice {choice!r} took another run; only one '
        'run of a choice may be seen. Begin a new choice.'
      ) from None


def decided(ledger: str | os.PathLike, choice: str) -> str | None:
  """The run that was chosen, or None before the choice is made.

  Raises:
    ValueError: the file that says it is damaged.
  """
  path = _decision(ledger, choice)
  try:
    return json.loads(path.read_text())['run']
  except FileNotFoundError:
    return None
  except (ValueError, KeyError, TypeError):
    raise ValueError(
      f'{path} is damaged: which run of the private choice {choice!r} may be seen is '
      'unknown. Restore the file from a backup.'
    ) from None


def _decision(ledger, choice):
  ledger = pathlib.Path(ledger).expanduser().resolve()
  return ledger.with_name(f'{ledger.name}.choice-{choice}.json')
