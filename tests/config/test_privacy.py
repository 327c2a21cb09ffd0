"""Laws of the sections `adapt.privacy`, `ledger` and `audit`."""

import pytest

from ldm_jax.config import checks, parsing
from ldm_jax.config.defaults import defaults


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'adapt.privacy.delta': '0.0'}, 'adapt.privacy.delta'),
    ({'adapt.privacy.quantile': '1.0'}, 'adapt.privacy.quantile'),
    ({'adapt.privacy.microbatch': '-1'}, 'adapt.privacy.microbatch'),
    ({'adapt.privacy.microbatch': '3'}, 'adapt.privacy.microbatch'),
    ({'adapt.privacy.gradients': 'fast'}, 'adapt.privacy.gradients'),
    ({'adapt.privacy.mechanism': 'laplace'}, 'adapt.privacy.mechanism'),
    ({'adapt.privacy.mechanism': 'truncated_poisson'}, 'adapt.privacy.max_batch_size'),
    ({'adapt.privacy.max_batch_size': '64'}, 'adapt.privacy.max_batch_size'),
    ({'adapt.privacy.num_bands': '2'}, 'adapt.privacy.num_bands'),
    (
      {'adapt.privacy.mechanism': 'banded', 'adapt.privacy.num_bands': '101'},
      'adapt.privacy.num_bands',
    ),
    (
      {'adapt.privacy.releases.attributes.epsilon': '10.0'},
      'adapt.privacy.releases.attributes.epsilon',
    ),
    (
      {'adapt.privacy.releases.attributes.num_bins': '0'},
      'adapt.privacy.releases.attributes.num_bins',
    ),
    ({'sample.requests': 'private_prior'}, 'sample.requests'),
    ({'ledger.total_epsilon': '0.0'}, 'ledger.total_epsilon'),
    ({'ledger.total_epsilon': '9.0'}, 'ledger.total_epsilon'),
    ({'audit.num_canaries': '4'}, 'audit.num_canaries'),
    ({'audit.confidence': '1.0'}, 'audit.confidence'),
  ],
)
def test_an_invalid_value_is_refused_by_its_key(flags, key, refused):
  refused(flags, key)


def test_a_release_beside_the_model_serves_requests_of_a_private_cohort():
  flags = {
    'adapt.privacy.releases.attributes.epsilon': '1.0',
    'sample.requests': 'private_prior',
    'data.private.layout': 'phantom_brain',
  }
  checks.check(parsing.override(defaults(), flags))
