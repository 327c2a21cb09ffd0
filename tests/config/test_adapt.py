"""Laws of the section `adapt`."""

import pytest

from ldm_jax.config import checks, parsing
from ldm_jax.config.defaults import defaults


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'adapt.steps': '0'}, 'adapt.steps'),
    ({'adapt.lora.rank': '0'}, 'adapt.lora.rank'),
    ({'adapt.lora.targets': '()'}, 'adapt.lora.targets'),
    ({'adapt.ema_decay': '(0.9, 0.9)'}, 'adapt.ema_decay'),
    ({'adapt.ema_decay': '(1.0,)'}, 'adapt.ema_decay'),
    ({'sample.ema_decay': '0.5'}, 'sample.ema_decay'),
    ({'adapt.prior.weight': '-1.0'}, 'adapt.prior.weight'),
    ({'adapt.examples_per_patient': '-1'}, 'adapt.examples_per_patient'),
    ({'adapt.augment.multiplicity': '0'}, 'adapt.augment.multiplicity'),
    (
      {
        'adapt.augment.multiplicity': '2',
        'adapt.augment.shift': '(0,0,0)',
        'adapt.augment.gamma': '0.0',
      },
      'adapt.augment.multiplicity',
    ),
  ],
)
def test_an_invalid_value_is_refused_by_its_key(flags, key, refused):
  refused(flags, key)


def test_without_privacy_no_step_is_allowed_which_is_the_pre_trained_model():
  flags = {'adapt.steps': '0', 'adapt.privacy': 'None'}
  assert checks.check(parsing.override(defaults(), flags)).adapt.steps == 0
