"""Laws of attribute schemas."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.data.cohorts.attributes import (
  CARDIAC_SCHEMA,
  Attribute,
  Schema,
  labelled,
)

SCHEMA = Schema(
  (
    Attribute('age', low=20, high=80, unit='years', column='Age at visit'),
    Attribute('sex', 'categorical', categories=('F', 'M')),
    Attribute('phase', 'categorical', categories=(0, 1)),
  )
)


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e3, 1e3), st.sampled_from('FM'), st.sampled_from([0, 1]))
def test_decode_inverts_encode_even_out_of_range(age, sex, phase):
  decoded = SCHEMA.decode(SCHEMA.encode({'age': age, 'sex': sex, 'phase': phase}))
  assert decoded['age'] == pytest.approx(age, abs=1e-2)
  assert (decoded['sex'], decoded['phase']) == (sex, phase)


def test_the_range_ends_encode_to_minus_one_and_one_and_beyond_is_not_clipped():
  codes = [SCHEMA.encode({'age': age})[0] for age in (20, 80, 110)]
  np.testing.assert_allclose(codes, [-1, 1, 2])


@pytest.mark.parametrize('missing', [None, '', ' ', 'n/a', 'NaN', math.nan])
def test_a_missing_value_encodes_to_nan_and_decodes_to_none(missing):
  code = SCHEMA.encode({'age': missing, 'sex': missing})
  assert np.isnan(code).all() and code.dtype == np.float32
  assert SCHEMA.decode(code) == {'age': None, 'sex': None, 'phase': None}


@pytest.mark.parametrize('text', ['1', '1.0', 1, 1.0])
def test_a_numeric_category_is_known_by_its_number(text):
  assert SCHEMA.encode({'phase': text})[2] == 1


@pytest.mark.parametrize(
  ('values', 'words'),
  [
    ({'age': 'old'}, ['age', 'old', 'number']),
    ({'age': 'inf'}, ['age', 'inf']),
    ({'sex': 'X'}, ['sex', 'X', "['F', 'M']"]),
  ],
)
def test_an_impossible_value_is_an_error_that_names_it(values, words):
  with pytest.raises(ValueError) as error:
    SCHEMA.encode(values)
  assert all(word in str(error.value) for word in words)


def test_a_schema_survives_its_config():
  for schema in (SCHEMA, CARDIAC_SCHEMA):
    assert Schema.from_config(schema.to_config()) == schema


def test_a_continuous_attribute_needs_a_stated_range():
  with pytest.raises(ValueError, match=r'data\.schema.*private'):
    Schema.from_config([{'name': 'age'}])


@pytest.mark.parametrize(
  'entries',
  [
    [{'name': 'a', 'low': 1, 'high': 1}],
    [{'name': 'a', 'kind': 'ordinal'}],
    [{'name': 'a', 'kind': 'categorical'}],
    [{'name': 'a', 'categories': ('x', 'x')}],
    [{'name': 'a', 'low': 0, 'high': 1, 'hihg': 2}],
    [{'low': 0, 'high': 1}],
    [{'name': 'a', 'low': 0, 'high': 1}] * 2,
  ],
)
def test_a_malformed_schema_is_an_error(entries):
  with pytest.raises(ValueError, match='schema'):
    Schema.from_config(entries)


def test_out_of_range_names_attribute_value_and_limits():
  (message,) = SCHEMA.out_of_range({'age': 93, 'sex': 'F'})
  assert all(word in message for word in ('age', '93', '20', '80', 'years'))


def test_the_cardiac_schema_has_the_fourteen_attributes_of_the_paper():
  assert len(CARDIAC_SCHEMA) == 14
  assert CARDIAC_SCHEMA.names[0] == 'LVEDV' and CARDIAC_SCHEMA.names[-1] == 'DEPTH'
  row = [
    142.97,
    51.55,
    63.93,
    132.26,
    48.83,
    63.07,
    10.38,
    6.75,
    66,
    1,
    27.69,
    1,
    0,
    11,
  ]
  values = dict(zip(CARDIAC_SCHEMA.names, row, strict=True))
  assert CARDIAC_SCHEMA.out_of_range(values) == []
  assert sum(n > 0 for n in CARDIAC_SCHEMA.num_categories) == 2


def test_select_keeps_the_requested_order():
  assert CARDIAC_SCHEMA.select(['AGE', 'LVEF']).names == ('AGE', 'LVEF')


def test_labels_are_understood_beside_the_codes_that_they_name():
  schema = labelled(CARDIAC_SCHEMA)
  sex = schema['SEX']
  assert [sex.encode(each) for each in ('F', 'male', 1, '0')] == [0, 1, 1, 0]
  assert schema['ESED'].encode('End-Systole') == 0
  assert Schema.from_config(schema.to_config()) == schema
  assert 'labels' not in str(CARDIAC_SCHEMA.to_config())
  other = Schema((Attribute('SEX', 'categorical', categories=(0, 1)),))
  assert labelled(other) == other
  with pytest.raises(ValueError, match='expected one each'):
    Attribute('SEX', 'categorical', categories=(0, 1), labels=('f',))
