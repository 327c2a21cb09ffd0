"""Laws of programs that are compiled quickly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.training import one_off


def test_a_quickly_compiled_function_gives_what_it_says():
  x = np.linspace(-2, 2, 60, dtype=np.float32).reshape(6, 10)
  function = lambda x, key: {'a': jnp.tanh(x @ x.T), 'b': jax.random.normal(key, (3,))}
  found = one_off.jit(function)(x, jax.random.key(1))
  expected = function(x, jax.random.key(1))
  for name in expected:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_the_options_are_those_of_this_cpu_and_no_accelerator():
  assert one_off.options('cpu') == one_off.QUICK  # else a jaxlib that needs others
  assert one_off.options('gpu') is None


def test_a_jaxlib_without_an_option_compiles_as_usual(monkeypatch):
  one_off.options.cache_clear()
  monkeypatch.setattr(one_off, 'QUICK', {'xla_cpu_no_such_option': 1})
  assert one_off.options('cpu') is None
  assert one_off.jit(lambda x: x + 1)(1.0) == pytest.approx(2.0)
  one_off.options.cache_clear()


def test_within_another_program_it_is_part_of_that():
  inner = one_off.jit(lambda x: 2 * x)
  assert jax.jit(lambda x: inner(x) + 1)(3.0) == pytest.approx(7.0)
  assert jax.eval_shape(inner, jnp.zeros((3,))).shape == (3,)
