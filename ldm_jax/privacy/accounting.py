"""Privacy accounting: releases -> events -> epsilon, and epsilon -> noise multiplier.

A release is a JSON-able dict (the lines of the ledger and of privacy.json); `event` is
the only place that turns one into the accountant's event, and `privacy.schemes` builds
it from the object that also draws the patients and the noise, so that the sampling
that runs is the sampling that is accounted for.

The claim is the PLD accountant's (privacy loss distributions, pessimistic rounding:
never below the truth); the RDP accountant confirms it. RDP is the looser of two valid
upper bounds, so a PLD figure above it reveals a numerical fault and is refused. The
relation of the claim is add-or-remove one patient: the number of patients N is a public
constant. Substituting one patient by another is reported beside it.

[Abadi16] Deep Learning with Differential Privacy, CCS 2016 (Poisson-sampled Gaussian).
[Choquette23] Choquette-Choo et al., (Amplified) Banded Matrix Factorization, NeurIPS
  2023, arXiv:2306.08153.
[Doroshenko22] Connect the Dots: Tighter Discrete Approximations of PLD, PETS 2022.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import dp_accounting
from scipy import optimize

from ldm_jax.privacy import accountants
from ldm_jax.privacy.checks import (
  LARGEST_EPSILON,
  check_count,
  check_epsilon,
  check_noise_multiplier,
  check_sampling_probability,
  check_steps,
)

RELATION_NAME = 'add_or_remove_one'  # of the claim
SMALLEST_REST = 0.01  # of the budget; with less, the noise would drown all learning
SMALLEST_NOISE = 0.05  # multipliers below it protect nobody; calibration stops there
# Mechanism of a release -> the fields it needs beside those that every release needs.
MECHANISMS: dict[str, tuple[str, ...]] = {
  'gaussian': (),
  'truncated_gaussian': ('num_patients', 'max_batch_size'),
  'banded_gaussian': ('num_bands',),
}
NEEDED = ('mechanism', 'noise_multiplier', 'sampling_probability', 'steps')


def event(release: Mapping[str, Any]) -> dp_accounting.DpEvent:
  """The accountant's event of one release dict.

  'gaussian': `steps` sums over Poisson draws, or over all patients where the sampling
    probability q is 1. [Abadi16]
  'truncated_gaussian': the same where a draw of more than `max_batch_size` patients is
    replaced by a uniform subset of that size; `num_patients` is the public N.
  'banded_gaussian': noise correlated by a strategy of `num_bands` = b bands and columns
    of norm 1, patients in b groups that take turns, q within the group whose turn it
    is. A patient can take part in every b-th step only, and those columns of the
    strategy have no row in common: ceil(steps / b) Poisson-sampled Gaussian releases
    of sensitivity 1. [Choquette23; the proof is in schemes.Banded]

  Raises:
    ValueError: a field is missing, out of range, or the mechanism is unknown.
  """
  mechanism = release.get('mechanism', 'gaussian')
  if mechanism not in MECHANISMS:
    raise ValueError(
      f'mechanism {mechanism!r} is unknown to the accountant; it must be one of '
      f'{", ".join(MECHANISMS)}. Where a newer version wrote it, use that version.'
    )
  needed = (*NEEDED, *MECHANISMS[mechanism])
  missing = [name for name in needed if name not in release]
  if missing:
    raise ValueError(
      f'a release lacks {", ".join(missing)}; every release needs {", ".join(needed)}.'
    )
  noise, probability = release['noise_multiplier'], release['sampling_probability']
  check_noise_multiplier(noise, clip_only=True)
  check_sampling_probability(probability)
  check_steps(release['steps'])
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
  return dp_accounting.SelfComposedDpEvent(one, count)


def gaussian_event(noise_multiplier: float, count: int = 1) -> dp_accounting.DpEvent:
  """The event of `count` Gaussian releases over all patients, without sampling."""
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
  """Composes events on the same patients and returns epsilon at delta, twice.

  Args:
    events: list of events (`event`, `gaussian_event`, `event()` of a scheme).
    delta: in (0, 1).
    relation: 'add_or_remove_one', or 'substitute_one': one patient's data are
      exchanged for any other's, N stays.

  Returns:
    {'pld': the claim, 'rdp': its looser confirmation}; inf without noise, and 'pld' is
    inf where epsilon is too large (above about 600) to be computed or to mean anything.

  Raises:
    ValueError: delta out of range, or an unknown relation.
    ArithmeticError: PLD above RDP, a numerical fault: no figure may be claimed.
  """
  if not 0 < delta < 1:
    raise ValueError(
      f'delta is {delta}; it must lie between 0 and 1. Change adapt.privacy.delta.'
    )
  if relation not in accountants.RELATIONS:
    raise ValueError(
      f'the relation {relation!r} is unknown; it must be one of '
      f'{", ".join(accountants.RELATIONS)}.'
    )
  events = list(events)
  if not events:
    return {'pld': 0.0, 'rdp': 0.0}
  by_rdp = accountants.rdp_epsilon(events, delta, relation)
  if not by_rdp < 4 * LARGEST_EPSILON:
    return {'pld': math.inf, 'rdp': by_rdp}
  interval = accountants.interval(events, by_rdp)
  by_pld = _pld_epsilon(events, delta, relation, interval)
  if _disagree(by_pld, by_rdp):  # coarse rounding is the harmless cause: refine once
    by_pld = _pld_epsilon(events, delta, relation, interval / 10)
  if _disagree(by_pld, by_rdp):
    raise ArithmeticError(
      f'the accountants disagree: PLD gives epsilon {by_pld}, above the RDP bound '
      f'{by_rdp}. No figure is claimed; report these events: {events}.'
    )
  return {'pld': by_pld, 'rdp': by_rdp}


def calibrate(
  epsilon_target: float,
  delta: float,
  sampling_probability: float,
  steps: int,
  other_events: Iterable[dp_accounting.DpEvent] = (),
) -> float:
  """The smallest noise multiplier of plain DP-SGD; see `calibrate_release`.

  Args:
    sampling_probability: q of each step, in (0, 1].
    steps: number of noisy steps.
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
  """Finds the smallest noise multiplier that keeps the total within the target.

  Args:
    epsilon_target: total epsilon, over this release and the other events together.
    delta: of the total.
    release: dict of any mechanism; its noise multiplier, if any, is ignored.
    other_events: events already spent on the same patients (`Ledger.events()`).

  Returns:
    sigma, within 2e-5 relative of the smallest, re-verified forward: `epsilon` of the
    composition is at most the target. Never below SMALLEST_NOISE.

  Raises:
    ValueError: a number out of range, or the other events leave nothing to spend.
  """
  check_epsilon(epsilon_target)
  other_events = list(other_events)
  spent = epsilon(other_events, delta)['pld']
  if spent > (1 - SMALLEST_REST) * epsilon_target:
    raise ValueError(
      f'earlier releases on these patients have spent epsilon {spent:.4g} at delta '
      f'{delta:g}, and the total allowed is {epsilon_target:g}: nothing is left. '
      'Raise adapt.privacy.epsilon, or work with other patients.'
    )

  def events(noise_multiplier):
    return [*other_events, event({**release, 'noise_multiplier': noise_multiplier})]

  def total(noise_multiplier):
    return epsilon(events(noise_multiplier), delta)['pld']

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
  interval = accountants.interval(events(high), epsilon(events(high), delta)['rdp'])
  tolerance = 1e-5 * high

  def excess(noise_multiplier):
    return (
      _pld_epsilon(events(noise_multiplier), delta, RELATION_NAME, interval)
      - epsilon_target
    )

  sigma = _root(excess, low, high, tolerance)
  while total(sigma) > epsilon_target:  # another rounding grid may read a hair higher
    sigma += tolerance
  return float(sigma)


def _root(excess, low, high, tolerance):
  """The least value, up to the tolerance, where a falling function is at most 0."""
  clamped = lambda value: min(excess(value), 1e3)  # an infinity has no secant
  if clamped(low) <= 0:
    return low
  found = optimize.brentq(clamped, low, high, xtol=tolerance / 2)
  return found if excess(found) <= 0 else min(found + tolerance, high)


def _pld_epsilon(events, delta, relation, interval):
  result = accountants.pld_epsilon(events, delta, relation, interval)
  return result if result <= 1.2 * LARGEST_EPSILON else math.inf


def _disagree(by_pld, by_rdp):
  return math.isfinite(by_pld) and by_pld > 1.01 * by_rdp + 1e-4
