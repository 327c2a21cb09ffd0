"""Laws of the section `evaluate`."""

import pytest


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'evaluate.only': "('beauty',)"}, 'evaluate.only'),
    ({'evaluate.segmenter.learning_rate': '0.0'}, 'evaluate.segmenter.learning_rate'),
  ],
)
def test_an_invalid_value_is_refused_by_its_key(flags, key, refused):
  refused(flags, key)
