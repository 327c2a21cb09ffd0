"""Laws of requests: whose attribute values the samples are asked for."""

import types

import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.data import cohorts_of_config
from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA, Attribute, Schema
from ldm_jax.data.layouts.acdc import ACDC_SCHEMA
from ldm_jax.synthesis import requests

SCHEMA = Schema(
  (
    Attribute('age', low=20, high=90),
    Attribute('volume', low=0, high=4),
    Attribute('sex', 'categorical', categories=('F', 'M')),
  )
)


def configured(origin, num=400, **data):
  config = defaults()
  config.sample.num, config.sample.requests = num, str(origin)
  for name, layout in data.items():
    config.data[name].layout = layout
  return config


def split(*rows):
  """Stands for a prepared cohort with these attributes."""
  vectors = np.stack([SCHEMA.encode(row) for row in rows])
  return types.SimpleNamespace(attributes=vectors, schema=SCHEMA, ids=list(rows))


def written(tmp_path, *rows):
  path = tmp_path / 'asked.csv'
  path.write_text('\n'.join(['age,volume,sex', *rows]) + '\n')
  return path


def test_by_default_no_real_patient_is_needed_and_all_of_every_range_is_asked_for():
  config = configured(defaults().sample.requests)
  codes = requests.draw(config, SCHEMA, None)
  assert codes.shape == (400, 3) and codes.dtype == np.float32
  for column in (0, 1):
    low, high = codes[:, column].min(), codes[:, column].max()
    assert -1 <= low < -0.97 and 0.97 < high <= 1
    assert abs(codes[:, column].mean()) < 4 / np.sqrt(3 * 400)
  assert set(codes[:, 2]) == {0, 1}
  assert abs(codes[:, 2].mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
  assert abs(np.corrcoef(codes.T)[0, 1]) < 0.2
  np.testing.assert_array_equal(codes, requests.draw(config, SCHEMA, None))
  config.seed = 1
  assert (codes != requests.draw(config, SCHEMA, None)).any()


def test_uniform_requests_do_not_look_at_any_cohort():
  people = split({'age': 33.25, 'volume': 1.5, 'sex': 'F'})
  config = configured('uniform')
  np.testing.assert_array_equal(
    requests.draw(config, SCHEMA, people), requests.draw(config, SCHEMA, None)
  )


@pytest.mark.parametrize('layout', cohorts_of_config.HEARTS)
def test_requests_of_real_hearts_are_possible_hearts(layout):
  config = configured('population', 60, public=layout)
  rows = [
    CARDIAC_SCHEMA.decode(vector)
    for vector in requests.draw(config, CARDIAC_SCHEMA, None)
  ]
  assert all(
    row['LVESV'] < row['LVEDV'] and row['RVESV'] < row['RVEDV'] for row in rows
  )
  assert len({row['LVEDV'] for row in rows}) == 60


def test_what_a_population_does_not_know_is_drawn_uniformly():
  config = configured('population', 200, public='acdc')
  codes = requests.draw(config, ACDC_SCHEMA, None)
  assert np.isfinite(codes).all()
  column = codes[:, ACDC_SCHEMA.names.index('PATHOLOGY')]
  assert set(column) == set(range(len(ACDC_SCHEMA['PATHOLOGY'].categories)))


def test_a_layout_without_a_population_says_what_else_there_is():
  with pytest.raises(ValueError, match=r"'ixi' documents none.*uniform"):
    requests.draw(configured('population', public='ixi'), SCHEMA, None)


def test_rows_of_public_patients_are_drawn_only_when_asked_for_and_said():
  people = split(*({'age': 30 + i / 7, 'volume': 1, 'sex': 'F'} for i in range(5)))
  config = configured('public', 7)
  codes = requests.draw(config, SCHEMA, people)
  assert {tuple(row) for row in codes} == {tuple(row) for row in people.attributes}
  assert 'real public patients' in requests.origin(config)
  assert 'nobody' in requests.origin(configured('uniform'))
  assert 'nobody' in requests.origin(configured('population'))
  assert 'noise' in requests.origin(configured('private_prior'))
  assert requests.origin(configured('/x/mine.csv').to_dict()).startswith(
    'table mine.csv'
  )


def test_a_table_of_private_patients_is_refused_under_privacy(tmp_path, capsys):
  table = written(tmp_path, '55.31,2.077,F', '55.32,2.078,F')
  config = configured(table, 2)
  codes = requests.draw(config, SCHEMA, None)
  own = split({'age': 55.31, 'volume': 2.077, 'sex': 'F'})
  for cohort in ('private', 'test'):
    with pytest.raises(ValueError, match=f'1 of the 2 requests .* data.{cohort}'):
      requests.check_not_copied(config, codes, {cohort: own})
  requests.check_not_copied(config, codes, {'public': own})
  config.adapt.privacy = None
  requests.check_not_copied(config, codes, {'private': own})
  assert 'WARNING: 1 of the 2' in capsys.readouterr().out


def test_a_table_that_agrees_with_a_patient_by_chance_alone_is_not_refused(tmp_path):
  config = configured(written(tmp_path, '55,,F', '55.31,1.1,M'), 2)
  codes = requests.draw(config, SCHEMA, None)
  own = split({'age': 55, 'volume': 2.077, 'sex': 'F'}, {'age': 55.31, 'sex': 'M'})
  requests.check_not_copied(config, codes, {'private': own, 'test': own})


def test_volumes_of_a_patient_have_the_requests_of_patients_and_look_at_no_one_else():
  config = configured('uniform', 6)
  config.sample.within_patient.sex = 'M|F'
  codes = requests.draw(config, SCHEMA, None)
  people = requests.draw(configured('uniform', 3), SCHEMA, None)
  np.testing.assert_array_equal(codes[:, :2], people[:, :2].repeat(2, 0))
  assert codes[:, 2].tolist() == [1, 0] * 3
  assert requests.origin(config).endswith('nobody; within a patient sex = M|F')
  config.sample.num = 5  # as the scans that utility draws
  np.testing.assert_array_equal(requests.draw(config, SCHEMA, None), codes[:5])


@pytest.mark.parametrize('changes', ['+0|+2', '+1|+3', '40|60'])
def test_a_table_of_private_patients_is_refused_though_their_age_was_changed(
  tmp_path, changes
):
  table = written(tmp_path, '55.31,2.077,F', '61,1.1,M')
  config = configured(table, 4)
  config.sample.within_patient.age = changes
  codes = requests.draw(config, SCHEMA, None)
  own = split({'age': 55.31, 'volume': 2.077, 'sex': 'F'}, {'age': 61, 'volume': 1.1})
  other = split({'age': 55.3, 'volume': 2.076, 'sex': 'F'})
  requests.check_not_copied(config, codes, {'private': other})
  if changes == '40|60':  # one number that is left of a row agrees by chance
    requests.check_not_copied(config, codes, {'private': own})
  else:
    with pytest.raises(ValueError, match='2 of the 4 requests'):
      requests.check_not_copied(config, codes, {'private': own})
