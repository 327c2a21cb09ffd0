"""Laws of label maps as channels: read back, absent as zeros, dropped by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.conditions import label_mask
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser

SPACE, NUM = (2, 4, 4), 3
SHARES = np.random.default_rng(0).dirichlet(np.ones(NUM), (2, *SPACE))
ATTRIBUTES = np.array([[0.3, 1.0], [np.nan, 0.0]], np.float32)


def joined(shares=SHARES):
  return jnp.asarray(np.concatenate([ATTRIBUTES, label_mask.columns(shares)], 1))


def test_columns_are_read_back_and_without_them_the_channels_are_zero():
  own, channels = label_mask.read(joined(), 2, SPACE, NUM)
  np.testing.assert_array_equal(own, ATTRIBUTES)
  np.testing.assert_allclose(channels, SHARES, rtol=1e-6)
  own, channels = label_mask.read(jnp.asarray(ATTRIBUTES), 2, SPACE, NUM)
  np.testing.assert_array_equal(own, ATTRIBUTES)
  assert channels.shape == (2, *SPACE, NUM) and not channels.any()
  unknown = label_mask.read(joined(np.full_like(SHARES, np.nan)), 2, SPACE, NUM)[1]
  assert not unknown.any()
  half = label_mask.dropped(jnp.asarray(SHARES), jnp.array([True, False]))
  assert not half[0].any() and np.allclose(half[1], SHARES[1])


@pytest.fixture(scope='module')
def network():
  """A denoiser with a map, its parameters, and a call of it."""
  kernel = ((1, 3, 3), (1, 3, 3))
  module = ConditionalDenoiser(
    num_categories=(0, 2),
    in_channels=2,
    out_channels=2,
    conditioner_kwargs={'width': 8, 'num_heads': 2},
    unet_kwargs={
      'channels': (8, 8),
      'kernels': kernel,
      'strides': ((1, 2, 2),),
      'norm_groups': 4,
      'num_res_blocks': 1,
      'attention_levels': (False, False),
      'num_head_channels': 8,
    },
    by=('embedding', 'mask'),
    num_labels=NUM,
  )
  z, t = jax.random.normal(jax.random.key(0), (2, *SPACE, 2)), jnp.array([1, 5])
  shapes = jax.eval_shape(module.init, jax.random.key(1), z, t, joined())
  leaves, tree = jax.tree.flatten(shapes)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  drawn = [
    0.3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)
  ]
  params = jax.tree.unflatten(tree, drawn)
  apply = jax.jit(lambda c, drop: module.apply(params, z, t, c, drop))
  return lambda c, drop=(False, False): np.asarray(apply(c, jnp.array(drop)))


def test_a_denoiser_follows_the_map_of_each_example_and_forgets_a_dropped_one(network):
  both = network(joined())
  other = SHARES.copy()
  other[1] = other[1][..., ::-1]
  changed = network(joined(other))
  np.testing.assert_allclose(both[0], changed[0], atol=1e-5)
  assert np.abs(both[1] - changed[1]).max() > 1e-3
  dropped = [network(joined(shares), (True, True)) for shares in (SHARES, other)]
  np.testing.assert_allclose(*dropped, atol=1e-6)


def test_no_columns_and_unknown_ones_are_one_request(network):
  unknown = joined(np.full_like(SHARES, np.nan))
  np.testing.assert_allclose(
    network(unknown), network(jnp.asarray(ATTRIBUTES)), atol=1e-6
  )
