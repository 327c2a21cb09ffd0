"""The norms compute their formulas, forwards, backwards and for each patient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.norms import GroupNorm

KEY = jax.random.key(0)
PARAMS = {'scale': jnp.linspace(0.5, 2, 8), 'bias': jnp.linspace(-1, 1, 8)}


def test_group_norm_is_the_textbook_formula_even_far_from_zero():
  x = 100 + jax.random.normal(KEY, (3, 4, 5, 8))
  params = {'scale': jnp.arange(8.0), 'bias': jnp.linspace(-1, 1, 8)}
  y = GroupNorm(4, epsilon=1e-3).apply({'params': params}, x)
  groups = np.asarray(x, np.float64).reshape(3, 20, 4, 2)
  mean = groups.mean((1, 3), keepdims=True)
  variance = groups.var((1, 3), keepdims=True)
  expected = ((groups - mean) / np.sqrt(variance + 1e-3)).reshape(x.shape)
  expected = expected * np.asarray(params['scale']) + np.asarray(params['bias'])
  np.testing.assert_allclose(y, expected, atol=1e-3)


def test_group_norm_refuses_groups_that_do_not_divide():
  with pytest.raises(ValueError, match='norm_groups'):
    GroupNorm(4).init(KEY, jnp.ones((1, 3, 6)))


def test_group_norm_computes_in_float32_and_returns_the_compute_type():
  x = (1000 + jax.random.normal(KEY, (2, 64, 4))).astype(jnp.bfloat16)
  y, _ = GroupNorm(2).init_with_output(KEY, x)
  exact, _ = GroupNorm(2).init_with_output(KEY, x.astype(jnp.float32))
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.02)


def _loss(params, x, weights):
  return jnp.sum(weights * GroupNorm(4, epsilon=1e-3).apply({'params': params}, x))


def _plain_loss(params, x, weights):
  groups = x.reshape(x.shape[0], -1, 4, 2)
  groups = groups - groups.mean((1, 3), keepdims=True)
  y = groups / jnp.sqrt((groups**2).mean((1, 3), keepdims=True) + 1e-3)
  return jnp.sum(weights * (y.reshape(x.shape) * params['scale'] + params['bias']))


@pytest.mark.parametrize('centre', [0.0, 30.0])
def test_its_gradient_is_that_of_the_formula(centre):
  x = centre + jax.random.normal(KEY, (3, 4, 5, 8))
  weights = jax.random.normal(jax.random.key(1), x.shape)
  found = jax.grad(_loss, (0, 1))(PARAMS, x, weights)
  expected = jax.grad(_plain_loss, (0, 1))(PARAMS, x, weights)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), found, expected
  )


def test_each_patient_has_the_gradient_that_he_has_alone():
  x = jax.random.normal(KEY, (3, 2, 4, 5, 8))
  weights = jax.random.normal(jax.random.key(1), x.shape)
  gradient = jax.grad(_loss, (0, 1))
  found = jax.vmap(gradient, (None, 0, 0))(PARAMS, x, weights)
  alone = [gradient(PARAMS, *row) for row in zip(x, weights, strict=True)]
  expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected
  )
