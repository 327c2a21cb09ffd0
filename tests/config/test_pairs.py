"""Laws of the section `adapt.pairs`."""

import pytest


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'adapt.pairs.gap': 'months'}, 'adapt.pairs.gap'),
    (
      {'adapt.pairs.min_years': '2.0', 'adapt.pairs.max_years': '1.0'},
      'adapt.pairs.max_years',
    ),
    ({'adapt.pairs.change_scale': '0.0'}, 'adapt.pairs.change_scale'),
    ({'adapt.pairs.drop_source': '0.96'}, 'adapt.pairs.drop_source'),
    ({'counterfactual.editor': 'pairs'}, 'counterfactual.editor'),
    (
      {
        'counterfactual.editor': 'pairs',
        'adapt.pairs.use': 'True',
        'sample.model': 'diffusion',
      },
      'counterfactual.editor',
    ),
  ],
)
def test_an_invalid_value_is_refused_by_its_key(flags, key, refused):
  refused(flags, key)
