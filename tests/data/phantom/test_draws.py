"""Laws of the draws that all phantoms share."""

import pytest

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.phantom import draws

SCHEMA = Schema((Attribute('age', low=20, high=90, unit='years'),))
EFFECTS = Schema((Attribute('size', low=0, high=5, unit='ml'),))


def test_a_stream_is_a_function_of_all_its_parts():
  first, again, other, typed = (
    draws.generator(*parts).random()
    for parts in ((1, 'a'), (1, 'a'), (2, 'a'), ('1', 'a'))
  )
  assert first == again and len({first, other, typed}) == 3


@pytest.mark.parametrize(
  ('attributes', 'words'),
  [
    ({}, "expected the attributes .'age'. and optionally .'size'., got"),
    ({'age': 30, 'height': 1}, 'height'),
    ({'age': 91}, '20 to 90 years, got 91'),
    ({'age': 'old'}, "got 'old'"),
    ({'age': 30, 'size': 0}, 'above 0 to 5 ml'),
  ],
)
def test_attributes_that_cannot_be_rendered_are_refused_by_name(attributes, words):
  with pytest.raises(ValueError, match=f'brain phantom: .*{words}'):
    draws.check_attributes('brain', attributes, SCHEMA, EFFECTS)


def test_a_value_that_was_encoded_at_the_end_of_its_range_is_accepted():
  (code,) = SCHEMA.encode({'age': 90})
  draws.check_attributes('brain', SCHEMA.decode([code]), SCHEMA)
  draws.check_attributes('brain', {'age': 90.005, 'size': 5}, SCHEMA, EFFECTS)


def test_counts_sites_and_seeds_are_checked():
  draws.check_counts('chest', 'c', num_patients=1)
  draws.check_draw(0, 0, 'public', ('public',))
  with pytest.raises(ValueError, match="chest phantom 'c': expected num_patients"):
    draws.check_counts('chest', 'c', num_patients=0)
  with pytest.raises(ValueError, match='moon'):
    draws.check_draw(0, 0, 'moon', ('public',))
  with pytest.raises(ValueError, match='index=-1'):
    draws.check_draw(0, -1, 'public', ('public',))
