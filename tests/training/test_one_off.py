"""Laws of programs that are compiled quickly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax.training import one_off
from ldm_jax.training.mesh import EXAMPLES, make_mesh


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


def test_arrays_on_other_devices_are_taken_after_those_of_one():
  """As parameters that begin on one device and end on all of a mesh."""
  twice, x = one_off.jit(lambda x: 2 * x), np.arange(8.0, dtype=np.float32)
  mesh = make_mesh(4)
  for place in (None, NamedSharding(mesh, P()), NamedSharding(mesh, EXAMPLES)):
    placed = x if place is None else jax.device_put(x, place)
    np.testing.assert_array_equal(twice(placed), 2 * x)
    np.testing.assert_array_equal(twice(jnp.asarray(x)), 2 * x)
