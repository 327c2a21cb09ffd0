"""Laws of summaries of attributes: values, groups, patients without any."""

import pytest

from ldm_jax.data.cohorts import matching
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.inspection import attribute_summary

SCHEMA = Schema(
  (
    Attribute('age', low=20, high=90, unit='years'),
    Attribute('sex', 'categorical', categories=('F', 'M')),
  )
)


def cohort(*rows, matched=None):
  records = [
    Record(f'{n}', f'p{n}', FileSource('x'), row, visit=f'v{n % 2}')
    for n, row in enumerate(rows)
  ]
  return Cohort('c', SCHEMA, tuple(records), matching=matched)


def test_values_are_summarised_with_what_is_missing_or_out_of_range():
  found = cohort({'age': 30}, {'age': 61.4}, {'age': 120}, {})
  summary = attribute_summary.of_attribute(found, SCHEMA['age'])
  assert (summary['missing'], summary['out_of_range']) == (1, 1)
  assert summary['summary'] == 'about 30 .. 120 years, median 61 (declared 20 .. 90)'
  empty = attribute_summary.of_attribute(cohort({}), SCHEMA['age'])
  assert empty == {'missing': 1, 'out_of_range': 0, 'summary': 'no value'}


def test_patients_are_counted_by_category_and_by_visit():
  found = attribute_summary.groups(cohort({'sex': 'M'}, {'sex': 'X'}, {'sex': 'M'}, {}))
  assert found['sex'] == {'F': 0, 'M': 2, 'X': 1}
  assert found['visit'] == {'v0': 2, 'v1': 2} and 'phase' not in found


def test_patients_without_any_value_are_told_when_they_are_many():
  assert not attribute_summary.without_values(cohort(*[{'age': 30}] * 20, {}))
  (message,) = attribute_summary.without_values(cohort({'age': 30}, {}, {'age': ''}))
  assert message.startswith(
    '2 of 3 patients have no value of any attribute (such as p1'
  )


@pytest.mark.parametrize('scans', [('a', 'b'), ('a', 'c')])
def test_ids_without_a_partner_are_told_with_the_rest(scans):
  matched = matching.compare(('a', 'b'), scans, 'people.csv')
  told = attribute_summary.patients_without_values(cohort({'age': 1}, matched=matched))
  assert bool(told) == (scans == ('a', 'c'))
