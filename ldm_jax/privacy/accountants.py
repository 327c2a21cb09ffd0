"""The two accountants: privacy loss distributions (PLD) and Rényi divergences (RDP).

Both compose events of `accounting.event` and return epsilon at delta for one
neighbouring relation. `pld_epsilon` gives the claimed figure and uses dp_accounting
alone. `rdp_epsilon` checks it with a second upper bound. Where dp_accounting has no
Rényi accountant (truncated sampling, substitution), the divergences are integrated
numerically here, so that the check shares no code with the claim.

Dominating pairs, for sensitivity 1 and noise of standard deviation sigma (the noise
multiplier); N(m) denotes the normal distribution (m, sigma^2). They hold in any
dimension and under adaptive composition.

  Poisson, add or remove: (1-q) N(0) + q N(1) against N(0), both directions [Mironov19].

  Poisson, substitute x by y: A = (1-q) N(0) + q N(-1) against B = (1-q) N(0) + q N(1).
    Proof. For eps >= 0 the divergence H = sup_E A(E) - e^eps B(E) is, whatever x and y,
    sup_E q N(x)(E) - [(1-q)(e^eps - 1) N(0)(E) + q e^eps N(y)(E)]: one normal against
    a positive mixture of two normals whose centres are at distances |x| <= 1 and
    |x - y| <= 2 from it. Under the first normal, the ratio of the densities is a sum of
    two lognormals, and H is the mean of a convex function of it. Such a mean is largest
    when the two grow together (comonotonic sums are largest in convex order [Kaas00]),
    which is the case when both centres lie in the same direction, and it grows with
    each distance (a geometric Brownian motion is a martingale). The maximum is
    therefore at x = -1, y = 1. For eps < 0, exchange A and B.

  Truncated Poisson [Truncated25], at most L = max_batch_size patients (B in the paper).
    Let x be one patient and K the number of other patients drawn: K is
    Binomial(n-1, q) and independent of x. If K < L, nothing is truncated, with or
    without x: the Poisson pair. If K >= L (probability tau), the batch without x is a
    uniform L-subset S of the other patients, for every such K; with x it is S, or, with
    probability q* = q E[L/(K+1) | K >= L], S with one member replaced by x, which moves
    the sum by at most 2. The pair is therefore the mixture, with weight tau, of the
    Poisson pair at q and of a pair at q* and sensitivity 2, for which dp_accounting
    uses the substitution pair (pessimistic). Here n includes x: removing one of N
    patients means n = N, adding a patient means n = N + 1.

[Mironov19] Rényi DP of the Sampled Gaussian Mechanism, arXiv:1908.10530.
[Truncated25] arXiv:2508.15089 (TruncatedSubsampledGaussianDpEvent of dp_accounting).
[Kaas00] Kaas, Dhaene, Goovaerts, Upper and lower bounds for sums of random variables,
  Insurance: Mathematics and Economics 27, 2000.
"""

import contextlib
import functools
import logging
import math
import warnings
from collections.abc import Iterable, Iterator

import attr
import dp_accounting
import numpy as np
from dp_accounting import dp_event, pld, rdp
from scipy import special, stats

from ldm_jax.types import Array

RELATIONS = {
  'add_or_remove_one': dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
  'substitute_one': dp_accounting.NeighboringRelation.REPLACE_ONE,
}
# The orders that dp_accounting uses by default.
ORDERS = (*(1 + x / 10 for x in range(1, 100)), *range(11, 64), 128, 256, 512, 1024)


def pld_epsilon(
  events: Iterable[dp_accounting.DpEvent], delta: float, relation: str, interval: float
) -> float:
  """Upper bound on epsilon at delta by privacy loss distributions.

  The discretisation is pessimistic: the result is never below the true epsilon.

  Args:
    events: from `accounting.event`, all on the same patients.
    delta: in (0, 1).
    relation: a key of `RELATIONS`.
    interval: spacing of the grid of privacy losses.
  """

  with quiet():
    return float(
      max(
        _pld(tuple(variant), relation, interval).get_epsilon(delta)
        for variant in _sizes(events, relation)
      )
    )


def pld_deltas(
  events: Iterable[dp_accounting.DpEvent],
  epsilons: Iterable[float],
  relation: str,
  interval: float,
) -> list[float]:
  """Upper bounds on delta at each epsilon; other arguments as in `pld_epsilon`."""
  with quiet():
    composed = [
      _pld(tuple(each), relation, interval) for each in _sizes(events, relation)
    ]
    return [float(max(one.get_delta(e) for one in composed)) for e in epsilons]


# A statement asks for epsilon and for a whole curve of the same composition.
@functools.lru_cache(maxsize=4)
def _pld(events, relation, interval):
  return _compose(pld.PLDAccountant(RELATIONS[relation], interval), events)


def rdp_epsilon(
  events: Iterable[dp_accounting.DpEvent], delta: float, relation: str
) -> float:
  """Upper bound on epsilon at delta by Rényi divergences, independent of the PLD bound.

  For truncation that is rarely reached there is a second bound: K >= L (see the module
  docstring) happens in some step with probability at most mass = sum of steps * tau.
  Otherwise the dominating pairs are those of plain Poisson sampling, so epsilon of
  plain Poisson at delta - mass is an upper bound too. The smaller bound is returned.

  Args:
    events, delta, relation: as in `pld_epsilon`.
  """

  def one(events, delta):
    return _renyi(tuple(events), relation).get_epsilon(delta)

  def smallest(events):
    plain, mass = _untruncated(events)
    bounds = [one(events, delta)]
    if 0 < mass < delta:
      bounds.append(one(plain, delta - mass))
    return min(bounds)

  with quiet():
    return float(max(smallest(variant) for variant in _sizes(events, relation)))


def rdp_deltas(
  events: Iterable[dp_accounting.DpEvent], epsilons: Iterable[float], relation: str
) -> list[float]:
  """Upper bounds on delta at each epsilon by Rényi divergences."""
  with quiet():
    composed = [_renyi(tuple(each), relation) for each in _sizes(events, relation)]
    return [float(max(one.get_delta(e) for one in composed)) for e in epsilons]


def has_choice(events: Iterable[dp_accounting.DpEvent]) -> bool:
  """Whether one of the events is a private choice, which has no PLD."""
  kind = dp_event.RepeatAndSelectDpEvent
  return any(isinstance(getattr(each, 'event', None), kind) for each in events)


def interval(events: Iterable[dp_accounting.DpEvent], by_rdp: float) -> float:
  """Grid spacing for `pld_epsilon`: fine enough for accuracy, coarse enough for memory.

  Rounding adds at most interval^2 / 4 to the variance of one step's privacy loss, which
  is about (q / sigma)^2. The spacing lets the total variance grow by at most 0.1 %.

  Args:
    events: as in `pld_epsilon`.
    by_rdp: epsilon of the same events by `rdp_epsilon`.
  """
  variance, steps = 0.0, 0
  for each in events:
    one, probability = each.event, 1.0
    if isinstance(one, dp_accounting.GaussianDpEvent):
      # The accountant composes unsampled Gaussians in closed form.
      variance, steps = variance + each.count / one.noise_multiplier**2, steps + 1
      continue
    probability = one.sampling_probability
    noise = getattr(one, 'event', one).noise_multiplier
    variance += each.count * (probability / noise) ** 2
    steps += each.count
  width = min(0.06 * math.sqrt(variance / steps), 1e-3)
  return max(width, 1e-6 * by_rdp, 1e-9)


def truncation(
  event: dp_accounting.TruncatedSubsampledGaussianDpEvent,
) -> tuple[float, float]:
  """(tau, q*) of a truncated event, as defined in the module docstring."""
  size, limit = event.dataset_size, event.truncated_batch_size
  probability = event.sampling_probability
  tau = float(stats.binom.sf(limit - 1, size - 1, probability))
  if tau == 0:
    return 0.0, 0.0
  kept = stats.binom.sf(limit, size, probability) * limit / size
  return tau, float(kept / tau)


class _Renyi(rdp.RdpAccountant):
  """dp_accounting's Rényi accountant, with numerical integrals for further events."""

  def __init__(self, relation):
    super().__init__(ORDERS, relation)

  def _maybe_compose(self, event, count, do_compose):
    known = self.neighboring_relation is RELATIONS['add_or_remove_one']
    if isinstance(event, dp_accounting.TruncatedSubsampledGaussianDpEvent):
      curve = self._truncated
    elif known or not isinstance(
      event, dp_accounting.GaussianDpEvent | dp_accounting.PoissonSampledDpEvent
    ):
      return super()._maybe_compose(event, count, do_compose)
    else:
      curve = self._substituted
    if do_compose:
      self._rdp = self._rdp + count * curve(event)
    return None

  def _substituted(self, event):
    probability = getattr(event, 'sampling_probability', 1.0)
    noise = getattr(event, 'event', event).noise_multiplier
    return substitution_divergences(probability, noise, self._orders)

  def _truncated(self, event):
    tau, kept = truncation(event)
    plain = _Renyi(self.neighboring_relation).compose(_plain(event))._rdp
    if tau == 0:
      return plain
    # Sensitivity 2 equals sensitivity 1 with half the noise multiplier.
    cut = substitution_divergences(kept, event.noise_multiplier / 2, self._orders)
    less_one = self._orders - 1
    with np.errstate(divide='ignore'):
      parts = np.log1p(-tau) + less_one * plain, np.log(tau) + less_one * cut
    return np.logaddexp(*parts) / less_one


def substitution_divergences(
  probability: float, noise_multiplier: float, orders: Array
) -> np.ndarray:
  """Rényi divergences of (1-q) N(0) + q N(-1) from (1-q) N(0) + q N(1).

  Computed by the trapezoidal rule. Its error for an integrand without poles near the
  real axis is exp(-2 pi distance / step); here the poles are at distance pi sigma^2.

  Args:
    probability: q in (0, 1].
    noise_multiplier: standard deviation sigma >= 0; at 0 the divergences are infinite.
    orders: (n,), each above 1.

  Returns:
    (n,) divergences.
  """
  orders, noise = np.asarray(orders, float), noise_multiplier
  if noise == 0:
    return np.full(orders.shape, np.inf)
  if probability == 1:
    return 2 * orders / noise**2
  step = min(noise, noise**2) / 4
  found = []
  for order in orders:
    low, high = 1 - 2 * order - 14 * noise, 1 + 14 * noise
    if (high - low) / step > 5e6:  # no useful bound at this order
      found.append(np.inf)
      continue
    x = np.arange(low, high, step)
    null = np.log1p(-probability) - x**2 / (2 * noise**2)
    one = math.log(probability) - (x + 1) ** 2 / (2 * noise**2)
    other = math.log(probability) - (x - 1) ** 2 / (2 * noise**2)
    log_p, log_q = np.logaddexp(null, one), np.logaddexp(null, other)
    scale = math.log(step / (noise * math.sqrt(2 * math.pi)))
    total = special.logsumexp(order * log_p + (1 - order) * log_q) + scale
    found.append(max(total, 0.0) / (order - 1))
  return np.array(found)


def renyi(
  events: tuple[dp_accounting.DpEvent, ...], relation: str
) -> tuple[np.ndarray, np.ndarray]:
  """(orders (n,), divergences (n,)) of composed events, the larger of all `_sizes`."""
  with quiet():
    found = [_renyi(tuple(each), relation) for each in _sizes(events, relation)]
  divergences = np.max([np.asarray(each._rdp, float) for each in found], axis=0)
  return np.asarray(found[0]._orders, float), divergences


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Silences dp_accounting's notes on skipped orders, which only loosen the bound."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', RuntimeWarning)
      yield
  finally:
    logger.setLevel(level)


@functools.lru_cache(maxsize=64)
def _renyi(events, relation):
  """The composed divergences, which do not depend on delta; not to be changed."""
  return _compose(_Renyi(RELATIONS[relation]), events)


def _compose(accountant, events):
  for each in events:
    accountant.compose(each)
  return accountant


def _sizes(events, relation):
  """Lists of events to bound: n = N, and n = N + 1 where events depend on n."""

  def grown(event):
    one = event.event
    if not isinstance(one, dp_accounting.TruncatedSubsampledGaussianDpEvent):
      return event
    one = attr.evolve(one, dataset_size=one.dataset_size + 1)
    return dp_accounting.SelfComposedDpEvent(one, event.count)

  events = list(events)
  larger = [grown(event) for event in events]
  same = relation != 'add_or_remove_one' or larger == events
  return [events] if same else [events, larger]


def _plain(event):
  noise = dp_accounting.GaussianDpEvent(event.noise_multiplier)
  return dp_accounting.PoissonSampledDpEvent(event.sampling_probability, noise)


def _untruncated(events):
  """(events without truncation, bound on the probability that any step truncates)."""
  found, mass = [], 0.0
  for event in events:
    if isinstance(event.event, dp_accounting.TruncatedSubsampledGaussianDpEvent):
      mass += event.count * truncation(event.event)[0]
      event = dp_accounting.SelfComposedDpEvent(_plain(event.event), event.count)
    found.append(event)
  return found, mass
