"""Laws of planning: within the budget, near the least noise, a batch by its rule."""

import pytest

from ldm_jax.privacy import accounting, budget


def test_the_multiplier_of_a_price_gives_back_its_epsilon():
  run = {'delta': 1e-3, 'num_patients': 60, 'batch_size': 20, 'steps': 10}
  there = budget.price(epsilon=4.0, **run)
  back = budget.price(noise_multiplier=there['noise_multiplier'], **run)
  assert back == there and 3.99 < back['epsilon'] <= 4
  with pytest.raises(ValueError, match='exactly one'):
    budget.price(**run)


def test_the_ratio_falls_with_the_batch_and_grows_with_the_root_of_the_parameters():
  one = budget.noise_to_signal(2.0, 100, 10)
  assert one == pytest.approx(2.0)
  assert budget.noise_to_signal(2.0, 400, 10) == pytest.approx(2 * one)
  assert budget.noise_to_signal(2.0, 100, 40) == pytest.approx(one / 4)


@pytest.fixture(scope='module')
def planned():
  return budget.plan(
    epsilon=8.0, delta=1e-3, num_patients=60, steps=20, num_parameters=1e6
  )


@pytest.fixture(scope='module')
def lines(planned):
  return budget.curves(planned, num_points=3)


def test_the_plan_keeps_the_budget_at_every_batch_and_suggests_by_its_rule(planned):
  table = planned['table']
  assert [row['batch_size'] for row in table] == [16, 32, 60]
  for row in table:
    q, sigma = row['sampling_probability'], row['noise_multiplier']
    assert q == row['batch_size'] / 60
    least = accounting.calibrate(8.0, 1e-3, q, 20)
    assert least * (1 - 1e-4) <= sigma <= 1.006 * least
    assert row['noise_to_signal'] == pytest.approx(1e3 * sigma / row['batch_size'])
  ratios = [row['noise_to_signal'] for row in table]
  assert ratios == sorted(ratios, reverse=True), 'a larger batch drowned more'
  near = [row for row in table if row['noise_to_signal'] <= 1.1 * min(ratios)]
  assert planned['suggested'] == near[0]


def test_batch_sizes_are_powers_of_two_up_to_the_cohort_and_ones_own():
  assert budget.batch_sizes(500, 100) == [16, 32, 64, 100, 128, 256, 500]
  assert budget.batch_sizes(10) == [10]
  assert budget.batch_sizes(2**20)[0] == 1024


def test_the_curves_pass_through_the_plan(planned, lines):
  sigma = planned['suggested']['noise_multiplier']
  spent = dict(lines['spent'][sigma])
  assert min(spent.values()) < 8 < max(spent.values())
  for points in lines['spent'].values():
    assert [e for _, e in points] == sorted(e for _, e in points)
  assert planned['suggested']['batch_size'] in lines['needed']
  for points in lines['needed'].values():
    assert [e for e, _ in points] == sorted((e for e, _ in points), reverse=True)
