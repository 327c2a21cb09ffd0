"""The attribute encoder: missing, dropped, categorical and continuous values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.conditions.attribute_encoder import AttributeEncoder

KEY = jax.random.key(0)


def make(num_categories, attributes, **options):
  module = AttributeEncoder(num_categories, embedding_dim=12, **options)
  return module, jax.jit(module.init)(KEY, attributes)


def test_shapes_are_a_token_per_attribute_and_one_embedding():
  attributes = jnp.zeros((2, 4))
  module, variables = make((0, 3, 0, 2), attributes)
  tokens, embedding = module.apply(variables, attributes)
  assert (tokens.shape, embedding.shape) == ((2, 4, 16), (2, 12))
  plain = AttributeEncoder((0,))
  shapes = jax.eval_shape(plain.init_with_output, KEY, jnp.ones((1, 1)))
  assert shapes[0][1] is None


@pytest.mark.parametrize('num_categories', [(0, 0), (2, 3)])
def test_schemas_of_one_kind_work(num_categories):
  attributes = jnp.array([[0.0, 1.0], [1.0, jnp.nan]])
  module, variables = make(num_categories, attributes)
  tokens, _ = module.apply(variables, attributes)
  assert jnp.isfinite(tokens).all()
  assert jnp.abs(tokens[0] - tokens[1]).max() > 1e-3


def test_dropping_forgets_every_value_even_missing_ones():
  attributes = jnp.array([[0.3, 1.0], [jnp.nan, 0.0]])
  module, variables = make((0, 2), attributes)
  tokens, embedding = module.apply(variables, attributes, jnp.ones(2, bool))
  np.testing.assert_array_equal(tokens[0], tokens[1])
  np.testing.assert_array_equal(embedding[0], embedding[1])


def test_close_values_are_told_apart_and_distant_ones_more():
  attributes = jnp.linspace(-1, 1, 9)[:, None]
  module, variables = make((0,), attributes)
  _, embedding = module.apply(variables, attributes)
  from_first = jnp.linalg.norm(embedding - embedding[0], axis=-1)
  assert from_first[1] > 1e-3
  assert from_first[-1] > from_first[1]


def test_another_number_of_attributes_is_an_error_naming_the_schema():
  with pytest.raises(ValueError, match=r'expected attributes \(b, 2\), got \(2, 3\)'):
    make((0, 0), jnp.ones((2, 3)))


def test_missing_values_leave_gradients_finite():
  attributes = jnp.array([[0.3, 1.0], [jnp.nan, 0.0]])
  module, variables = make((0, 2), attributes)

  @jax.jit
  @jax.grad
  def gradient(variables):
    tokens, embedding = module.apply(variables, attributes)
    return jnp.mean(tokens**2) + jnp.mean(embedding**2)

  named = gradient(variables)['params']
  assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(named))
  assert jnp.abs(named['missing'][0]).max() > 0
  assert jnp.abs(named['missing'][1]).max() == 0
  assert jnp.abs(named['null']).max() == 0
