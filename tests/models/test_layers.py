"""The blocks compute what their formulas say and never mix examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.attention import AttentionBlock, SpatialTransformer, attend
from ldm_jax.models.conv.repeated import nearest
from ldm_jax.models.layers import (
  Downsample,
  ResidualBlock,
  Upsample,
  average,
  kernels_and_strides,
  per_level,
)

KEY = jax.random.key(0)


def test_a_zero_initialised_block_is_the_identity_until_channels_change():
  x = jax.random.normal(KEY, (2, 4, 5, 8))
  block = ResidualBlock(8, (3, 3), 4, zero_init=True)
  y, _ = jax.jit(block.init_with_output)(KEY, x, jnp.ones((2, 6)))
  np.testing.assert_array_equal(y, x)
  wider = ResidualBlock(12, (3, 3), 4)
  wider = jax.eval_shape(wider.init, KEY, x, jnp.ones((2, 6)))['params']
  names = ['conv1', 'conv2', 'norm1', 'norm2', 'skip_connection', 'time_emb_proj']
  assert sorted(wider) == names


@pytest.mark.parametrize('size', [(6, 5), (3, 4, 7)])
def test_resampling_down_and_up_returns_to_any_size(size):
  x = jnp.ones((2, *size, 4))
  strides, kernel = (2,) * len(size), (3,) * len(size)
  down, floor = (
    jax.eval_shape(Downsample(4, kernel, strides, trail).init_with_output, KEY, x)[0]
    for trail in (False, True)
  )
  assert down.shape[1:-1] == tuple(-(-n // 2) for n in size)
  up = Upsample(5, kernel, strides)
  up, _ = jax.eval_shape(lambda y: up.init_with_output(KEY, y, size=size), down)
  assert up.shape == (2, *size, 5)
  assert floor.shape[1:-1] == tuple(n // 2 for n in size)
  assert nearest(average(x, strides), strides, size).shape == x.shape


def test_averaging_undoes_nearest_neighbours():
  x = jax.random.normal(KEY, (2, 3, 4, 5, 2))
  np.testing.assert_allclose(average(nearest(x, (1, 2, 3)), (1, 2, 3)), x, rtol=1e-6)


@pytest.mark.parametrize('max_scores', [100, 7])
def test_attention_in_chunks_is_attention(max_scores):
  query, key, value = jax.random.normal(KEY, (3, 2, 11, 3, 4))

  @jax.jit
  def both(*inputs):
    expected = jax.vjp(jax.nn.dot_product_attention, *inputs)
    actual = jax.vjp(lambda *a: attend(*a, max_scores), *inputs)
    return [(y, *pull(jnp.sin(y))) for y, pull in (expected, actual)]

  for expected, actual in zip(*both(query, key, value), strict=True):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_new_transformer_is_the_identity_and_then_reads_its_context(drawn):
  x = jax.random.normal(KEY, (2, 3, 4, 8))
  context = jax.random.normal(KEY, (2, 5, 6))
  layer = SpatialTransformer(2, 4, norm_groups=4)
  y, _ = jax.jit(layer.init_with_output)(KEY, x, context)
  np.testing.assert_array_equal(y, x)
  moved = drawn(layer, x, context)
  apply = jax.jit(layer.apply)
  one = apply(moved, x, context)
  other = apply(moved, x, context.at[1].add(1.0))
  np.testing.assert_array_equal(one[0], other[0])
  assert jnp.abs(one[1] - other[1]).max() > 1e-3


def test_self_attention_does_not_know_the_order_of_voxels(drawn):
  x = jax.random.normal(KEY, (2, 6, 4, 8))
  layer = AttentionBlock(norm_groups=4, head_dim=4)
  variables = drawn(layer, x)
  forward = jax.jit(layer.apply)(variables, x)
  backward = jax.jit(layer.apply)(variables, x[:, ::-1])[:, ::-1]
  np.testing.assert_allclose(forward, backward, atol=1e-5)


def test_options_per_level_are_repeated_or_counted():
  assert per_level(2, 3, 'n') == (2, 2, 2)
  kernels, strides = kernels_and_strides((1, 3, 3), (1, 2, 2), 2)
  assert (kernels, strides) == (((1, 3, 3), (1, 3, 3)), ((1, 2, 2),))
  assert kernels_and_strides((3, 3), None, 3)[1] == ((2, 2), (2, 2))
  assert kernels_and_strides((3, 3), None, 1)[1] == ()
  with pytest.raises(ValueError, match='num_res_blocks has 3 entries, expected 2'):
    per_level((1, 2, 3), 2, 'num_res_blocks')
  with pytest.raises(ValueError, match='number of axes'):
    kernels_and_strides((3, 3, 3), (2, 2), 2)
