"""Laws of the parts of a convolution as matrix products.

That each lowering as a whole is XLA's convolution is tested in test_conv.py.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.conv import lowering

X = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)


def windows(x, size, strides):
  """(b,*out,*k,c) by NumPy alone."""
  found = np.lib.stride_tricks.sliding_window_view(x, size, (1, 2))
  return np.moveaxis(found[:, :: strides[0], :: strides[1]], 3, -1)


@pytest.mark.parametrize(('size', 'strides'), [((3, 2), (1, 1)), ((2, 3), (2, 1))])
def test_unfolding_gives_each_output_its_window(size, strides):
  expected = windows(X, size, strides)
  found = lowering.unfold(jnp.asarray(X), size, strides)
  np.testing.assert_array_equal(found, expected.reshape(*expected.shape[:3], -1))


def test_folding_stops_where_the_channels_become_too_wide():
  kernel = jnp.zeros((3, 2, 3, 4))
  x, folded, strides = lowering.fold(jnp.asarray(X), kernel, (3, 5), (1, 1), width=6)
  assert x.shape == (2, 5, 5, 6) and folded.shape == (3, 1, 6, 4)
  assert strides == (1, 1)


def test_a_tap_meets_its_own_element_of_each_window():
  expected = windows(X, (3, 2), (1, 2))
  for tap in range(6):
    found = lowering.shifted(jnp.asarray(X), jnp.int32(tap), (3, 2), (3, 3), (1, 2))
    np.testing.assert_array_equal(found, expected[..., tap // 2, tap % 2, :])


def test_negative_margins_crop():
  found = lowering.pad(jnp.asarray(X), ((1, -2), (-1, 0)))
  np.testing.assert_array_equal(found[:, 0], 0)
  np.testing.assert_array_equal(found[:, 1:], X[:, :3, 1:])


@pytest.mark.parametrize('strides', [(1, 1), (2, 3)])
def test_the_input_gradient_is_the_transposed_map(strides):
  """<y, A x> = <A* y, x>, for any x and y."""
  rng, pairs = np.random.default_rng(1), ((1, 0), (0, 1))
  kernel = jnp.asarray(rng.normal(size=(3, 2, 3, 4)), jnp.float32)
  y = lowering.correlate(jnp.asarray(X), kernel, strides, 'shifted', pairs)
  g = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
  back = lowering.input_gradient(g, kernel, strides, pairs, X.shape, 'shifted')
  assert back.shape == X.shape
  assert float(jnp.vdot(g, y)) == pytest.approx(float(jnp.vdot(back, X)), rel=1e-4)
