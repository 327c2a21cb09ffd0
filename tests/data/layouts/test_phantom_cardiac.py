"""Laws of the phantom as a layout."""

import pytest

from ldm_jax.data import layouts
from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA, Attribute, Schema

LAYOUT = layouts.LAYOUTS['phantom_cardiac']
OPTIONS = {'name': 'p', 'num_patients': 2, 'shape': (12, 32, 32)}
OPTIONS['spacing_mm'] = (10.0, 5.5, 5.5)


def test_the_options_are_those_of_the_phantom():
  cohort = LAYOUT.read('', **OPTIONS)
  assert len(cohort) == 2 and len(cohort.records) == 4
  assert cohort.schema == CARDIAC_SCHEMA


def test_a_schema_selects_attributes():
  schema = CARDIAC_SCHEMA.select(['AGE', 'ESED'])
  cohort = LAYOUT.read('', schema=schema, **OPTIONS)
  assert cohort.schema.encode(cohort.records[0].attributes).shape == (2,)
  with pytest.raises(ValueError, match='height'):
    LAYOUT.read('', schema=Schema((Attribute('height', low=1, high=2),)), **OPTIONS)


def test_the_population_needs_no_cohort():
  (request,) = LAYOUT.population(1, 0, seed=5, **OPTIONS)
  assert set(request) == set(CARDIAC_SCHEMA.names)


def test_an_unknown_option_is_an_error_that_lists_the_known():
  for options in ({'num_patient': 3}, {}):
    with pytest.raises(ValueError, match=r'options are name, num_patients'):
      LAYOUT.read('', **options)
