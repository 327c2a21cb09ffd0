"""Embedded text becomes tokens: padding is never read, a dropped text leaves one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.conditions.text_encoder import TextEncoder

KEY = jax.random.key(0)
TEXT = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
MASK = np.array([[True] * 4, [True, True, False, False], [False] * 4])


@pytest.fixture(scope='module')
def encoder():
  module = TextEncoder(width=6, embedding_dim=3)
  return jax.jit(module.apply), jax.jit(module.init)(KEY, TEXT, MASK)


def test_padding_changes_no_embedding_and_no_token_that_is_read(encoder):
  apply, variables = encoder
  tokens, mask, embedding = apply(variables, TEXT, MASK)
  garbage = np.where(MASK[..., None], TEXT, np.nan)
  other, same, pooled = apply(variables, garbage, MASK)
  np.testing.assert_array_equal(mask, same)
  np.testing.assert_array_equal(embedding, pooled)
  np.testing.assert_array_equal(tokens[mask], other[mask])
  short, _, pooled = apply(variables, TEXT[1:2, :2], MASK[1:2, :2])
  np.testing.assert_allclose(short[0], tokens[1, :2], atol=1e-6)
  np.testing.assert_allclose(pooled[0], embedding[1], atol=1e-6)


def test_a_dropped_or_missing_text_is_one_learned_token(encoder):
  apply, variables = encoder
  tokens, mask, embedding = apply(variables, TEXT, MASK)
  np.testing.assert_array_equal(mask[2], [True, False, False, False])
  np.testing.assert_array_equal(tokens[2, 0], variables['params']['missing'])
  tokens, mask, embedding = apply(variables, TEXT, MASK, np.ones(3, bool))
  np.testing.assert_array_equal(mask, [[True, False, False, False]] * 3)
  np.testing.assert_array_equal(tokens[:, 0], [variables['params']['null']] * 3)
  np.testing.assert_array_equal(embedding, embedding[:1].repeat(3, 0))


def test_gradients_stay_finite_with_garbage_in_the_padding(encoder):
  apply, variables = encoder
  garbage = np.where(MASK[..., None], TEXT, np.nan)
  total = lambda variables: sum(
    jnp.where(mask[..., None], tokens, 0).sum() + embedding.sum()
    for tokens, mask, embedding in [apply(variables, garbage, MASK)]
  )
  gradient = jax.grad(total)(variables)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_text_of_another_rank_is_named():
  with pytest.raises(ValueError, match='b,m,e'):
    TextEncoder().init(KEY, jnp.ones((2, 3)))
