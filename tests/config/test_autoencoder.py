"""Laws of the sections `autoencoder` and `encode`."""

import pytest

from ldm_jax.config import autoencoder, checks, parsing
from ldm_jax.config.defaults import defaults


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'autoencoder.steps': '0'}, 'autoencoder.steps'),
    ({'autoencoder.model.kind': 'wavelet'}, 'autoencoder.steps'),
    ({'autoencoder.kl_weight': '-1.0'}, 'autoencoder.kl_weight'),
    ({'autoencoder.codebook.decay': '1.0'}, 'autoencoder.codebook.decay'),
    ({'autoencoder.perceptual.share': '0.0'}, 'autoencoder.perceptual.share'),
    (
      {
        'autoencoder.perceptual.weight': '1.0',
        'autoencoder.perceptual.network': 'vgg16',
      },
      'autoencoder.perceptual.weights',
    ),
    (
      {
        'autoencoder.perceptual.weight': '1.0',
        'autoencoder.perceptual.network': 'vgg16',
        'autoencoder.perceptual.weights': 'file',
      },
      'autoencoder.perceptual.planes',
    ),
    (
      {
        'autoencoder.perceptual.weight': '1.0',
        'autoencoder.perceptual.weights': 'file',
      },
      'autoencoder.perceptual.weights',
    ),
  ],
)
def test_an_invalid_value_is_refused_by_its_key(flags, key, refused):
  refused(flags, key)


@pytest.mark.parametrize('kind', autoencoder.RECIPES)
def test_each_recipe_passes_the_checks(kind):
  config = defaults()
  autoencoder.use_recipe(config, kind)
  checks.check(config)


def test_a_wavelet_learns_nothing_and_keeps_every_number():
  config = defaults()
  autoencoder.use_recipe(config, 'wavelet')
  section = config.autoencoder
  (stride,) = section.model.strides
  assert section.steps == 0
  assert section.model.latent_channels == stride[0] * stride[1] * stride[2]


def test_steps_may_be_zero_where_weights_are_given():
  flags = {'autoencoder.steps': '0', 'autoencoder.init': 'folder'}
  checks.check(parsing.override(defaults(), flags))


def test_an_unknown_recipe_is_refused_with_those_there_are():
  with pytest.raises(ValueError, match=r'kl.*vq.*adversarial.*wavelet'):
    autoencoder.use_recipe(defaults(), 'gan')
