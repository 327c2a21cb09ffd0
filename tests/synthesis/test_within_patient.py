"""Laws of several volumes of a patient: what is named changes, nothing else does."""

import numpy as np
import pytest

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.synthesis import within_patient

SCHEMA = Schema(
  (
    Attribute('age', low=20, high=100, unit='years'),
    Attribute('volume', low=-4, high=4),
    Attribute('phase', 'categorical', categories=('ES', 'ED')),
  )
)
PEOPLE = np.array([[-0.5, 0.2, 0], [0.75, -0.9, 1], [0.1, np.nan, 1]], np.float32)


def expanded(people=PEOPLE, as_given=False, **values):
  values = {name: tuple(text.split('|')) for name, text in values.items()}
  return within_patient.expanded(values, SCHEMA, people, 0, as_given)


def test_without_a_name_every_volume_is_a_patient_of_its_own():
  np.testing.assert_array_equal(expanded(), PEOPLE)
  assert within_patient.patients({}, 3).tolist() == [0, 1, 2]
  vectors, patients = within_patient.drawn_from({}, SCHEMA, PEOPLE, 0)
  assert patients is None and len(vectors) == 3


def test_phases_of_a_patient_differ_in_nothing_else():
  vectors = expanded(phase='ED|ES')
  assert vectors[:, 2].tolist() == [1, 0] * 3
  np.testing.assert_array_equal(vectors[:, :2], PEOPLE[:, :2].repeat(2, 0))
  assert within_patient.patients({'phase': ('ED', 'ES')}, 6).tolist() == [
    *(0, 0, 1, 1, 2, 2)
  ]


def test_visits_are_as_far_apart_as_they_are_named_within_the_range():
  ages = expanded(age='+0|+8|+20')[:, 0].reshape(3, 3)
  assert np.allclose(ages - ages[:, :1], [0, 0.2, 0.5], atol=1e-6)
  assert np.allclose(ages[:, 0], [-0.5, 0.5, 0.1]), 'only the second one was too old'
  assert np.abs(ages).max() <= 1 + 1e-6
  both = expanded(age='60|80', volume='=-1|1')
  assert np.allclose(both[:, :2], [[0, -0.25], [0.5, 0.25]] * 3)


def test_what_a_change_starts_from_and_is_unknown_is_drawn():
  volumes = expanded(volume='+0|-2')[:, 1].reshape(3, 2)
  assert np.allclose(volumes[:, 0] - volumes[:, 1], 0.5, atol=1e-6)
  assert np.isfinite(volumes).all() and np.abs(volumes).max() <= 1 + 1e-6
  assert volumes[0, 0] == np.float32(0.2) and volumes[1, 0] == np.float32(-0.5)


def test_no_value_of_a_table_is_moved_or_made_up():
  rows = PEOPLE[:1]
  np.testing.assert_array_equal(
    expanded(rows, as_given=True, age='+0|+8'), expanded(rows, age='+0|+8')
  )
  for changes in ({'age': '+0|+20'}, {'volume': '+0|+0.1'}):
    with pytest.raises(ValueError, match=r'1 of the 3 rows.*Correct the table'):
      expanded(as_given=True, **changes)


@pytest.mark.parametrize(
  ('values', 'says'),
  [
    ({'Age': '60|80'}, "'Age'.*Did you mean age"),
    ({'phase': 'ED|early'}, "phase is 'ED|early'.*known categories"),
    ({'phase': '+0|+1'}, 'known categories'),
    ({'age': '+0|80'}, r'either changes, such as \+0|\+2, or values'),
    ({'age': '60|200'}, r'does not fit into the range \[20, 100\] years'),
    ({'age': '+0|+90'}, r'does not fit into the range'),
    ({'age': '60|n/a'}, 'a value for every volume'),
    ({'age': '60|old'}, 'expected a finite number'),
  ],
)
def test_what_a_volume_cannot_be_asked_for_is_refused_by_its_key(values, says):
  with pytest.raises(ValueError, match=says):
    expanded(**values)


def test_what_requests_tell_of_their_rows_is_found_again():
  values = {'age': ('+1', '+3'), 'phase': ('ED', 'ES')}
  people = PEOPLE[:2]
  vectors = within_patient.expanded(values, SCHEMA, people, 0)
  same, undone, rest = within_patient.told(values, SCHEMA, vectors)
  assert same is vectors
  assert np.allclose(undone[:, :2], people[:, :2].repeat(2, 0))
  assert np.isnan(undone[:, 2]).all() and np.isnan(rest[:, [0, 2]]).all()
  assert np.allclose(rest[:, 1], people[:, 1].repeat(2))
