"""Laws of the section `adapt.drift`."""

import pytest

from ldm_jax.config import checks, parsing
from ldm_jax.config.defaults import defaults


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'adapt.drift.value': '(0.1, 1e999)'}, 'adapt.drift.value'),
    ({'adapt.drift.variant': 'later'}, 'adapt.drift.variant'),
    ({'adapt.drift.grid': '(0.1, 0.2)'}, 'adapt.drift.grid'),
    ({'adapt.drift.search': 'loss'}, 'adapt.drift.search'),
    (
      {'adapt.drift.search': 'private_loss', 'adapt.privacy': None},
      'adapt.drift.search',
    ),
    (
      {'adapt.drift.search': 'private_mean', 'adapt.drift.epsilon': '10.0'},
      'adapt.drift.epsilon',
    ),
    ({'adapt.drift.search': 'private_mean', 'adapt.init': 'scratch'}, 'adapt.init'),
  ],
)
def test_a_drift_that_cannot_be_is_refused_by_its_key(flags, key):
  with pytest.raises(ValueError, match=rf'config\.{key} is'):
    checks.check(parsing.override(defaults(), flags))
