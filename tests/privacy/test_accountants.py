"""Laws of the accountants: other code finds the same, and no mechanism exceeds it."""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from ldm_jax.privacy import accountants, accounting, banded_matrix

sys.path.insert(0, str(Path(__file__).parent))
import independent

DELTA = 1e-5
PLAIN = {
  'mechanism': 'gaussian',
  'noise_multiplier': 1.2,
  'sampling_probability': 0.1,
  'steps': 100,
}
RELEASES = {
  'poisson': PLAIN,
  'truncated': {
    **PLAIN,
    'mechanism': 'truncated_gaussian',
    'num_patients': 160,
    'max_batch_size': 30,
  },
  'banded': {
    **PLAIN,
    'mechanism': 'banded_gaussian',
    'sampling_probability': 0.3,
    'num_bands': 3,
  },
  'full_batch': {
    **PLAIN,
    'sampling_probability': 1.0,
    'noise_multiplier': 9.0,
    'steps': 20,
  },
}
both = pytest.mark.parametrize('relation', list(accountants.RELATIONS))


@both
@pytest.mark.parametrize('name', RELEASES)
def test_every_mechanism_costs_what_an_independent_accountant_finds(name, relation):
  release = RELEASES[name]
  figures = accounting.epsilon([accounting.event(release)], DELTA, relation)
  found = independent.of_releases([release], DELTA, relation)
  assert figures['pld'] == pytest.approx(found, rel=3e-3)
  assert found <= figures['rdp'] <= 1.2 * found + 0.2


@both
def test_releases_of_several_mechanisms_compose(relation):
  releases = [RELEASES['banded'], RELEASES['poisson'], RELEASES['full_batch']]
  events = [accounting.event(release) for release in releases]
  figures = accounting.epsilon(events, DELTA, relation)
  found = independent.of_releases(releases, DELTA, relation)
  assert figures['pld'] == pytest.approx(found, rel=3e-3)
  assert figures['pld'] <= figures['rdp']


@both
def test_a_limit_that_binds_costs_more_and_lies_between_its_bounds(relation):
  release = {**RELEASES['truncated'], 'max_batch_size': 20, 'noise_multiplier': 3.0}
  figures = accounting.epsilon([accounting.event(release)], DELTA, relation)
  low, high = (
    independent.of_releases([release], DELTA, relation, tight)
    for tight in (True, False)
  )
  plain = {**release, 'mechanism': 'gaussian'}
  free = accounting.epsilon([accounting.event(plain)], DELTA, relation)['pld']
  assert 1.02 * free < low * 0.997 <= figures['pld'] <= high * 1.003
  assert figures['pld'] <= figures['rdp']


def test_a_limit_five_deviations_above_the_mean_costs_next_to_nothing():
  limit = math.ceil(16 + 5 * math.sqrt(160 * 0.1 * 0.9))
  release = {**RELEASES['truncated'], 'max_batch_size': limit}
  found = accounting.epsilon([accounting.event(release)], DELTA)['pld']
  plain = accounting.epsilon([accounting.event(PLAIN)], DELTA)['pld']
  assert plain < found < 1.001 * plain


def truncated_output(n, q, limit, values, sigma, x):
  """Exact density of one truncated step over n patients with these values."""
  result = np.zeros_like(x)
  for drawn in itertools.product((False, True), repeat=n):
    members = [i for i in range(n) if drawn[i]]
    chance = q ** len(members) * (1 - q) ** (n - len(members))
    kept = list(itertools.combinations(members, min(limit, len(members))))
    for subset in kept:
      total = sum(values[i] for i in subset)
      result += chance / len(kept) * norm.pdf(x, total, sigma)
  return result


@pytest.mark.parametrize('limit', [1, 2])
@pytest.mark.parametrize('other', [-1.0, 1.0])
def test_no_patient_is_seen_through_a_truncated_batch_beyond_the_claim(limit, other):
  """The step itself, enumerated; the last patient is the one removed or added."""
  public, q, sigma = 4, 0.4, 0.8
  x = np.linspace(-14, 14, 1401)
  release = {**PLAIN, 'steps': 1, 'noise_multiplier': sigma}
  release |= {'mechanism': 'truncated_gaussian', 'num_patients': public}
  release |= {'max_batch_size': limit, 'sampling_probability': q}
  event = accounting.event(release)
  delta = 1e-3
  claim = accounting.epsilon([event], delta)['pld']
  for n in (public, public + 1):
    values = [other] * (n - 1) + [1.0]
    with_ = truncated_output(n, q, limit, values, sigma, x)
    without = truncated_output(n - 1, q, limit, values[:-1], sigma, x)
    for p, r in ((with_, without), (without, with_)):
      assert independent.hockey_stick(p, r, x[1] - x[0], claim) <= delta * 1.001


def test_no_patient_is_seen_through_banded_noise_beyond_the_claim():
  """Three steps of two bands as one release in three dimensions, integrated."""
  sigma, q = 1.0, 0.5
  strategy = (0.8, 0.6)
  columns = banded_matrix.matrix(strategy, 3)
  axis = np.linspace(-6.0, 7.0, 53)
  grid = np.stack(np.meshgrid(axis, axis, axis, indexing='ij'))
  volume = (axis[1] - axis[0]) ** 3

  def normal(centre):
    square = sum((grid[i] - centre[i]) ** 2 for i in range(3))
    return np.exp(-square / (2 * sigma**2)) / (2 * np.pi * sigma**2) ** 1.5

  # Half of the secrets put the patient into steps 0 and 2, half into step 1.
  with_ = np.zeros_like(grid[0])
  for group in ((0, 2), (1,)):
    for drawn in itertools.product((0, 1), repeat=len(group)):
      chance = np.prod([q if taken else 1 - q for taken in drawn])
      steps = [step for step, taken in zip(group, drawn, strict=True) if taken]
      with_ += 0.5 * chance * normal(columns[:, steps].sum(axis=1))
  without = normal(np.zeros(3))
  release = {**PLAIN, 'mechanism': 'banded_gaussian', 'num_bands': 2, 'steps': 3}
  release |= {'noise_multiplier': sigma, 'sampling_probability': q}
  for delta in (1e-1, 1e-2, 1e-4):
    claim = accounting.epsilon([accounting.event(release)], delta)['pld']
    for p, r in ((with_, without), (without, with_)):
      assert independent.hockey_stick(p, r, volume, claim) <= delta * 1.001
  # The bound is no formality: half the epsilon would be wrong.
  claim = accounting.epsilon([accounting.event(release)], 1e-2)['pld']
  assert independent.hockey_stick(with_, without, volume, claim / 3) > 1e-2


def test_opposite_patients_are_the_worst_exchange():
  """The step itself in two dimensions, over directions and lengths of both patients."""
  sigma, q, delta = 0.9, 0.3, 1e-3
  release = {**PLAIN, 'steps': 1, 'noise_multiplier': sigma}
  release['sampling_probability'] = q
  claim = accounting.epsilon([accounting.event(release)], delta, 'substitute_one')
  axis = np.linspace(-6, 6, 121)
  grid = np.stack(np.meshgrid(axis, axis, indexing='ij'))

  def normal(centre):
    square = (grid[0] - centre[0]) ** 2 + (grid[1] - centre[1]) ** 2
    return np.exp(-square / (2 * sigma**2)) / (2 * np.pi * sigma**2)

  null = (1 - q) * normal((0, 0))
  found = []
  for length, angle in itertools.product((0.5, 1.0), np.linspace(0, np.pi, 7)):
    p = null + q * normal((1.0, 0.0))
    r = null + q * normal((length * math.cos(angle), length * math.sin(angle)))
    for one, two in ((p, r), (r, p)):
      volume = (axis[1] - axis[0]) ** 2
      found.append(independent.hockey_stick(one, two, volume, claim['pld']))
  assert max(found) == pytest.approx(delta, rel=0.01)  # the grid's error


@pytest.mark.parametrize('sigma', [0.6, 2.0, 20.0])
def test_integrated_divergences_are_those_of_known_cases(sigma):
  orders = (1.5, 4, 32)
  full = accountants.substitution_divergences(1.0, sigma, orders)
  np.testing.assert_allclose(full, 2 * np.array(orders) / sigma**2)
  x = np.linspace(-40 - 12 * sigma, 12 * sigma, 100_001)
  pair, _ = independent.exchanged(0.2)
  log_p, log_q = (independent.log_density(one, sigma, x) for one in pair)
  power = np.sum(np.exp(4 * log_p - 3 * log_q)) * (x[1] - x[0])
  found = accountants.substitution_divergences(0.2, sigma, (4,))
  assert found[0] == pytest.approx(math.log(power) / 3, rel=1e-6)
  # Poisson sampling against nobody is half of an exchange: less, by any order.
  half = np.sum(np.exp(4 * log_p - 3 * norm.logpdf(x, 0, sigma))) * (x[1] - x[0])
  assert math.log(half) / 3 < found[0]


def test_an_exchange_costs_more_than_an_addition_and_no_noise_costs_everything():
  event = accounting.event(PLAIN)
  added, exchanged = (
    accounting.epsilon([event], DELTA, relation)['pld']
    for relation in accountants.RELATIONS
  )
  assert added < exchanged
  for name, relation in itertools.product(RELEASES, accountants.RELATIONS):
    silent = accounting.event({**RELEASES[name], 'noise_multiplier': 0.0})
    assert accounting.epsilon([silent], DELTA, relation)['pld'] == math.inf
  with pytest.raises(ValueError, match='relation'):
    accounting.epsilon([event], DELTA, 'zero_out')


@pytest.mark.parametrize(
  ('name', 'field'),
  [
    ('truncated', 'num_patients'),
    ('truncated', 'max_batch_size'),
    ('banded', 'num_bands'),
  ],
)
@pytest.mark.parametrize('value', [0, 2.5, True, None])
def test_a_release_without_what_its_mechanism_needs_has_no_event(name, field, value):
  release = RELEASES[name]
  with pytest.raises(ValueError, match=field):
    accounting.event({**release, field: value})
  with pytest.raises(ValueError, match=f'lacks {field}'):
    accounting.event({k: v for k, v in release.items() if k != field})
