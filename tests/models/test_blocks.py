"""Laws of blocks of voxels as channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.blocks import from_blocks, to_blocks
from ldm_jax.models.critics.segmenter import Segmenter

X = jnp.arange(2 * 3 * 4 * 6 * 2.0).reshape(2, 3, 4, 6, 2)


def test_voxels_of_a_block_are_the_channels_of_its_cell():
  blocks = to_blocks(X, (1, 2, 3))
  assert blocks.shape == (2, 3, 2, 2, 12)
  np.testing.assert_array_equal(blocks[1, 2, 1, 0].reshape(2, 3, 2), X[1, 2, 2:4, 0:3])


@pytest.mark.parametrize('block', [(1, 1, 1), (1, 2, 3), (3, 2, 2)])
def test_blocks_are_put_together_as_they_were(block):
  np.testing.assert_array_equal(from_blocks(to_blocks(X, block), block), X)


@pytest.mark.parametrize('block', [(1, 2), (2, 2, 2), (1, 3, 2)])
def test_volumes_of_no_whole_blocks_are_refused_with_the_keys_to_change(block):
  with pytest.raises(ValueError, match='patch of autoencoder'):
    to_blocks(X, block)


def test_a_measuring_network_of_blocks_labels_volumes_of_any_size():
  module = Segmenter(
    num_classes=3,
    channels=(4, 8),
    kernels=(1, 3, 3),
    strides=((1, 2, 2),),
    patch=(1, 2, 2),
  )
  x = jnp.ones((1, 3, 5, 7, 1))
  params = module.init(jax.random.key(0), x)
  assert module.apply(params, x).shape == (1, 3, 5, 7, 3)
  assert module.apply(params, x, method='features').shape == (1, 2 * (4 + 8))
