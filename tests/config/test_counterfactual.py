"""Laws of the section `counterfactual`."""

import pytest


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'counterfactual.least_change': '-1.0'}, 'counterfactual.least_change'),
    ({'counterfactual.ddpm.skip': '1.0'}, 'counterfactual.ddpm.skip'),
    ({'counterfactual.sdedit.strength': '0.0'}, 'counterfactual.sdedit.strength'),
    ({'counterfactual.num': '-1'}, 'counterfactual.num'),
    ({'counterfactual.pix2pix_zero.kl': '-1.0'}, 'counterfactual.pix2pix_zero.kl'),
    (
      {
        'counterfactual.editor': 'pix2pix_zero',
        'diffusion.conditioner.by': "('embedding',)",
      },
      'counterfactual.editor',
    ),
  ],
)
def test_an_invalid_value_is_refused_by_its_key(flags, key, refused):
  refused(flags, key)
