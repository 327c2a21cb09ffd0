"""Laws of the accounting: recomputed by other code, forward and back, or refused."""

import math
import time

import numpy as np
import pytest
from scipy.stats import norm

from ldm_jax.privacy import accounting, mechanisms


def training(sigma, q, steps, num_patients=10_000):
  """The event of plain DP-SGD."""
  scheme = mechanisms.Poisson(
    num_patients=num_patients,
    batch_size=q * num_patients,
    steps=steps,
    clip_norm=1.0,
    noise_multiplier=sigma,
  )
  return scheme.event()


def gaussian_delta(epsilon, sigma):
  """Exact delta of one Gaussian release. [Balle18] Theorem 8."""
  return norm.cdf(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * norm.cdf(
    -0.5 / sigma - epsilon * sigma
  )


def fourier_epsilon(q, sigma, steps, delta, step=5e-4, reach=60.0):
  """Epsilon of the sampled Gaussian by plain Fourier composition, both directions."""
  cells = int(2 * reach / step)
  cells += cells % 2
  grid = (np.arange(cells) - cells // 2) * step
  x = np.linspace(-12 * sigma, 1 + 12 * sigma, 400_001)
  null = norm.pdf(x, 0, sigma)
  mixture = (1 - q) * null + q * norm.pdf(x, 1, sigma)
  log_ratio = np.log1p(-q + q * np.exp((2 * x - 1) / (2 * sigma**2)))
  worst = 0.0
  for weight, loss in ((mixture, log_ratio), (null, -log_ratio)):
    mass = weight * (x[1] - x[0])
    low = np.floor(loss / step)
    share = loss / step - low  # split on two cells: the mean loss stays exact
    pmf = np.zeros(cells)
    index = low.astype(int) + cells // 2
    np.add.at(pmf, index, mass * (1 - share))
    np.add.at(pmf, index + 1, mass * share)
    total = np.fft.irfft(np.fft.rfft(np.fft.ifftshift(pmf)) ** steps, cells)
    total = np.fft.fftshift(total)

    def excess(epsilon, total=total):
      tail = grid > epsilon
      return np.sum(total[tail] * -np.expm1(epsilon - grid[tail])) - delta

    low_eps, high_eps = 0.0, 40.0
    for _ in range(50):
      middle = (low_eps + high_eps) / 2
      low_eps, high_eps = (
        (middle, high_eps) if excess(middle) > 0 else (low_eps, middle)
      )
    worst = max(worst, high_eps)
  return worst


@pytest.mark.parametrize('sigma', [0.5, 1.0, 4.0, 30.0])
def test_one_gaussian_release_costs_the_analytic_epsilon(sigma):
  figures = accounting.epsilon([accounting.gaussian_event(sigma)], 1e-5)
  assert gaussian_delta(figures['pld'], sigma) <= 1e-5 * (1 + 1e-6)
  assert gaussian_delta(figures['pld'] * 0.998, sigma) > 1e-5
  assert figures['rdp'] >= figures['pld']


@pytest.mark.parametrize(
  ('q', 'sigma', 'steps'),
  [(0.0256, 1.26, 5860), (0.004, 0.7, 5000), (0.2, 2.0, 300), (0.0256, 8.0, 5860)],
)
def test_the_claim_agrees_with_an_independent_fourier_accountant(q, sigma, steps):
  figures = accounting.epsilon([training(sigma, q, steps)], 1e-5)
  assert figures['pld'] == pytest.approx(
    fourier_epsilon(q, sigma, steps, 1e-5), rel=3e-3
  )
  assert figures['pld'] <= figures['rdp']


@pytest.mark.parametrize(('target', 'by_rdp'), [(10.0, 1.26), (1.0, 8.0), (0.1, 66.7)])
def test_the_published_multipliers_reach_their_epsilon_by_rdp(target, by_rdp):
  steps = 150 * math.ceil(10_000 / 256)
  figures = accounting.epsilon([training(by_rdp, 256 / 10_000, steps)], 1e-5)
  assert figures['rdp'] == pytest.approx(target, rel=0.03)


@pytest.mark.parametrize('target', [0.1, 1.0, 10.0])
def test_calibration_is_verified_forward_and_wastes_nothing(target):
  start = time.perf_counter()
  sigma = accounting.calibrate(target, 1e-5, 0.0256, 6000)
  assert time.perf_counter() - start < 20

  def epsilon(value):
    return accounting.epsilon([training(value, 0.0256, 6000)], 1e-5)['pld']

  assert epsilon(sigma) <= target < epsilon(sigma * 0.999)


def test_calibration_leaves_room_for_what_was_spent_before():
  before = [accounting.gaussian_event(6.0), accounting.gaussian_event(9.0, count=2)]
  alone = accounting.calibrate(2.0, 1e-5, 0.1, 200)
  sigma = accounting.calibrate(2.0, 1e-5, 0.1, 200, other_events=before)
  assert sigma > alone
  total = accounting.epsilon([*before, training(sigma, 0.1, 200)], 1e-5)
  assert 1.99 < total['pld'] <= 2.0
  with pytest.raises(ValueError, match='nothing is left'):
    accounting.calibrate(0.5, 1e-5, 0.1, 200, other_events=before)


def test_composition_is_at_least_its_parts_and_at_most_their_sum():
  parts = [accounting.gaussian_event(3.0), accounting.gaussian_event(5.0)]
  alone = [accounting.epsilon([part], 1e-5)['pld'] for part in parts]
  both = accounting.epsilon(parts, 1e-5)['pld']
  assert max(alone) < both < accounting.epsilon(parts, 1e-5)['rdp']
  assert both <= sum(accounting.epsilon([part], 5e-6)['pld'] for part in parts)


def test_sampling_everyone_costs_the_unsampled_gaussian():
  event = training(5.0, 1.0, 10, num_patients=50)
  single = accounting.gaussian_event(5.0 / math.sqrt(10))
  assert accounting.epsilon([event], 1e-5)['pld'] == pytest.approx(
    accounting.epsilon([single], 1e-5)['pld'], rel=1e-3
  )


def test_no_release_costs_nothing_and_no_noise_costs_everything():
  assert accounting.epsilon([], 1e-5) == {'pld': 0.0, 'rdp': 0.0}
  clip_only = accounting.gaussian_event(0)
  assert accounting.epsilon([clip_only], 1e-5)['pld'] == math.inf
  weak = accounting.gaussian_event(0.001)
  assert accounting.epsilon([weak], 1e-5)['pld'] == math.inf


@pytest.mark.parametrize('sigma', [100.0, 1e4, 1e6])
def test_tiny_budgets_stay_below_their_rdp_bound(sigma):
  figures = accounting.epsilon([training(sigma, 0.0256, 6000)], 1e-5)
  assert 0 <= figures['pld'] <= figures['rdp']


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('mechanism', 'laplace'),
    ('noise_multiplier', -1.0),
    ('noise_multiplier', math.nan),
    ('noise_multiplier', '1.0'),
    ('sampling_probability', 1.5),
    ('sampling_probability', 0.0),
    ('steps', 0),
    ('steps', 2.5),
    ('steps', True),
  ],
)
def test_a_release_with_an_impossible_field_has_no_event(field, value):
  release = {
    'mechanism': 'gaussian',
    'noise_multiplier': 1.0,
    'sampling_probability': 0.1,
    'steps': 10,
  }
  accounting.event(release)
  with pytest.raises(ValueError):
    accounting.event({**release, field: value})
  with pytest.raises(ValueError, match=f'lacks {field}'):
    accounting.event({k: v for k, v in release.items() if k != field})


@pytest.mark.parametrize('epsilon', [0, -1.0, math.nan, math.inf, 1e6, None, '10'])
def test_an_impossible_epsilon_is_refused_with_its_config_key(epsilon):
  with pytest.raises(ValueError, match=r'adapt\.privacy\.epsilon'):
    accounting.calibrate(epsilon, 1e-5, 0.1, 100)


@pytest.mark.parametrize('relation', ['add_or_remove_one', 'substitute_one'])
def test_the_curve_is_the_profile_that_other_code_computes(relation):
  """Of Gaussian releases over everybody it has a closed form."""
  sigma, steps = 3.0, 4
  shift = math.sqrt(steps) / sigma * (1 if relation == 'add_or_remove_one' else 2)
  found = accounting.curve([accounting.gaussian_event(sigma, steps)], relation)
  for epsilon, delta in found:
    exact = gaussian_delta(epsilon, 1 / shift)
    assert delta == pytest.approx(exact, rel=0.02, abs=1e-9)
    assert delta >= exact * (1 - 1e-6)
  assert accounting.curve([]) == ()
  assert accounting.curve([accounting.gaussian_event(0.0)]) == ()
