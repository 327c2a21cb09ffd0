"""Laws of the private choice: its bound holds for choices that are computed exactly."""

import math

import numpy as np
import pytest

from ldm_jax.privacy import accounting, private_choice

ORDERS = np.array([1.5, 2.0, 4.0, 10.0, 40.0])


def renyi(p, q, order):
  return math.log(np.sum(p**order * q ** (1 - order))) / (order - 1)


def best_of(p, gamma):
  """Distribution of the best of K runs with scores 0, 1, ..., K geometric."""
  below = np.minimum(np.cumsum(p), 1.0)
  generated = gamma * below / (1 - (1 - gamma) * below)  # E[below^K]
  return np.diff(generated, prepend=0.0)


@pytest.mark.parametrize('mean_runs', [1.0, 3.0, 10.0, 100.0])
def test_the_bound_holds_for_every_choice_that_can_be_computed(mean_runs):
  rng = np.random.default_rng(0)
  tightest = math.inf
  for trial in range(60):
    p = rng.dirichlet(np.full(6, 0.7))
    q = p * np.exp(rng.uniform(-1, 1, 6) * (0.2 + trial % 4))
    # Rare high scores are where repeating runs tells most.
    p, q = np.sort(p)[::-1], (q / q.sum())
    one_run = np.array([renyi(p, q, order) for order in ORDERS])
    chosen = [best_of(each, 1 / mean_runs) for each in (p, q)]
    bound = private_choice.divergences(ORDERS, one_run, mean_runs)
    found = np.array([renyi(*chosen, order) for order in ORDERS])
    assert np.all(found <= bound + 1e-9)
    tightest = min(tightest, float(np.min(bound - found)))
  if mean_runs == 1:
    exact = private_choice.divergences(ORDERS, one_run, 1.0)
    assert np.all(exact >= one_run)


def test_a_choice_costs_more_than_a_run_and_far_less_than_all_runs():
  event = accounting.gaussian_event(4.0)
  one = accounting.epsilon([event], 1e-5)['rdp']
  ten = private_choice.epsilon([event], 1e-5, 10)
  all_ = accounting.epsilon([accounting.gaussian_event(4.0, 10)], 1e-5)['rdp']
  assert one < ten < 3.5 * one
  hundred = private_choice.epsilon([event], 1e-5, 100)
  assert (
    ten
    < hundred
    < accounting.epsilon([accounting.gaussian_event(4.0, 100)], 1e-5)['rdp']
  )
  assert all_ > one


def test_fewer_runs_than_one_are_refused():
  with pytest.raises(ValueError, match='--best_of'):
    private_choice.epsilon([accounting.gaussian_event(4.0)], 1e-5, 0.5)
