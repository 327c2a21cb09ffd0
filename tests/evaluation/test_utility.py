"""Laws of utility: the same steps for every arm, paired figures, honest intervals."""

import numpy as np
import pytest

from ldm_jax.evaluation import utility
from ldm_jax.models.critics.segmenter import Segmenter
from ldm_jax.training.mesh import on_own_devices
from tests import micro

SHAPE = (12, 1, 8, 8, 1)
RNG = np.random.default_rng(0)


def bright(num, blind=False):
  """Squares that are bright where their label map says so, or say nothing."""
  classes = np.zeros((num, 1, 8, 8), np.uint8)
  classes[:, :, 2:6, 2:6] = 1
  x = np.where(classes[..., None], 0.8, 0.2).astype(np.float32)
  x = RNG.permuted(x, axis=3) if blind else x
  attributes = np.linspace(-1, 1, num, dtype=np.float32)[:, None]
  return utility.of_arrays(x, classes, attributes)


def test_a_batch_has_as_many_scans_of_each_source_and_repeats_with_its_seed():
  one, other = bright(5), bright(7)
  taken = []
  spied = [
    utility.Pairs(s.num, lambda rows, s=s: taken.append(rows) or s.take(rows), [])
    for s in (one, other)
  ]
  x, classes = utility.batch_of(spied, 5, seed=1, number=3)
  assert x.shape == (5, 1, 8, 8, 1) and classes.shape == (5, 1, 8, 8)
  assert [len(rows) for rows in taken] == [3, 2]
  again, _ = utility.batch_of([one, other], 5, seed=1, number=3)
  assert np.array_equal(x, again)
  assert not np.array_equal(x, utility.batch_of([one, other], 5, 2, 3)[0])
  assert len(utility.batch_of([one, other], 1, 0, 0)[0]) == 2, 'each source counts'


def test_scans_that_show_their_labels_train_a_better_segmenter_than_others():
  config = micro.get_config()
  section = config.evaluate
  section.segmenter.learning_rate, section.segmenter.optimizer = 1e-2, 'adam'
  section.utility.steps, section.utility.seeds = 40, 2
  module = Segmenter(2, (4,), ((1, 3, 3),), norm_groups=2)
  mesh = on_own_devices(config.mesh)
  arms = {'real': (bright(6),), 'synthetic': (bright(6, blind=True),)}
  found = utility.scores(
    arms,
    bright(5),
    module,
    section,
    (1.0, 1.0, 1.0),
    mesh=mesh,
    columns={'age': (0, 40.0)},
  )
  assert found['real'].dice.shape == (2, 5, 1)
  assert found['real'].errors['age'].shape == (2, 5)
  figures = utility.figures(found, list('abcde'), ['none', 'square'], 20)
  real, synthetic = (figures[arm]['dice']['value'] for arm in arms)
  assert real > 0.9 and real > synthetic + 0.1
  share = figures['share_of_real']['synthetic']['dice']
  assert share['value'] == pytest.approx(synthetic / real) and share['high'] < 1
  difference = figures['minus_real']['synthetic']['dice']
  assert difference['value'] == pytest.approx(synthetic - real)
  assert difference['high'] < 0
  # All scans look alike, so the regression can only tell the mean.
  assert figures['real']['mae']['age']['value'] == pytest.approx(24, abs=4)


def test_differences_are_paired_so_what_all_arms_find_hard_does_not_widen_them():
  hard = RNG.normal(0, 0.2, (1, 40))
  one = 0.6 + hard + RNG.normal(0, 0.01, (3, 40))
  other = 0.7 + hard + RNG.normal(0, 0.01, (3, 40))
  patients = np.repeat(np.arange(20), 2)
  alone = utility.figure(one, patients)
  paired = utility.figure(one - other, patients)
  assert paired['high'] - paired['low'] < 0.2 * (alone['high'] - alone['low'])
  assert paired['low'] < -0.1 < paired['high'] and paired['n'] == 20
  share = utility.figure(one, patients, other)
  assert share['value'] == pytest.approx(one.mean() / other.mean())


def test_the_interval_covers_another_training_as_well_as_other_patients():
  same = np.full((1, 30), 0.5)
  seeds = np.array([[0.3], [0.5], [0.7]]) + np.zeros((3, 30))
  assert utility.figure(same, range(30))['low'] == pytest.approx(0.5)
  found = utility.figure(seeds, range(30))
  assert found['low'] < 0.4 and found['high'] > 0.6 and found['seeds'] == 3
  missing = np.where(np.arange(30) < 29, np.nan, seeds)
  assert utility.figure(missing, range(30)) == {
    **{'value': pytest.approx(0.5), 'low': None, 'high': None, 'n': 1, 'seeds': 3},
  }
  assert utility.figure(np.full((2, 3), np.nan), range(3))['value'] is None


def test_a_ridge_regression_finds_a_linear_attribute_and_leaves_out_unknown_ones():
  features = RNG.normal(size=(200, 4))
  values = features @ [1.0, -2.0, 0.0, 0.5] + 3
  values[::7] = np.nan
  found = utility.ridge(features, values, features)
  np.testing.assert_allclose(
    found[values == values], values[values == values], atol=0.1
  )
  assert np.isnan(utility.ridge(features[:3], np.full(3, np.nan), features)).all()
