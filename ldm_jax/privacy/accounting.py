"""Privacy accounting: releases -> events -> epsilon, and epsilon -> noise multiplier.

A release is a JSON-able dict, as stored in the ledger and in privacy.json. `event` is
the only function that converts a release to an accountant's event. `privacy.mechanisms`
builds the release from the object that also draws the patients and the noise, so the
sampling that runs is the sampling that is accounted for.

The claimed epsilon is that of the PLD accountant (privacy loss distributions, rounded
pessimistically: never below the true epsilon). The RDP accountant checks it. Both are
valid upper bounds and RDP is the looser one, so a PLD figure above the RDP figure
indicates a numerical fault, and an error is raised instead of a claim. The claim is for
adding or removing one patient, with the number of patients N a public constant.
Epsilon for substituting one patient by another is reported too.

[Abadi16] Deep Learning with Differential Privacy, CCS 2016 (Poisson-sampled Gaussian).
[Choquette23] Choquette-Choo et al., (Amplified) Banded Matrix Factorization, NeurIPS
  2023, arXiv:2306.08153.
[Doroshenko22] Connect the Dots: Tighter Discrete Approximations of PLD, PETS 2022.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import dp_accounting
from dp_accounting import dp_event
from scipy import optimize

from ldm_jax.privacy import accountants
from ldm_jax.privacy.checks import (
  LARGEST_EPSILON,
  check_best_of,
  check_count,
  check_epsilon,
  check_noise_multiplier,
  check_sampling_probability,
  check_steps,
)

RELATION_NAME = 'add_or_remove_one'  # of the claim
CURVE_DELTA = 1e-5  # whose grid of privacy losses the curve uses
SMALLEST_REST = 0.01  # share of the budget that must be unspent to calibrate
# Lower limit of calibration; less noise gives no useful protection.
SMALLEST_NOISE = 0.05
# Mechanism of a release -> required fields in addition to NEEDED.
MECHANISMS: dict[str, tuple[str, ...]] = {
  'gaussian': (),
  'truncated_gaussian': ('num_patients', 'max_batch_size'),
  'banded_gaussian': ('num_bands',),
  'best_of_gaussian': ('best_of',),
}
NEEDED = ('mechanism', 'noise_multiplier', 'sampling_probability', 'steps')


def event(release: Mapping[str, Any]) -> dp_accounting.DpEvent:
  """The accountant's event of one release dict.

  'gaussian': `steps` Gaussian releases, each over a Poisson sample of the patients, or
    over all patients where the sampling probability q is 1. [Abadi16]
  'truncated_gaussian': as 'gaussian', but a sample of more than `max_batch_size`
    patients is replaced by a uniform subset of that size; `num_patients` is the public
    N.
  'banded_gaussian': noise correlated by a strategy matrix with `num_bands` = b bands
    and columns of norm 1. Patients are in b groups that take turns; q is the sampling
    probability within the group whose turn it is. A patient can take part in every b-th
    step only, and the corresponding columns of the strategy have no row in common. This
    gives ceil(steps / b) Poisson-sampled Gaussian releases of sensitivity 1.
    [Choquette23; proof in schemes.Banded]
  'best_of_gaussian': the best, by its own output, of a secret geometric number of such
    runs, `best_of` on average; see `private_choice`. It has Renyi divergences only.

  Raises:
    ValueError: a field is missing or out of range, or the mechanism is unknown.
  """
  mechanism = release.get('mechanism', 'gaussian')
  if mechanism not in MECHANISMS:
    raise ValueError(
      f'expected a mechanism among {", ".join(MECHANISMS)}, got {mechanism!r}, which '
      'is unknown; if a newer version of ldm_jax wrote this release, use that version.'
    )
  needed = (*NEEDED, *MECHANISMS[mechanism])
  missing = [name for name in needed if name not in release]
  if missing:
    raise ValueError(
      f'the release lacks {", ".join(missing)}; a release of mechanism {mechanism!r} '
      f'needs {", ".join(needed)}. Add the missing fields.'
    )
  noise, probability = release['noise_multiplier'], release['sampling_probability']
  check_noise_multiplier(noise, clip_only=True)
  check_sampling_probability(probability)
  check_steps(release['steps'])
  if mechanism == 'best_of_gaussian':
    check_best_of(release['best_of'])
  else:
    for name in MECHANISMS[mechanism]:
      check_count(name, release[name])
  count = release['steps']
  if mechanism == 'truncated_gaussian':
    one = dp_accounting.TruncatedSubsampledGaussianDpEvent(
      release['num_patients'], probability, release['max_batch_size'], noise
    )
    return dp_accounting.SelfComposedDpEvent(one, count)
  one = dp_accounting.GaussianDpEvent(noise)
  if probability < 1:
    one = dp_accounting.PoissonSampledDpEvent(probability, one)
  if mechanism == 'banded_gaussian':
    count = -(-count // release['num_bands'])
  run = dp_accounting.SelfComposedDpEvent(one, count)
  if mechanism == 'best_of_gaussian':
    choice = dp_event.RepeatAndSelectDpEvent(run, release['best_of'], 1)
    return dp_accounting.SelfComposedDpEvent(choice, 1)
  return run


def gaussian_event(noise_multiplier: float, count: int = 1) -> dp_accounting.DpEvent:
  """The event of `count` Gaussian releases over all patients (no sampling)."""
  return event(
    {
      'mechanism': 'gaussian',
      'noise_multiplier': noise_multiplier,
      'sampling_probability': 1.0,
      'steps': count,
    }
  )


def epsilon(
  events: Iterable[dp_accounting.DpEvent], delta: float, relation: str = RELATION_NAME
) -> dict[str, float]:
  """Composes events on the same patients; epsilon at delta by both accountants.

  Args:
    events: from `event`, `gaussian_event`, or `event()` of a scheme.
    delta: in (0, 1).
    relation: 'add_or_remove_one', or 'substitute_one': the data of one patient are
      replaced by those of any other patient, and N stays the same.

  Returns:
    {'pld': the claimed epsilon, 'rdp': the looser bound that checks it}. Both are inf
    without noise; 'pld' is also inf above about 600, where the figure can no longer be
    computed and would have no meaning. With a private choice among the events there is
    no 'pld', and 'rdp' is the claim (`claim`).

  Raises:
    ValueError: delta out of range, or an unknown relation.
    ArithmeticError: PLD exceeds RDP, a numerical fault; no figure may be claimed.
  """
  if not 0 < delta < 1:
    raise ValueError(
      f'delta is {delta}; it must lie between 0 and 1. Change adapt.privacy.delta.'
    )
  if relation not in accountants.RELATIONS:
    raise ValueError(
      f'expected a relation among {", ".join(accountants.RELATIONS)}, got {relation!r}.'
    )
  return dict(_epsilon(tuple(events), delta, relation))


def claim(figures: Mapping[str, float]) -> float:
  """The claimed epsilon of the figures of `epsilon`."""
  return figures.get('pld', figures['rdp'])


# Reports, plans and searches ask again for what they have asked before.
@functools.lru_cache(maxsize=1024)
def _epsilon(events, delta, relation):
  if not events:
    return {'pld': 0.0, 'rdp': 0.0}
  by_rdp = accountants.rdp_epsilon(events, delta, relation)
  if accountants.has_choice(events):
    return {'rdp': by_rdp}
  if not by_rdp < 4 * LARGEST_EPSILON:
    return {'pld': math.inf, 'rdp': by_rdp}
  interval = accountants.interval(events, by_rdp)
  by_pld = _pld_epsilon(events, delta, relation, interval)
  if _disagree(by_pld, by_rdp):  # possibly only a coarse grid: refine it once
    by_pld = _pld_epsilon(events, delta, relation, interval / 10)
  if _disagree(by_pld, by_rdp):
    raise ArithmeticError(
      f'the accountants disagree: PLD gives epsilon {by_pld}, above the RDP bound '
      f'{by_rdp}. No figure is claimed; report these events: {list(events)}.'
    )
  return {'pld': by_pld, 'rdp': by_rdp}


def curve(
  events: Iterable[dp_accounting.DpEvent],
  relation: str = RELATION_NAME,
  num_points: int = 33,
) -> tuple[tuple[float, float], ...]:
  """The privacy profile: (epsilon, delta) pairs, each an upper bound by PLD.

  With a private choice among the events the bounds are by Renyi divergences.

  Args:
    events, relation: as in `epsilon`.
    num_points: evenly spaced epsilons, from 0 to one whose delta is at most 1e-9.

  Returns:
    Pairs with falling delta; () without events, without noise, or where epsilon is
    beyond what can be computed.
  """
  return _curve(tuple(events), relation, num_points)


@functools.lru_cache(maxsize=64)
def _curve(events, relation, num_points):
  if not events:
    return ()
  last = accountants.rdp_epsilon(events, 1e-9, relation)
  if not last < 2 * LARGEST_EPSILON:
    return ()
  epsilons = [last * point / (num_points - 1) for point in range(num_points)]
  if accountants.has_choice(events):
    deltas = accountants.rdp_deltas(events, epsilons, relation)
    return tuple(zip(epsilons, deltas, strict=True))
  # The grid on which epsilon itself is computed, so that one composition serves both.
  by_rdp = accountants.rdp_epsilon(events, CURVE_DELTA, relation)
  interval = accountants.interval(events, by_rdp)
  deltas = accountants.pld_deltas(events, epsilons, relation, interval)
  return tuple(zip(epsilons, deltas, strict=True))


def calibrate(
  epsilon_target: float,
  delta: float,
  sampling_probability: float,
  steps: int,
  other_events: Iterable[dp_accounting.DpEvent] = (),
) -> float:
  """The smallest noise multiplier of plain DP-SGD; see `calibrate_release`.

  Args:
    epsilon_target: total epsilon.
    delta: of the total.
    sampling_probability: q of each step, in (0, 1].
    steps: number of noisy steps.
    other_events: events already spent on the same patients.
  """
  release = {
    'mechanism': 'gaussian',
    'sampling_probability': sampling_probability,
    'steps': steps,
  }
  return calibrate_release(epsilon_target, delta, release, other_events)


def calibrate_release(
  epsilon_target: float,
  delta: float,
  release: Mapping[str, Any],
  other_events: Iterable[dp_accounting.DpEvent] = (),
) -> float:
  """The smallest noise multiplier that keeps the total epsilon within the target.

  Args:
    epsilon_target: total epsilon of this release and the other events together.
    delta: of the total.
    release: dict of any mechanism; a noise multiplier in it is ignored.
    other_events: events already spent on the same patients (`Ledger.events()`).

  Returns:
    sigma, within a relative 2e-5 of the smallest and at least SMALLEST_NOISE. The
    result
    is verified: `epsilon` of the composition is at most the target.

  Raises:
    ValueError: a number is out of range, or the other events leave nothing to spend.
  """
  check_epsilon(epsilon_target)
  other_events = list(other_events)
  spent = claim(epsilon(other_events, delta))
  if spent > (1 - SMALLEST_REST) * epsilon_target:
    raise ValueError(
      f'earlier releases on these patients have spent epsilon {spent:.4g} at delta '
      f'{delta:g}, and the total allowed is {epsilon_target:g}: nothing is left. '
      'Raise adapt.privacy.epsilon, or work with other patients.'
    )

  def events(noise_multiplier):
    return [*other_events, event({**release, 'noise_multiplier': noise_multiplier})]

  def total(noise_multiplier):
    return claim(epsilon(events(noise_multiplier), delta))

  high = 1.0
  while total(high) > epsilon_target:
    high *= 2
    if high > 1e9:
      raise ValueError(
        f'no noise multiplier up to 1e9 reaches epsilon {epsilon_target:g} at delta '
        f'{delta:g} (spent before: {spent:.4g}). Raise adapt.privacy.epsilon.'
      )
  low = high / 2
  while total(low) <= epsilon_target:
    high, low = low, low / 2
    if high <= SMALLEST_NOISE:
      return SMALLEST_NOISE
  tolerance, interval = 1e-5 * high, None
  if not accountants.has_choice(events(high)):
    interval = accountants.interval(events(high), epsilon(events(high), delta)['rdp'])

  def excess(noise_multiplier):
    if interval is None:
      return total(noise_multiplier) - epsilon_target
    return (
      _pld_epsilon(events(noise_multiplier), delta, RELATION_NAME, interval)
      - epsilon_target
    )

  sigma = _root(excess, low, high, tolerance)
  while total(sigma) > epsilon_target:  # `epsilon` may use another grid
    sigma += tolerance
  return float(sigma)


def _root(excess, low, high, tolerance):
  """Smallest argument, up to `tolerance`, where a decreasing function is at most 0."""
  clamped = lambda value: min(excess(value), 1e3)  # brentq needs finite values
  if clamped(low) <= 0:
    return low
  found = optimize.brentq(clamped, low, high, xtol=tolerance / 2)
  return found if excess(found) <= 0 else min(found + tolerance, high)


def _pld_epsilon(events, delta, relation, interval):
  result = accountants.pld_epsilon(events, delta, relation, interval)
  return result if result <= 1.2 * LARGEST_EPSILON else math.inf


def _disagree(by_pld, by_rdp):
  return math.isfinite(by_pld) and by_pld > 1.01 * by_rdp + 1e-4
