"""Attention in bounded memory, with padding, without any mixing of examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models import attention
from ldm_jax.models.attention import attend

RNG = np.random.default_rng(0)
QUERY = RNG.normal(size=(2, 13, 2, 4)).astype(np.float32)
KEY, VALUE = RNG.normal(size=(2, 2, 9, 2, 4)).astype(np.float32)
MASK = np.array([[True] * 6 + [False] * 3, [True] + [False] * 8])
# Whole, by examples, by queries.
LIMITS = (10**6, 2 * 13 * 9, 50)


def largest_scores(equations):
  """Most entries of any array of scores, inner programs included."""
  return max(
    equation.outvars[0].aval.size
    for equation in equations
    if equation.primitive.name == 'exp'
  )


@pytest.mark.parametrize('limit', LIMITS)
@pytest.mark.parametrize('mask', [None, MASK], ids=['all', 'padded'])
def test_chunks_of_any_size_give_the_same_values_and_gradients(limit, mask):
  def total(query, key, value, limit):
    return (attend(query, key, value, limit, mask) ** 2).sum()

  gradient = jax.jit(jax.value_and_grad(total, (0, 1, 2)), static_argnums=3)
  for one, other in zip(
    jax.tree.leaves(gradient(QUERY, KEY, VALUE, limit)),
    jax.tree.leaves(gradient(QUERY, KEY, VALUE, LIMITS[0])),
    strict=True,
  ):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('limit', LIMITS)
def test_no_array_of_scores_is_larger_than_the_limit(limit, equations):
  def total(query):
    return attend(query, KEY, VALUE, limit).sum()

  found = largest_scores(equations(jax.make_jaxpr(jax.grad(total))(QUERY).jaxpr))
  assert 0 < found <= limit


def test_compiled_memory_follows_the_limit():
  n = 1024
  x = jax.ShapeDtypeStruct((1, n, 1, 4), jnp.float32)

  def memory(limit):
    total = lambda q, k, v: attend(q, k, v, limit).sum()
    program = jax.jit(jax.grad(total)).lower(x, x, x).compile()
    return program.memory_analysis().temp_size_in_bytes

  assert memory(n * n) > 4 * n * n
  assert memory(n * 32) < n * n


@pytest.mark.parametrize('limit', LIMITS)
def test_what_padding_holds_changes_nothing(limit):
  y = attend(QUERY, KEY, VALUE, limit, MASK)
  key, value = (np.where(MASK[..., None, None], x, 1e3) for x in (KEY, VALUE))
  np.testing.assert_array_equal(y, attend(QUERY, key, value, limit, MASK))
  short = attend(QUERY[:1], KEY[:1, :6], VALUE[:1, :6], limit)
  np.testing.assert_allclose(y[:1], short, rtol=1e-5, atol=1e-6)


def test_scores_and_softmax_are_float32_whatever_the_products_are(equations):
  half = [jnp.asarray(x, jnp.bfloat16) for x in (QUERY, KEY, VALUE)]
  program = jax.make_jaxpr(attend)(*half)
  types = {
    str(equation.outvars[0].aval.dtype)
    for equation in equations(program.jaxpr)
    if equation.primitive.name in ('exp', 'reduce_max', 'reduce_sum')
  }
  assert types == {'float32'}
  assert attend(*half).dtype == jnp.bfloat16
  np.testing.assert_allclose(
    attend(*half).astype(jnp.float32), attend(QUERY, KEY, VALUE), atol=0.05
  )


def test_the_limit_is_the_platforms_when_none_is_given(monkeypatch, equations):
  monkeypatch.setitem(attention.MAX_SCORES, jax.default_backend(), 50)
  found = largest_scores(equations(jax.make_jaxpr(attend)(QUERY, KEY, VALUE).jaxpr))
  assert 0 < found <= 50
