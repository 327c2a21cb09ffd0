"""The autoencoder: sizes, slices, examples, and the reference's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.autoencoders.autoencoder import Autoencoder

KEY = jax.random.key(0)
PLANAR = {'channels': (4, 8), 'kernels': (1, 3, 3), 'strides': (1, 2, 2)}


@pytest.fixture
def make(drawn):
  def build(shape, **options):
    module = Autoencoder(norm_groups=4, latent_channels=3, **options)
    x = jax.random.uniform(KEY, shape)
    return module, drawn(module, x), x

  return build


@pytest.mark.parametrize(
  ('shape', 'latent', 'options'),
  [
    ((2, 5, 8, 12, 1), (5, 4, 6), PLANAR),
    ((2, 8, 12, 1), (4, 6), {'channels': (4, 8), 'kernels': (3, 3)}),
    ((2, 4, 4, 8, 2), (2, 2, 4), {'channels': (4, 8), 'in_channels': 2}),
  ],
)
def test_images_and_volumes_come_back_in_their_size(shape, latent, options, make):
  module, variables, x = make(shape, **options)
  x_hat, mean, std = jax.jit(module.apply)(variables, x, KEY)
  assert x_hat.shape == x.shape
  assert mean.shape == std.shape == (2, *latent, 3)
  assert module.latent_size(shape[1:-1]) == latent
  assert x_hat.min() >= 0 and x_hat.max() <= 1
  assert std.min() > 0


@pytest.mark.parametrize('patch', [(), (1, 2, 2)])
def test_label_channels_come_back_as_logits_behind_the_volume(make, patch):
  module, variables, x = make((2, 3, 8, 8, 4), num_labels=3, patch=patch, **PLANAR)
  variables = jax.tree.map(lambda leaf: 9 * leaf, variables)
  x_hat = jax.jit(module.apply)(variables, x)[0]
  assert x_hat.shape == x.shape
  assert x_hat[..., 0].min() >= 0 and x_hat[..., 0].max() <= 1
  assert x_hat[..., 1:].min() < 0 and x_hat[..., 1:].max() > 1


def test_slices_and_examples_do_not_know_each_other(make):
  # Group norm sees the whole volume: what one slice tells others is its statistics
  # only. With the same voxels in another order these do not change.
  module, variables, x = make((3, 4, 8, 8, 1), **PLANAR)
  apply = jax.jit(module.apply)
  for part, swapped in zip(
    apply(variables, x), apply(variables, x[:, ::-1]), strict=True
  ):
    np.testing.assert_allclose(part, swapped[:, ::-1], rtol=1e-4, atol=1e-5)
  other = apply(variables, x.at[1].set(0.3))
  for part, changed in zip(apply(variables, x), other, strict=True):
    np.testing.assert_array_equal(part[0], changed[0])
    np.testing.assert_array_equal(part[2], changed[2])
    assert jnp.abs(part[1] - changed[1]).max() > 0


def test_without_a_key_the_latent_is_its_mean(make):
  module, variables, x = make((1, 2, 4, 4, 1), **PLANAR)
  x_hat, mean, _ = jax.jit(module.apply)(variables, x)
  decoded = jax.jit(lambda z: module.apply(variables, z, method='decode'))(mean)
  np.testing.assert_allclose(x_hat, decoded, atol=1e-6)


def test_a_size_that_cannot_come_back_is_an_error_naming_the_factors():
  module = Autoencoder(**PLANAR)
  with pytest.raises(ValueError, match=r'\(5, 7, 8\).*\(1, 2, 2\)'):
    module.init(KEY, jnp.ones((1, 5, 7, 8, 1)))
  with pytest.raises(ValueError, match='out_activation'):
    Autoencoder(out_activation='relu').init(KEY, jnp.ones((1, 4, 4, 4, 1)))


def test_lists_as_in_json_are_the_same_module():
  lists = Autoencoder(channels=[4, 8], kernels=[[1, 3, 3]] * 2, strides=[[1, 2, 2]])
  assert lists == Autoencoder(
    channels=(4, 8), kernels=((1, 3, 3),) * 2, strides=((1, 2, 2),)
  )
  assert hash(lists) == hash(lists.clone())


def test_bfloat16_computes_nearly_what_float32_does(make):
  module, variables, x = make((1, 2, 4, 4, 1), dtype=jnp.bfloat16, **PLANAR)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {'float32'}
  exact = jax.jit(make((1, 2, 4, 4, 1), **PLANAR)[0].apply)(variables, x)[0]
  x_hat = jax.jit(module.apply)(variables, x)[0]
  assert x_hat.dtype == jnp.bfloat16
  np.testing.assert_allclose(x_hat.astype(jnp.float32), exact, atol=0.05)


def test_the_references_weights_give_the_references_numbers(reference):
  config, params, given, expected = reference('ae_tiny_attn')
  module = Autoencoder(
    channels=config['channels'],
    latent_channels=config['latent_channels'],
    num_res_blocks=config['num_res_blocks'],
    attention_levels=config['attention_levels'],
    norm_groups=config['norm_num_groups'],
    nonlocal_attention=True,
    out_activation=None,
  )
  x = given['x']
  ours = jax.eval_shape(module.init, KEY, x)['params']
  assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, params)
  x_hat, mean, std = jax.jit(module.apply)({'params': params}, x)
  np.testing.assert_allclose(mean, expected['z_mu'], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(std, expected['z_sigma'], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(x_hat, expected['reconstruct'], rtol=1e-4, atol=1e-5)
