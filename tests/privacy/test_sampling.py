"""Laws of the draws: independent, repeatable, blind to other patients."""

import numpy as np
import pytest

from ldm_jax.privacy.sampling import (
  CyclicPoissonSampler,
  PoissonSampler,
  TruncatedPoissonSampler,
)


def test_a_draw_is_a_function_of_secret_and_step_alone():
  first, second = (PoissonSampler(200, 0.3, b'key') for _ in range(2))
  assert np.array_equal(first.draw(7), second.draw(7))
  assert not np.array_equal(first.draw(7), first.draw(8))
  assert not np.array_equal(first.draw(7), PoissonSampler(200, 0.3, b'yek').draw(7))


def test_draws_are_independent_bernoulli_per_patient_and_step():
  num, steps, q = 100, 2000, 0.2
  sampler = PoissonSampler(num, q, 12345)
  drawn = np.zeros((steps, num))
  for step in range(steps):
    indices = sampler.draw(step)
    assert np.all(np.diff(indices) > 0)
    drawn[step, indices] = 1
  sigma = np.sqrt(q * (1 - q))
  rates = (drawn.mean(axis=0) - q) / (sigma / np.sqrt(steps))
  assert np.abs(rates).max() < 5 and 0.7 < rates.std() < 1.3
  sizes = drawn.sum(axis=1)
  assert abs(sizes.mean() - num * q) < 5 * sigma * np.sqrt(num / steps)
  assert sizes.var() == pytest.approx(num * q * (1 - q), rel=0.15)
  standard = (drawn - drawn.mean(axis=0)) / drawn.std(axis=0)
  between_patients = standard.T @ standard / steps - np.eye(num)
  between_steps = (standard[1:] * standard[:-1]).mean(axis=0)
  assert np.abs(between_patients).max() < 6 / np.sqrt(steps)
  assert np.abs(between_steps).max() < 5 / np.sqrt(steps)


def test_adding_a_patient_changes_no_draw_of_the_others():
  small, large = PoissonSampler(50, 0.4, 1), PoissonSampler(51, 0.4, 1)
  for step in range(20):
    drawn = large.draw(step)
    assert np.array_equal(small.draw(step), drawn[drawn < 50])


def test_a_truncated_draw_is_a_uniform_part_of_the_poisson_draw():
  num, q, limit, steps = 20, 0.4, 8, 4000
  sampler = TruncatedPoissonSampler(num, q, 1, limit)
  plain, seen, cut = PoissonSampler(num, q, 1), np.zeros(num), 0
  for step in range(steps):
    drawn, whole = sampler.draw(step), plain.draw(step)
    assert drawn.size == min(whole.size, limit)
    assert np.isin(drawn, whole).all() and np.all(np.diff(drawn) > 0)
    if whole.size <= limit:
      assert np.array_equal(drawn, whole)
    else:
      cut += 1
      # a patient's chance to stay is the same whoever it is
      seen[whole] -= limit / whole.size
      seen[drawn] += 1
  assert cut > steps / 4
  assert np.abs(seen).max() < 5 * np.sqrt(cut / 4)
  assert np.array_equal(sampler.draw(3), TruncatedPoissonSampler(num, q, 1, 8).draw(3))


def test_groups_take_turns_and_a_patient_stays_in_its_group():
  num, q, groups, steps = 60, 0.5, 3, 1500
  sampler = CyclicPoissonSampler(num, q, 1, groups)
  mine, drawn = sampler.groups(), np.zeros((steps, num))
  for step in range(steps):
    drawn[step, sampler.draw(step)] = 1
  for group in range(groups):
    turn = drawn[group::groups]
    assert not turn[:, mine != group].any()
    rates = turn[:, mine == group].mean(axis=0)
    assert np.abs(rates - q).max() < 5 * np.sqrt(q * (1 - q) / len(turn))
  many = CyclicPoissonSampler(30_000, q, 2, groups).groups()
  assert np.abs(np.bincount(many) - 10_000).max() < 5 * np.sqrt(30_000 * 2 / 9)
  assert not np.array_equal(mine, CyclicPoissonSampler(num, q, 9, groups).groups())


def test_a_patient_more_changes_nobody_elses_group():
  small, large = (CyclicPoissonSampler(n, 0.4, 1, 4) for n in (50, 51))
  assert np.array_equal(small.groups(), large.groups()[:50])


def test_samplers_without_room_or_groups_are_errors():
  with pytest.raises(ValueError, match='max_batch_size is 0'):
    TruncatedPoissonSampler(5, 0.5, 0, 0)
  with pytest.raises(ValueError, match='num_groups is 0'):
    CyclicPoissonSampler(5, 0.5, 0, 0)


def test_probability_one_draws_everybody():
  assert np.array_equal(PoissonSampler(9, 1.0, 0).draw(3), np.arange(9))


def test_the_secret_is_not_shown():
  assert 'tell' not in repr(PoissonSampler(5, 0.5, b'do not tell'))


@pytest.mark.parametrize(('num', 'q'), [(0, 0.5), (5, 0.0), (5, 1.2), (5, np.nan)])
def test_an_impossible_sampler_is_an_error(num, q):
  with pytest.raises(ValueError, match=r'expected (at least one|a sampling)'):
    PoissonSampler(num, q, 0)
