"""Laws of the term that finite precision adds to delta: it bounds what it should."""

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from scipy import stats

from ldm_jax.privacy import finite_precision, mechanisms, releases


def ideal(shift, epsilon):
  """Delta of a Gaussian release whose sum moves by `shift` deviations."""
  upper = stats.norm.cdf(shift / 2 - epsilon / shift)
  return upper - math.exp(epsilon) * stats.norm.cdf(-shift / 2 - epsilon / shift)


@pytest.mark.parametrize('shift', [0.1, 0.5, 1.5])
@pytest.mark.parametrize('epsilon', [0.0, 1.0, 4.0])
def test_noise_that_ends_early_costs_at_most_the_term(shift, epsilon, monkeypatch):
  """The divergence of the conditioned pair, by integration, with an end so near that
  it matters: 12 coins in place of 80."""
  monkeypatch.setattr(finite_precision, 'GEOMETRIC_BITS', 12)
  end = math.sqrt(24 * math.log(2))
  monkeypatch.setattr(finite_precision, 'END', end)
  monkeypatch.setattr(finite_precision, 'LARGEST_SIZE', 1)
  step = 0.004
  x = np.arange(-6, 6, step) + step / 2
  y = x[:, None]

  def density(centre):
    inside = (x - centre) ** 2 + y**2 < end**2
    return inside * np.exp(-((x - centre) ** 2 + y**2) / 2) / (2 * np.pi)

  scale = step**2 / (1 - 2.0**-12)
  excess = np.maximum(density(shift) - math.exp(epsilon) * density(0.0), 0)
  found = scale * excess.sum()
  assert found > ideal(shift, epsilon) + 1e-6 or epsilon < 4, 'the end does not matter'
  assert found <= ideal(shift, epsilon) + finite_precision.rounded(shift) + 1e-6


def test_many_pairs_cost_no_more_than_the_term_however_a_patient_is_spread():
  """Probability of an impossible outcome, over all ways to spread a shift evenly."""
  end = finite_precision.END
  for shift in (0.1, 1.0, 2.5, 5.0):
    for pairs in 10.0 ** np.arange(0, 9.6, 0.4):
      each = shift / math.sqrt(pairs)
      gap = math.expm1(end * each - each**2 / 2)  # of exp(-L^2 / 2)
      found = pairs * math.exp(-(end**2) / 2) * gap
      assert found <= finite_precision.rounded(shift)


def test_the_discrete_gaussian_is_as_near_to_the_rounded_one_as_stated():
  for s in (20.0, 100.0):
    k = np.arange(0, int(6 * s))
    rounded = stats.norm.sf((k - 0.5) / s) - stats.norm.sf((k + 0.5) / s)
    discrete = np.exp(-(k**2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi))
    log_ratio = np.log(rounded / discrete)
    assert np.all(log_ratio >= -1 / (8 * s**2) - 1e-8)
    assert np.all(log_ratio <= k**2 / (8 * s**4) + 1e-8)


@pytest.mark.parametrize('sigma', [0.7, 2.0])
def test_the_gaussian_accounts_for_the_discrete_one_by_other_code(sigma):
  """dp_accounting's discrete Gaussian of one number, on a coarser grid than ours."""
  steps = 400  # of the grid in the sensitivity
  made = privacy_loss_distribution.from_discrete_gaussian_mechanism(
    sigma * steps, sensitivity=steps, value_discretization_interval=1e-3
  )
  event = dp_accounting.GaussianDpEvent(sigma)
  accountant = dp_accounting.pld.PLDAccountant(value_discretization_interval=1e-3)
  claimed = accountant.compose(event)
  near = 3 * 12.0**2 / (8 * (sigma * steps) ** 2)  # within 12 deviations
  for epsilon in (0.5, 1.0, 3.0):
    found = made.get_delta_for_epsilon(epsilon)
    assert found <= claimed.get_delta(epsilon) + near
    assert found >= 0.9 * claimed.get_delta(epsilon)


def test_the_example_of_the_docs_pays_nothing_that_matters():
  """With normals that end at 5.42 an attacker had a chance of 8.6e-4 there."""
  run = mechanisms.Poisson(
    num_patients=10_000,
    batch_size=256,
    steps=5860,
    clip_norm=1.0,
    noise_multiplier=1.197,
  )
  release = run.release('adapt')
  assert release[finite_precision.FIELD] == finite_precision.ROUNDED
  for relation in ('add_or_remove_one', 'substitute_one'):
    assert 0 < finite_precision.delta([release], relation) < 1e-9
  old = 5860 * 0.0256 * (stats.norm.sf(5.42 - 1 / 1.197) - stats.norm.sf(5.42))
  assert old > 1e-4


def test_terms_add_up_and_too_little_noise_has_none_that_helps():
  mean = releases.planned('mean', 2.0, 1.0)
  one = finite_precision.delta([mean])
  assert 0 < one < 1e-10
  assert finite_precision.delta([mean] * 3) == pytest.approx(3 * one)
  train = {'mechanism': 'gaussian', 'noise': 'rounded_gaussian', 'steps': 10}
  terms = [
    finite_precision.delta([{**train, 'noise_multiplier': sigma}])
    for sigma in (0.01, 0.2, 0.3, 1.0)
  ]
  assert terms == sorted(terms, reverse=True) and terms[0] == 1.0
  far = {**train, 'noise_multiplier': 0.4}
  assert finite_precision.delta([{**far, 'mechanism': 'truncated_gaussian'}]) == (
    finite_precision.delta([far], 'substitute_one')
  )
  assert finite_precision.delta([{**train, 'noise_multiplier': 0.0}]) == 0.0


def test_noise_of_older_versions_is_named_and_unknown_noise_refused():
  old = {'name': 'a', 'noise_multiplier': 1.0, 'steps': 2}
  assert finite_precision.unnamed([old, {**old, 'noise': 'rounded_gaussian'}]) == ['a']
  assert finite_precision.delta([old]) == 0.0
  with pytest.raises(ValueError, match='rounded_gaussian'):
    finite_precision.check({**old, 'noise': 'loud'})
