"""Laws of the intervals."""

import numpy as np
import pytest

from ldm_jax.evaluation import intervals


def test_half_samples_keep_groups_whole():
  members = intervals.grouped_indices(6, ['a', 'b', 'a', 'c', 'c', 'b'])
  drawn = intervals.half_sample(np.random.default_rng(0), members)
  assert len(drawn) == 4
  labels = np.array(['a', 'b', 'a', 'c', 'c', 'b'])[drawn]
  assert all((labels == name).sum() == 2 for name in set(labels))


def test_half_sampling_finds_the_spread_of_a_mean():
  rng = np.random.default_rng(1)
  x = rng.normal(size=400)
  members = intervals.grouped_indices(400)
  replicates = [x[intervals.half_sample(rng, members)].mean() for _ in range(800)]
  low, high = intervals.half_sampling_interval(x.mean(), replicates)
  assert high - low == pytest.approx(2 * 1.96 / np.sqrt(400), rel=0.15)


def test_wilson_interval_stays_inside_the_unit_interval():
  assert intervals.proportion_interval(0, 20) == pytest.approx((0, 0.1611), abs=1e-3)
  assert intervals.proportion_interval(20, 20)[1] == 1
  assert intervals.proportion_interval(0, 0) == (0, 1)


def test_fisher_interval_of_few_pairs_knows_nothing():
  assert intervals.correlation_interval(0.99, 3) == (-1, 1)
  assert intervals.correlation_interval(1.0, 10)[0] > 0.99


def test_auc_interval_keeps_a_width_at_full_separation():
  low, high = intervals.auc_interval(1.0, 10, 10)
  assert 0.6 < low < 0.95
  assert high == 1
  low, high = intervals.auc_interval(0.5, 100, 100)
  assert 0.5 - low == pytest.approx(high - 0.5)


def test_groups_must_name_every_example():
  with pytest.raises(ValueError, match='one group name'):
    intervals.grouped_indices(3, ['a', 'b'])


def test_one_value_has_no_bootstrap_interval():
  assert intervals.bootstrap_mean_interval([1.0]) == (None, None)
