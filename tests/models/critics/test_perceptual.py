"""Laws of distances in features: unit vectors, slices, equal volumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.critics import perceptual

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.random((2, 3, 4, 5, 1)), jnp.float32)
Y = jnp.asarray(RNG.random((2, 3, 4, 5, 1)), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 2)


def colours(x):
  """Two maps, of which only the direction of each voxel's vector counts."""
  return [jnp.concatenate([x, 1 - x], -1), jnp.concatenate([x**2, x, 1 + x], -1)]


def test_equal_volumes_have_no_distance_and_no_gradient():
  assert not perceptual.distance(colours, X, X).any()
  gradient = jax.grad(lambda y: perceptual.distance(colours, X, y).sum())(X)
  np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_the_distance_is_that_of_unit_vectors():
  expected = np.zeros(2)
  for f, g in zip(colours(np.asarray(X)), colours(np.asarray(Y)), strict=True):
    f, g = (np.asarray(v) for v in (f, g))
    f, g = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (f, g))
    expected += ((f - g) ** 2).sum(-1).mean((1, 2, 3))
  np.testing.assert_allclose(perceptual.distance(colours, X, Y), expected, rtol=1e-4)
  # A voxel lies in one slice of every direction.
  every = perceptual.distance(colours, X, Y, planes=(0, 1, 2))
  np.testing.assert_allclose(every, expected, rtol=1e-4)


def test_a_share_of_the_slices_is_the_same_of_both_volumes_and_random():
  def some(x, y, keys):
    return perceptual.distance(colours, x, y, (0, 1, 2), 0.5, keys)

  assert not some(X, X, KEYS).any()
  other = some(X, Y, jax.random.split(jax.random.key(1), 2))
  assert (some(X, Y, KEYS) != other).all()
  np.testing.assert_array_equal(some(X, Y, KEYS)[:1], some(X[:1], Y[:1], KEYS[:1]))
  with pytest.raises(ValueError, match='keys is None'):
    some(X, Y, None)
