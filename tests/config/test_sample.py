"""Laws of the section `sample`."""

import pytest


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'sample.text': 'file.npy'}, 'sample.text'),
    ({'sample.steps': '1001'}, 'sample.steps'),
    ({'sample.num': '0'}, 'sample.num'),
  ],
)
def test_an_invalid_value_is_refused_by_its_key(flags, key, refused):
  refused(flags, key)
