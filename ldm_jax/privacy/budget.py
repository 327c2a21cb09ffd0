"""Planning with a privacy budget: noise for a budget, tables and curves.

The noise-to-signal ratio of a step is the L2 norm of its noise over the largest norm
that the clipped mean gradient can have. For d trained parameters and B expected
patients per step it is (sigma clip_norm sqrt(d) / B) / clip_norm = sigma sqrt(d) / B.
At a fixed number of steps and small B, sigma grows slowly with B, so a larger batch
lowers the ratio. Once sigma grows in proportion to B, more patients per step cost time
without lowering it [Ponomareva23, 5.3].

[Ponomareva23] Ponomareva et al., How to DP-fy ML, JAIR 2023.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax.privacy import (
  accounting,
  checks,
  mechanisms,
  privacy_json,
  private_choice,
)

# Suggest the smallest batch whose noise-to-signal is within this factor of the least.
NEAR_BEST = 1.1
SMALLEST_BATCH, SMALLEST_SHARE = 16, 1 / 1024
# Multipliers in tables and curves are at most this factor above the least.
PRECISION = 1.005


def price(
  *,
  epsilon: float | None = None,
  noise_multiplier: float | None = None,
  delta: float,
  num_patients: int,
  batch_size: float,
  steps: int,
  best_of: float | None = None,
) -> dict[str, Any]:
  """Computes the noise multiplier for a budget, or epsilon for a noise multiplier.

  Args:
    epsilon, noise_multiplier: exactly one of them; the other is computed.
    delta: below 1 / num_patients.
    num_patients: public size of the cohort.
    batch_size: expected patients per step.
    steps: number of steps.
    best_of: None, or the mean number of such runs of which only the best is published
      (`private_choice`).

  Returns:
    A JSON-able dict: noise_multiplier, epsilon (PLD), accountants, and the inputs; with
    best_of also epsilon_best_of (by Renyi divergences).

  Raises:
    ValueError: a value out of range.
  """
  if (epsilon is None) == (noise_multiplier is None):
    raise ValueError(
      'expected exactly one of --epsilon and --noise_multiplier, got both or neither; '
      'give one, and the other is computed.'
    )
  checks.check_delta(delta, num_patients)
  run = _run(num_patients, batch_size, steps, noise_multiplier)
  if noise_multiplier is None:
    run = run.calibrated(epsilon, delta)
  figures, choice = accounting.epsilon([run.event()], delta), {}
  if best_of is not None:
    found = private_choice.epsilon([run.event()], delta, best_of)
    choice = {'best_of': best_of, 'epsilon_best_of': privacy_json.finite(found)}
  return {
    **choice,
    'noise_multiplier': run.noise_multiplier,
    'epsilon': privacy_json.finite(figures['pld']),
    'delta': delta,
    'accountants': {
      name: privacy_json.finite(value) for name, value in figures.items()
    },
    'num_patients': num_patients,
    'batch_size': batch_size,
    'sampling_probability': run.sampling_probability,
    'steps': steps,
    'unit': 'patient',
    'relation': accounting.RELATION_NAME,
  }


def plan(
  *,
  epsilon: float,
  delta: float,
  num_patients: int,
  steps: int,
  num_parameters: int = 1,
  batch_size: float | None = None,
) -> dict[str, Any]:
  """Noise and noise-to-signal for a range of batch sizes, with a suggested batch size.

  Args:
    epsilon, delta: the budget.
    num_patients, steps: of the run.
    num_parameters: trained parameters d; 1 gives the ratio of a single coordinate.
    batch_size: None, or one more batch size for the table.

  Returns:
    A JSON-able dict: the inputs; 'table', a list of {batch_size, sampling_probability,
    noise_multiplier (at most 0.5 % above the least), noise_to_signal}, by batch size;
    'suggested', the row of the smallest batch whose noise-to-signal is within 10 % of
    the least in the table.

  Raises:
    ValueError: a value out of range.
  """
  checks.check_epsilon(epsilon)
  checks.check_delta(delta, num_patients)
  checks.check_steps(steps)
  if not 1 <= num_parameters < math.inf:
    raise ValueError(
      f'the number of trained parameters is {num_parameters}; it must be finite and at '
      'least 1. Change --num_parameters.'
    )
  rows, guess = [], 1.0
  for size in reversed(batch_sizes(num_patients, batch_size)):
    run = _run(num_patients, size, steps)
    guess = multiplier(run, epsilon, delta, guess)
    rows.append(
      {
        'batch_size': size,
        'sampling_probability': run.sampling_probability,
        'noise_multiplier': guess,
        'noise_to_signal': noise_to_signal(guess, num_parameters, size),
      }
    )
  rows.reverse()
  least = min(row['noise_to_signal'] for row in rows)
  near = (row for row in rows if row['noise_to_signal'] <= NEAR_BEST * least)
  return {
    'epsilon': epsilon,
    'delta': delta,
    'num_patients': num_patients,
    'steps': steps,
    'num_parameters': num_parameters,
    'table': rows,
    'suggested': next(near),
    'unit': 'patient',
    'relation': accounting.RELATION_NAME,
  }


def noise_to_signal(
  noise_multiplier: float, num_parameters: int, batch_size: float
) -> float:
  """Norm of a step's noise over the largest norm of its signal: sigma sqrt(d) / B.

  Args:
    noise_multiplier: sigma.
    num_parameters: d, trained parameters.
    batch_size: B, expected patients per step.
  """
  return noise_multiplier * math.sqrt(num_parameters) / batch_size


def batch_sizes(num_patients: int, also: float | None = None) -> list[float]:
  """Ascending list: powers of two up to the cohort, the whole cohort, and `also`."""
  checks.check_num_patients(num_patients)
  least = max(SMALLEST_BATCH, num_patients * SMALLEST_SHARE)
  powers = [2**power for power in range(40) if least <= 2**power < num_patients]
  return sorted({*powers, num_patients, *([] if also is None else [also])})


def multiplier(
  run: mechanisms.Poisson, epsilon: float, delta: float, guess: float = 1.0
) -> float:
  """A noise multiplier of a run within the budget, at most 0.5 % above the least.

  Faster than `run.calibrated`, which training uses: it applies false position to the
  logarithms, because epsilon is roughly a power of sigma.
  """
  target, below, above = math.log(epsilon), None, None  # (log sigma, log epsilon)
  value = math.log(guess)
  while True:
    spent = epsilon_of(run, delta, noise_multiplier=math.exp(value))
    point = (value, math.log(max(spent, 1e-12)) if math.isfinite(spent) else 9.0)
    if point[1] <= target:
      above = point
    else:
      below = point
    if above and above[0] <= math.log(accounting.SMALLEST_NOISE):
      return accounting.SMALLEST_NOISE
    if above and below and above[0] - below[0] <= math.log(PRECISION):
      return math.exp(above[0])
    if not (above and below):
      value += 0.3 if below else -0.3
      continue
    share = (below[1] - target) / (below[1] - above[1])
    guessed = below[0] + share * (above[0] - below[0])
    # Step slightly past the guess, so that the two points bracket the root closely.
    nudge = 0.4 * math.log(PRECISION)
    guessed += nudge if abs(above[0] - guessed) > 2 * nudge else -nudge
    inner = 0.02 * (above[0] - below[0])
    value = min(max(guessed, below[0] + inner), above[0] - inner)


def epsilon_of(run: mechanisms.Poisson, delta: float, **changes: Any) -> float:
  """Epsilon (PLD) of a run (`mechanisms.Poisson`) with some of its fields changed."""
  event = dataclasses.replace(run, **changes).event()
  return accounting.claim(accounting.epsilon([event], delta))


def curves(
  planned: Mapping[str, Any], num_points: int = 9
) -> dict[str, dict[float, list[tuple[float, float]]]]:
  """Curves around the suggested row of `plan`.

  Args:
    planned: result of `plan`.
    num_points: points per curve.

  Returns:
    dict
      spent: {noise multiplier: [(steps, epsilon), ...]} at the suggested batch size.
      needed: {batch size: [(epsilon, noise multiplier), ...]} at the planned steps.
  """
  chosen, delta, steps = planned['suggested'], planned['delta'], planned['steps']
  sigma = chosen['noise_multiplier']
  run = _run(planned['num_patients'], chosen['batch_size'], steps)
  points = np.geomspace(steps / 20, 2 * steps, num_points)
  counts = sorted({max(1, round(point)) for point in points})
  spent = {}
  for factor in (0.6, 1.0, 1.7, 3.0):
    spent[sigma * factor] = [
      (count, epsilon_of(run, delta, noise_multiplier=sigma * factor, steps=count))
      for count in counts
    ]
  needed = {}
  for row in _spread(planned['table'], chosen):
    run = _run(planned['num_patients'], row['batch_size'], steps)
    middle = row['noise_multiplier']
    needed[row['batch_size']] = [
      (epsilon_of(run, delta, noise_multiplier=s), s)
      for s in np.geomspace(0.6 * middle, 6 * middle, num_points).tolist()
    ]
  return {'spent': spent, 'needed': needed}


def _run(num_patients, batch_size, steps, noise_multiplier=None):
  """Plain DP-SGD; epsilon does not depend on the clip norm, so any value will do."""
  return mechanisms.Poisson(
    num_patients=num_patients,
    batch_size=batch_size,
    steps=steps,
    clip_norm=1.0,
    noise_multiplier=noise_multiplier,
  )


def _spread(table, chosen, num=4):
  """Up to `num` evenly spaced rows of the table, including the chosen one."""
  places = np.unique(np.linspace(0, len(table) - 1, num).round().astype(int))
  rows = [table[place] for place in places if table[place] != chosen]
  return sorted([*rows[: num - 1], chosen], key=lambda row: row['batch_size'])
