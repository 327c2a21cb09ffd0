"""Laws of the section `diffusion`."""

import pytest

from ldm_jax.config import diffusion
from ldm_jax.models.denoisers import conditional

MASK = {'diffusion.conditioner.by': "('embedding', 'mask')"}


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'diffusion.steps': '0'}, 'diffusion.steps'),
    ({'diffusion.conditioner.by': '()'}, 'diffusion.conditioner.by'),
    ({'diffusion.conditioner.by': "('taste',)"}, 'diffusion.conditioner.by'),
    ({'diffusion.text.width': '0'}, 'diffusion.text.width'),
    ({**MASK, 'evaluate.labels': '(0,)'}, 'evaluate.labels'),
    ({**MASK, 'adapt.augment.multiplicity': '2'}, 'adapt.augment.multiplicity'),
    ({**MASK, 'adapt.pairs.use': 'true'}, 'adapt.pairs.use'),
    (
      {**MASK, 'diffusion.mask.missing_probability': '1.0'},
      'diffusion.mask.missing_probability',
    ),
    (
      {'diffusion.text.missing_probability': '1.5'},
      'diffusion.text.missing_probability',
    ),
  ],
)
def test_an_invalid_value_is_refused_by_its_key(flags, key, refused):
  refused(flags, key)


def test_the_ways_of_a_config_are_those_of_the_denoiser():
  assert diffusion.WAYS == conditional.WAYS
