"""Laws of the trade-off: no attack beats it, and the best attack nearly reaches it."""

import math

import numpy as np
import pytest
from scipy import stats

from ldm_jax.privacy import trade_off


def gaussian(shift, num_points=60):
  """The profile of N(0, 1) against N(shift, 1) in closed form."""
  pairs = []
  for epsilon in np.linspace(0, 8 * shift, num_points):
    upper = stats.norm.cdf(shift / 2 - epsilon / shift)
    lower = stats.norm.cdf(-shift / 2 - epsilon / shift)
    pairs.append((float(epsilon), float(upper - math.exp(epsilon) * lower)))
  return pairs


@pytest.mark.parametrize('shift', [0.3, 1.0, 2.5])
def test_the_best_test_of_two_gaussians_is_bounded_and_nearly_reached(shift):
  pairs = gaussian(shift)
  for alarms in trade_off.FALSE_ALARMS:
    best = stats.norm.cdf(stats.norm.isf(alarms) - shift)
    found = trade_off.misses(pairs, alarms)
    assert best - 0.01 <= found <= best + 1e-9
  bounds = trade_off.attack_bounds(*pairs[-1], pairs)
  exact = 2 * stats.norm.cdf(shift / 2) - 1
  assert bounds['advantage'] == pytest.approx(exact, abs=1e-6)
  assert bounds['detection'] == pytest.approx(
    stats.norm.sf(stats.norm.isf(0.01) - shift), abs=0.01
  )


def test_one_pair_bounds_as_the_theorem_says_and_large_epsilon_bounds_nothing():
  assert trade_off.misses([(1.0, 0.1)], 0.2) == pytest.approx(0.9 - 0.2 * math.e)
  assert trade_off.misses([(1.0, 0.1)], 0.6) == pytest.approx(0.3 / math.e)
  assert trade_off.misses([(1000.0, 0.0)], 0.5) == pytest.approx(0.0)
  assert trade_off.misses([(0.0, 0.0)], 0.3) == pytest.approx(0.7)
  assert trade_off.misses([], 0.3) == 0.0


def test_more_pairs_never_loosen_a_bound():
  pairs = gaussian(1.0)
  few, many = pairs[30:31], pairs[10:40]
  for alarms in trade_off.FALSE_ALARMS:
    assert trade_off.misses(many, alarms) >= trade_off.misses(few, alarms)
