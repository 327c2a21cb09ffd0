"""Laws of groups: by public limits, none below the least size, all patients in one."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.evaluation import groups

AGE = Attribute('age', low=20, high=100, unit='years')
SITE = Attribute('site', 'categorical', categories=('a', 'b', 'c'))
SCHEMA = Schema((AGE, SITE))


def section(least=4, bands=4, by=('age', 'site')):
  return ConfigDict({'least': least, 'bands': bands, 'by': by})


def codes(values, attribute=AGE):
  return np.array([attribute.encode(value) for value in values])


def names(attribute, values, **options):
  values = codes(values, attribute)
  found = groups.formed(attribute, values, range(len(values)), section(**options))
  for group in found:
    inside = groups.members(group, attribute, values, section(**options))
    assert inside.sum() == group.num_patients
  return {group.name: group.num_patients for group in found}


def test_bands_divide_the_range_of_the_schema_and_small_ones_join_a_neighbour():
  full = [30] * 4 + [50] * 5 + [70] * 6 + [90] * 7
  assert names(AGE, full) == {
    **{'20 to 40 years': 4, '40 to 60 years': 5},
    **{'60 to 80 years': 6, '80 to 100 years': 7},
  }
  assert names(AGE, full, least=5)['20 to 60 years'] == 9
  assert names(AGE, [30] * 8 + [90] * 4) == {'20 to 40 years': 8, '40 to 100 years': 4}
  assert names(AGE, [30] * 8 + [90] * 3) == {}, 'one group tells nothing'
  assert names(AGE, [20, 100] * 4) == {'20 to 80 years': 4, '80 to 100 years': 4}


def test_small_categories_join_the_next_smallest_and_unknown_ones_are_a_group():
  sites = ['a'] * 9 + ['b'] * 3 + ['c'] * 5
  assert names(SITE, sites) == {'a': 9, 'b, c': 8}
  assert names(SITE, [*sites, *[None] * 4]) == {'a': 9, 'c': 5, 'b, unknown': 7}


def test_patients_are_counted_once_however_many_scans_they_have():
  values = codes(['a', 'a', 'a', 'b', 'b'], SITE)
  found = groups.formed(SITE, values, list('xxxyz'), section(least=1))
  assert {group.name: group.num_patients for group in found} == {
    **{'a, c': 1, 'b': 2},
  }


def test_a_group_whose_samples_are_off_has_the_larger_distance():
  rng = np.random.default_rng(0)
  site = np.repeat([0.0, 1.0], 60)
  attributes = np.stack([np.zeros(120), site], 1)
  real = rng.normal(size=(120, 3))
  synthetic = rng.normal(size=(120, 3)) + 2 * site[:, None]
  found = groups.distances(
    real, synthetic, (attributes, attributes), range(120), SCHEMA, section(10), 20
  )
  assert set(found) == {'site'}, 'all patients have one age'
  near, far = (found['site'][name]['kid'] for name in ('a, c', 'b'))
  assert far['value'] > near['value'] + 1 and far['low'] > near['high']
  only_a = attributes[site == 0], attributes[site == 0]
  half = groups.distances(
    real, synthetic[:60], (attributes, only_a[1]), range(120), SCHEMA, section(10), 20
  )
  assert half['site']['b'] == {'kid': None, 'frechet': None}


@pytest.mark.parametrize('bands', [1, 3])
def test_every_value_of_the_range_is_in_one_band(bands):
  cells = groups.cells_of(AGE, codes([20, 47, 73, 100, None]), bands)
  assert cells.max() == bands and set(cells[:4]) == set(range(bands))
