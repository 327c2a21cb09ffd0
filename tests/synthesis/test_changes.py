"""Laws of requested changes: what they mean, and what is refused."""

import numpy as np
import pytest

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.synthesis.changes import in_turn, parse_changes

SCHEMA = Schema(
  (
    Attribute('AGE', low=20, high=100, unit='years'),
    Attribute('SEX', 'categorical', categories=('female', 'male')),
    Attribute('ESED', 'categorical', categories=(0, 1)),
    Attribute('ANGLE', low=-90, high=90, unit='deg'),
    Attribute('DX', 'categorical', categories=('CN', 'MCI', 'AD')),
  )
)
SOURCE = SCHEMA.encode({'AGE': 60, 'SEX': 'female', 'ESED': 1})


@pytest.mark.parametrize(
  'changes, name, expected',
  [
    ({'AGE': '+10'}, 'AGE', 70),
    ({'AGE': '-5.5'}, 'AGE', 54.5),
    ({'AGE': '42'}, 'AGE', 42),
    ({'AGE': 42}, 'AGE', 42),
    ({'AGE': '+40'}, 'AGE', 100),
    ({'AGE': None}, 'AGE', None),
    ({'ANGLE': -30}, 'ANGLE', -30),
    ({'ANGLE': '=-30'}, 'ANGLE', -30),
    ({'SEX': 'male'}, 'SEX', 'male'),
    ({'ESED': '0'}, 'ESED', 0),
    ({'ESED': 0}, 'ESED', 0),
    ({'SEX': 'Male'}, 'SEX', 'male'),
    ({'DX': 'healthy'}, 'DX', 'CN'),
  ],
  ids=str,
)
def test_changes_mean_what_they_say(changes, name, expected):
  value = SCHEMA.decode(parse_changes(changes, SCHEMA, SOURCE))[name]
  if isinstance(expected, float | int):
    expected = pytest.approx(expected, abs=1e-4)
  assert value == expected


def test_patients_take_the_alternatives_of_a_request_in_turn():
  changes = {'age': '+5|+10', 'size': 3.0, 'diagnosis': 'CN|MCI|AD'}
  found = [in_turn(changes, number) for number in range(6)]
  assert [each['age'] for each in found] == ['+5', '+10'] * 3
  assert [each['size'] for each in found] == [3.0] * 6
  # All pairs come up.
  assert len({(each['age'], each['diagnosis']) for each in found}) == 6


def test_what_is_not_named_and_what_changes_by_zero_stay_bit_for_bit():
  unchanged = parse_changes({'AGE': '+0'}, SCHEMA, SOURCE)
  np.testing.assert_array_equal(unchanged, SOURCE)
  older = parse_changes({'AGE': '+1'}, SCHEMA, SOURCE)
  np.testing.assert_array_equal(older[1:], SOURCE[1:])


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'AGE': '+50'}, r'AGE.*110.*\[20, 100\] years'),
    ({'AGE': 10}, r'\[20, 100\]'),
    ({'AGE': '+nan'}, 'AGE'),
    ({'AGE': '+ten'}, r'\+10'),
    ({'AGE': 'old'}, 'AGE'),
    ({'WEIGHT': 3}, r"WEIGHT.*'AGE', 'SEX'"),
    ({'SEX': '+1'}, 'female'),
    ({'SEX': 'other'}, 'male'),
    ({'SEX': 'healthy'}, 'male'),
    ({'ANGLE': '+5'}, 'no value'),
  ],
  ids=str,
)
def test_an_impossible_change_is_refused_with_what_is_possible(changes, words):
  with pytest.raises(ValueError, match=words):
    parse_changes(changes, SCHEMA, SOURCE)
