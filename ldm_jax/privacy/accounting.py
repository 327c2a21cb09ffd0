"""Privacy accounting: releases -> events -> epsilon, and epsilon -> noise multiplier.

A release is a JSON-able dict (the lines of the ledger and of privacy.json); `event` is
the only place that turns one into the accountant's event, and `training_release` builds
it from the sampler object itself, so the sampling that runs is the sampling that is
accounted for.

The claim is the PLD accountant's (privacy loss distributions, pessimistic rounding:
never below the truth); the RDP accountant confirms it. RDP is the looser of two valid
upper bounds, so a PLD figure above it reveals a numerical fault and is refused. The
relation is add-or-remove one patient: the number of patients N is a public constant.

[Abadi16] Deep Learning with Differential Privacy, CCS 2016 (Poisson-sampled Gaussian).
[Mironov19] Rényi DP of the Sampled Gaussian Mechanism, arXiv:1908.10530.
[Doroshenko22] Connect the Dots: Tighter Discrete Approximations of PLD, PETS 2022.
"""

import contextlib
import logging
import math
import warnings

import dp_accounting
from dp_accounting import pld, rdp

from ldm_jax.data.batching import PoissonSampler
from ldm_jax.privacy.checks import (
  LARGEST_EPSILON,
  check_clip_norm,
  check_epsilon,
  check_noise_multiplier,
  check_sampling_probability,
  check_steps,
)

RELATION = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
RELATION_NAME = 'add_or_remove_one'
SMALLEST_REST = 0.01  # of the budget; with less, the noise would drown all learning
SMALLEST_NOISE = 0.05  # multipliers below it protect nobody; calibration stops there


def training_release(name, sampler, noise_multiplier, steps, clip_norm):
  """Describes a planned private training run, as the ledger records it.

  Args:
    name: what is released, for people ('adapt: full fine-tuning').
    sampler: the PoissonSampler that the training loop draws from.
    noise_multiplier: sigma, noise standard deviation over clip norm; 0 = clip only.
    steps: number of noisy steps, empty batches included.
    clip_norm: C.

  Returns:
    A dict with name, mechanism, noise_multiplier, sampling_probability, steps,
    clip_norm.

  Raises:
    ValueError: another sampler than Poisson, or numbers out of range.
  """
  if not isinstance(sampler, PoissonSampler):
    raise ValueError(
      f'the batches come from a {type(sampler).__name__}; the accounting holds for '
      'PoissonSampler only. Draw private batches from data.batching.PoissonSampler.'
    )
  release = {
    'name': str(name),
    'mechanism': 'gaussian',
    'noise_multiplier': float(noise_multiplier),
    'sampling_probability': float(sampler.sampling_probability),
    'steps': steps,
    'clip_norm': float(clip_norm),
  }
  event(release)
  check_clip_norm(release['clip_norm'])
  return {**release, 'steps': int(steps)}


def event(release):
  """The accountant's event of one release dict.

  Raises:
    ValueError: a field is missing, out of range, or the mechanism is unknown.
  """
  needed = ('mechanism', 'noise_multiplier', 'sampling_probability', 'steps')
  missing = [name for name in needed if name not in release]
  if missing:
    raise ValueError(
      f'a release lacks {", ".join(missing)}; every release needs {", ".join(needed)}.'
    )
  if release['mechanism'] != 'gaussian':
    raise ValueError(
      f'mechanism {release["mechanism"]!r} is unknown to the accountant; '
      "it must be 'gaussian'."
    )
  probability = release['sampling_probability']
  check_noise_multiplier(release['noise_multiplier'], clip_only=True)
  check_sampling_probability(probability)
  check_steps(release['steps'])
  one = dp_accounting.GaussianDpEvent(release['noise_multiplier'])
  if probability < 1:
    one = dp_accounting.PoissonSampledDpEvent(probability, one)
  return dp_accounting.SelfComposedDpEvent(one, release['steps'])


def training_event(sampler, noise_multiplier, steps):
  """The event of private training with this sampler (see `training_release`)."""
  return event(training_release('training', sampler, noise_multiplier, steps, 1.0))


def gaussian_event(noise_multiplier, count=1):
  """The event of `count` Gaussian releases over all patients, without sampling."""
  return event(
    {
      'mechanism': 'gaussian',
      'noise_multiplier': noise_multiplier,
      'sampling_probability': 1.0,
      'steps': count,
    }
  )


def epsilon(events, delta):
  """Composes events on the same patients and returns epsilon at delta, twice.

  Args:
    events: list of events (`event`, `training_event`, `gaussian_event`).
    delta: in (0, 1).

  Returns:
    {'pld': the claim, 'rdp': its looser confirmation}; inf without noise, and 'pld' is
    inf where epsilon is too large (above about 600) to be computed or to mean anything.

  Raises:
    ValueError: delta out of range.
    ArithmeticError: PLD above RDP, a numerical fault: no figure may be claimed.
  """
  if not 0 < delta < 1:
    raise ValueError(
      f'delta is {delta}; it must lie between 0 and 1. Change adapt.privacy.delta.'
    )
  events = list(events)
  if not events:
    return {'pld': 0.0, 'rdp': 0.0}
  by_rdp = _accountant_epsilon(
    rdp.RdpAccountant(neighboring_relation=RELATION), events, delta
  )
  if not by_rdp < 4 * LARGEST_EPSILON:
    return {'pld': math.inf, 'rdp': by_rdp}
  interval = _interval(events, by_rdp)
  by_pld = _pld_epsilon(events, delta, interval)
  if _disagree(by_pld, by_rdp):  # coarse rounding is the harmless cause: refine once
    by_pld = _pld_epsilon(events, delta, interval / 10)
  if _disagree(by_pld, by_rdp):
    raise ArithmeticError(
      f'the accountants disagree: PLD gives epsilon {by_pld}, above the RDP bound '
      f'{by_rdp}. No figure is claimed; report these events: {events}.'
    )
  return {'pld': by_pld, 'rdp': by_rdp}


def calibrate(epsilon_target, delta, sampling_probability, steps, other_events=()):
  """Finds the smallest noise multiplier that keeps the total within the target.

  Args:
    epsilon_target: total epsilon, over these steps and the other events together.
    delta: of the total.
    sampling_probability: q of each step, in (0, 1].
    steps: number of noisy steps.
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

  def training(noise_multiplier):
    return event(
      {
        'mechanism': 'gaussian',
        'noise_multiplier': noise_multiplier,
        'sampling_probability': sampling_probability,
        'steps': steps,
      }
    )

  def total(noise_multiplier):
    return epsilon([*other_events, training(noise_multiplier)], delta)['pld']

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
  events = [*other_events, training(high)]
  interval = _interval(events, epsilon(events, delta)['rdp'])
  tolerance = 1e-5 * high
  with _quiet():
    sigma = dp_accounting.calibrate_dp_mechanism(
      lambda: pld.PLDAccountant(RELATION, value_discretization_interval=interval),
      lambda value: dp_accounting.ComposedDpEvent([*other_events, training(value)]),
      epsilon_target,
      delta,
      dp_accounting.ExplicitBracketInterval(low, high),
      tol=tolerance,
    )
  while total(sigma) > epsilon_target:  # another rounding grid may read a hair higher
    sigma += tolerance
  return float(sigma)


def _accountant_epsilon(accountant, events, delta):
  with _quiet():
    for each in events:
      accountant.compose(each)
    return float(accountant.get_epsilon(delta))


def _pld_epsilon(events, delta, interval):
  accountant = pld.PLDAccountant(RELATION, value_discretization_interval=interval)
  result = _accountant_epsilon(accountant, events, delta)
  return result if result <= 1.2 * LARGEST_EPSILON else math.inf


def _disagree(by_pld, by_rdp):
  return math.isfinite(by_pld) and by_pld > 1.01 * by_rdp + 1e-4


def _interval(events, by_rdp):
  """Width of the PLD's grid: fine enough for the result, coarse enough for memory.

  Rounding adds at most interval^2 / 4 to the variance of a step's privacy loss, whose
  own variance is about (q / sigma)^2; the sum may grow by a thousandth.
  """
  variance, steps = 0.0, 0
  for each in events:
    one, probability = each.event, 1.0
    if isinstance(one, dp_accounting.PoissonSampledDpEvent):
      one, probability = one.event, one.sampling_probability
    else:
      variance += each.count * (1 / one.noise_multiplier) ** 2
      steps += 1  # the accountant composes unsampled Gaussians in closed form
      continue
    variance += each.count * (probability / one.noise_multiplier) ** 2
    steps += each.count
  width = min(0.06 * math.sqrt(variance / steps), 1e-3)
  return max(width, 1e-6 * by_rdp, 1e-9)


@contextlib.contextmanager
def _quiet():
  """Silences dp_accounting's notes on orders it leaves out (the bound only loosens)."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', RuntimeWarning)
      yield
  finally:
    logger.setLevel(level)
