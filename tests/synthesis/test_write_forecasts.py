"""Laws of predicted visits: one pair a patient, and what is stored of it."""

import types

import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.synthesis import write_forecasts
from ldm_jax.workfolder import WorkFolder

SCHEMA = Schema((Attribute('age', low=20, high=100),))
YEARS = (0.0, 1.0, 5.0, 0.0, 2.0, 0.0)


@pytest.fixture
def split(world):
  """Patient a with three visits, b with two, c with one."""
  x = np.random.default_rng(0).random((6, 2, 8, 8, 1)).astype(np.float32)
  return types.SimpleNamespace(
    name='test',
    years=YEARS,
    visits=list('123121'),
    phases=[''] * 6,
    patients=list('aaabbc'),
    patient_entries=[[0, 1, 2], [3, 4], [5]],
    attributes=np.stack([SCHEMA.encode({'age': 50 + years}) for years in YEARS]),
    volumes=lambda chosen: x[chosen],
  )


def test_each_patient_has_one_pair_the_longest_within_the_limits(split):
  section = defaults().adapt.pairs
  found = write_forecasts.longest(split, section)
  assert found.earlier.tolist() == [0, 3] and found.later.tolist() == [2, 4]
  section.max_years = 3.0
  found = write_forecasts.longest(split, section)
  assert found.years.tolist() == [1.0, 2.0]
  section.min_years = 2.0
  assert write_forecasts.longest(split, section).earlier.tolist() == [3]


def test_the_prediction_is_stored_between_the_two_real_scans(
  split, system_of, tmp_path
):
  config, work = defaults(), WorkFolder(tmp_path)
  section = config.counterfactual
  section.editor, section.steps, section.forecasts = 'sdedit', 2, 1
  system = system_of(SCHEMA, w=np.full((1, 3), 2.0, np.float32))
  assert write_forecasts.write_forecasts(config, work, system, split) == 1
  stored = work.read_arrays(write_forecasts.FORECASTS)
  np.testing.assert_array_equal(stored['earlier'], split.volumes([0]))
  np.testing.assert_array_equal(stored['later'], split.volumes([2]))
  assert stored['predicted'].shape == stored['later'].shape
  assert np.abs(stored['predicted'] - stored['earlier']).max() > 1e-3
  assert stored['years'].tolist() == [5.0] and stored['patients'].tolist() == ['a']


def test_without_repeated_visits_nothing_is_written(split, tmp_path):
  config, work = defaults(), WorkFolder(tmp_path)
  split.patient_entries = [[number] for number in range(6)]
  for cohort in (split, None):
    assert write_forecasts.write_forecasts(config, work, None, cohort) == 0
  assert work.read_arrays(write_forecasts.FORECASTS) is None
