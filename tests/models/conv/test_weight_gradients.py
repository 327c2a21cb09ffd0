"""Laws of the kernel's gradient: each way of computing it gives the same.

With all kernels, strides and paddings, against XLA's gradient: test_conv.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.conv import weight_gradients
from ldm_jax.models.conv.lowering import unfold

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 4, 13, 12, 3)), jnp.float32)
G = jnp.asarray(RNG.normal(size=(2, 3, 12, 11, 2)), jnp.float32)
SIZE, ONE = (2, 2, 2), (1, 1, 1)


def by_windows(x, g, size, strides):
  """The definition: each output's window times its gradient, summed."""
  u = np.asarray(unfold(x, size, strides), np.float64)
  y = np.einsum('bdhwk,bdhwo->ko', u, np.asarray(g, np.float64))
  return y.reshape(*size, x.shape[-1], g.shape[-1])


@pytest.mark.parametrize('way', ['taps', 'planes'])
def test_each_way_sums_windows_times_gradients(way):
  compute = getattr(weight_gradients, f'{way}_weight_gradient')
  found = compute(X, G, SIZE, ONE)
  np.testing.assert_allclose(found, by_windows(X, G, SIZE, ONE), rtol=1e-4, atol=1e-3)


def test_a_stride_or_small_planes_are_left_to_the_taps():
  g = G[:, :2, ::2, ::2]
  found = weight_gradients.planes_weight_gradient(X, g, SIZE, (2, 2, 2))
  expected = by_windows(X, g, SIZE, (2, 2, 2))
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_mapped_over_patients_it_is_the_gradient_of_each_alone():
  none = ((0, 0),) * 3
  of = lambda x, g: weight_gradients.weight_gradients(x, g, SIZE, ONE, none, 'shifted')
  found = jax.vmap(of)(X[:, None], G[:, None])
  for row in range(2):
    expected = by_windows(X[row : row + 1], G[row : row + 1], SIZE, ONE)
    np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-3)
