"""The UNet: any size, two and three dimensions, conditions, the reference's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.models.denoisers.unet import UNet
from ldm_jax.models.denoisers.unet_levels import timestep_embedding

KEY = jax.random.key(0)
SMALL = {'channels': (8, 16), 'norm_groups': 4, 'num_head_channels': 8}
STEERED = {
  'num_categories': (0, 2, 0),
  'in_channels': 2,
  'out_channels': 2,
  'unet_kwargs': {**SMALL, 'kernels': (1, 3, 3), 'strides': (1, 2, 2)},
}


@pytest.mark.parametrize(
  ('size', 'options'),
  [
    ((7, 10), {'kernels': (3, 3), 'attention_levels': (True, False)}),
    ((3, 5, 6), {'kernels': ((1, 3, 3), (3, 3, 3)), 'strides': ((1, 2, 2),)}),
    ((5, 6, 5), {'resblock_updown': True, 'context_dim': 3, 'dtype': jnp.bfloat16}),
    ((3, 4), {'kernels': (3, 3), 'num_class_embeds': 3, 'middle_attention': False}),
  ],
)
def test_any_size_and_kernel_keeps_the_grid(size, options, drawn):
  module = UNet(in_channels=2, out_channels=3, **(SMALL | options))
  x, t = jax.random.normal(KEY, (2, *size, 2)), jnp.array([3, 90])
  context = jnp.ones((2, 4, 3)) if module.context_dim else None
  labels = jnp.array([0, 2]) if module.num_class_embeds else None
  variables = drawn(module, x, t, context, labels)
  y = jax.jit(module.apply)(variables, x, t, context, labels)
  assert y.shape == (2, *size, 3)
  assert jnp.isfinite(y).all()
  assert jnp.abs(y[0] - y[1]).max() > 0


def test_the_output_is_zero_before_training():
  module = UNet(in_channels=2, out_channels=3, kernels=(3, 3), **SMALL)
  x = jax.random.normal(KEY, (2, 4, 4, 2))
  y, _ = jax.jit(module.init_with_output)(KEY, x, jnp.array([3, 90]))
  np.testing.assert_array_equal(y, jnp.zeros((2, 4, 4, 3)))


def test_the_references_weights_give_the_references_numbers(reference):
  config, params, given, expected = reference('unet_tiny')
  module = UNet(
    channels=config['channels'],
    num_res_blocks=config['num_res_blocks'],
    attention_levels=config['attention_levels'],
    num_head_channels=config['num_head_channels'],
    norm_groups=config['norm_num_groups'],
    context_dim=config['cross_attention_dim'],
  )
  inputs = given['x'], given['timesteps'], given['context']
  ours = jax.eval_shape(module.init, KEY, *inputs)['params']
  assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, params)
  y = jax.jit(module.apply)({'params': params}, *inputs)
  np.testing.assert_allclose(y, expected['y'], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope='module')
def steered():
  """Compiled (variables, z_t, t, attributes, drop) -> output, and its arguments."""
  module = ConditionalDenoiser(**STEERED)
  z_t, t = jax.random.normal(KEY, (3, 2, 5, 6, 2)), jnp.array([1, 20, 140])
  attributes = jnp.array([[0.5, 1, -0.3], [jnp.nan, 0, 0.2], [-1, jnp.nan, jnp.nan]])
  arguments = z_t, t, attributes, jnp.zeros(3, bool)
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(module.init, KEY, *arguments)
  variables = jax.tree.map(lambda leaf: 0.2 * rng.normal(size=leaf.shape), shapes)
  return jax.jit(module.apply), variables, arguments


def test_changing_one_example_leaves_the_others_bit_identical(steered):
  apply, variables, (z_t, t, attributes, drop) = steered
  y = apply(variables, z_t, t, attributes, drop)
  changed = z_t.at[1].add(1.0), t.at[1].set(7), attributes.at[1].set(jnp.nan)
  other = apply(variables, *changed, drop)
  np.testing.assert_array_equal(y[::2], other[::2])
  assert jnp.abs(y[1] - other[1]).max() > 1e-3


def test_attributes_steer_unless_dropped_or_missing(steered):
  apply, variables, (z_t, t, attributes, drop) = steered
  y = apply(variables, z_t, t, attributes, drop)
  moved = apply(variables, z_t, t, attributes + 0.5, drop)
  assert jnp.abs(y - moved)[0].max() > 1e-3
  first = drop.at[0].set(True)
  one = apply(variables, z_t, t, attributes, first)
  two = apply(variables, z_t, t, attributes.at[0].set(9.0), first)
  np.testing.assert_array_equal(one, two)
  unknown = apply(variables, z_t, t, jnp.full((3, 3), jnp.nan), drop)
  nothing = apply(variables, z_t, t, attributes, ~drop)
  assert jnp.abs(unknown - nothing).max() > 1e-3


def test_parameter_names_are_an_interface():
  module = ConditionalDenoiser(**STEERED)
  shapes = jax.eval_shape(
    module.init, KEY, jnp.ones((1, 2, 4, 4, 2)), jnp.ones(1), jnp.ones((1, 3))
  )['params']
  assert sorted(shapes) == ['conditioner', 'unet']
  assert sorted(shapes['conditioner']) == [
    'attention',
    'categories',
    'continuous_bias',
    'continuous_kernel',
    'embed_0',
    'embed_2',
    'missing',
    'null',
  ]
  assert sorted(shapes['unet']) == [
    'conv_in',
    'down_blocks_0',
    'down_blocks_1',
    'middle_block',
    'out_0',
    'out_2',
    'time_embed_0',
    'time_embed_2',
    'up_blocks_0',
    'up_blocks_1',
  ]
  assert sorted(shapes['unet']['middle_block']) == ['attention', 'resnet_1', 'resnet_2']
  assert sorted(shapes['unet']['down_blocks_0']) == ['downsampler', 'resnets_0']


def test_the_time_embedding_is_cosines_then_sines():
  embedding = timestep_embedding(jnp.array([0, 10]), 5)
  np.testing.assert_allclose(embedding[0], [1, 1, 0, 0, 0], atol=1e-6)
  angles = np.array([10, 10 * 10000**-0.5])
  expected = [*np.cos(angles), *np.sin(angles), 0]
  np.testing.assert_allclose(embedding[1], expected, atol=1e-5)


@pytest.mark.parametrize(
  ('options', 'shape', 'message'),
  [
    ({}, (1, 4, 4, 4, 5), 'in_channels'),
    ({'num_res_blocks': (1, 1, 1)}, (1, 4, 4, 4, 2), 'num_res_blocks has 3'),
    ({'num_head_channels': 32}, (1, 4, 4, 4, 2), 'num_head_channels'),
    ({'num_class_embeds': 2}, (1, 4, 4, 4, 2), 'class_labels'),
  ],
)
def test_options_that_do_not_fit_are_named(options, shape, message):
  module = UNet(in_channels=2, **(SMALL | options))
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(module.init, KEY, jnp.ones(shape), jnp.ones(1))


def test_a_context_of_another_width_is_named():
  module = UNet(in_channels=2, context_dim=3, **SMALL)
  with pytest.raises(ValueError, match='context_dim is 3'):
    jax.eval_shape(
      module.init, KEY, jnp.ones((1, 4, 4, 4, 2)), jnp.ones(1), jnp.ones((1, 2, 5))
    )
