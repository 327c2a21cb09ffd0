"""Laws of the sections `data` and `augment`."""

import pytest


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'augment.copies': '-1'}, 'augment.copies'),
    ({'augment.shift': '(0, 1)'}, 'augment.shift'),
    ({'augment.rotation_deg': '(0, 0, -1)'}, 'augment.rotation_deg'),
    ({'augment.gamma': '-0.1'}, 'augment.gamma'),
    ({'data.labels': "'apart'"}, 'data.labels'),
    ({'data.labels': 'joint', 'evaluate.labels': '(0, 0)'}, 'evaluate.labels'),
    (
      {'data.labels': 'joint', 'autoencoder.model.kind': 'wavelet'},
      'autoencoder.model.kind',
    ),
    ({'adapt.augment.shift': '(0, 1)'}, 'adapt.augment.shift'),
  ],
)
def test_an_invalid_value_is_refused_by_its_key(flags, key, refused):
  refused(flags, key)
