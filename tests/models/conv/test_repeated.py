"""Convolution on the coarse grid is that of the repeated voxels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.conv.conv import convolve
from ldm_jax.models.conv.repeated import RepeatedConv, convolve_repeated, nearest
from ldm_jax.models.layers import Upsample

CASES = [
  # space, kernel, repeats
  ((4, 5, 6), (3, 3, 3), (2, 2, 2)),
  ((4, 5, 6), (1, 3, 3), (1, 2, 2)),
  ((3, 4, 5), (3, 3, 3), (1, 2, 2)),
  ((5, 4), (3, 3), (2, 2)),
  ((5, 4), (5, 3), (1, 2)),
  ((1, 1), (3, 3), (2, 2)),
  # Others than pairs of voxels under three taps fall back.
  ((3, 4), (5, 5), (2, 2)),
  ((3, 4), (3, 3), (3, 2)),
  ((3, 4), (3, 3), (1, 1)),
]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_it_is_the_convolution_of_the_repeated_voxels_with_both_gradients(case):
  space, size, repeats = case
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, *space, 3))
  kernel = jax.random.normal(keys[1], (*size, 3, 4))

  def both(x, kernel):
    def plain(x, kernel):
      return convolve(nearest(x, repeats), kernel)

    def quick(x, kernel):
      return convolve_repeated(x, kernel, repeats)

    y, pull = jax.vjp(plain, x, kernel)
    g = jax.random.normal(keys[2], y.shape)
    other, pull_other = jax.vjp(quick, x, kernel)
    return (y, *pull(g)), (other, *pull_other(g))

  for expected, actual in zip(*jax.jit(both)(x, kernel), strict=True):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * scale)


def test_examples_keep_their_own_gradients():
  x = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 2))

  def loss(kernel, x):
    return jnp.sin(convolve_repeated(x[None], kernel, (2, 2))).sum()

  every = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(kernel, x)
  for i in range(3):
    np.testing.assert_allclose(every[i], jax.grad(loss)(kernel, x[i]), rtol=1e-4)


def test_a_layer_has_the_parameters_of_a_convolution_and_crops_as_one():
  x = jax.random.normal(jax.random.key(0), (1, 3, 4, 2))
  layer = Upsample(5, (3, 3), (2, 2))
  variables = layer.init(jax.random.key(1), x)
  assert jax.tree.map(jnp.shape, variables['params']) == {
    'conv': {'kernel': (3, 3, 2, 5), 'bias': (5,)}
  }
  whole = layer.apply(variables, x)
  assert whole.shape == (1, 6, 8, 5)
  cropped = layer.apply(variables, x, size=(5, 8))
  params = variables['params']['conv']
  expected = convolve(nearest(x, (2, 2), (5, 8)), params['kernel']) + params['bias']
  np.testing.assert_allclose(cropped, expected, atol=1e-5)
  np.testing.assert_allclose(cropped[:, :4], whole[:, :4], atol=1e-5)
  # Beyond the border there is nothing, not the voxel that was cropped.
  assert np.abs(cropped[:, 4] - whole[:, 4]).max() > 1e-3


def test_half_precision_stays_half_precision():
  layer = RepeatedConv(3, (3, 3), repeats=(2, 2), dtype=jnp.bfloat16)
  y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((1, 2, 2, 2)))
  assert y.dtype == jnp.bfloat16
  assert variables['params']['kernel'].dtype == jnp.float32
