"""oneDNN's convolution: mapped, with its weight gradient, and where it is not known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.conv import onednn, weight_gradients
from ldm_jax.models.conv.conv import LinearMap, choose_lowering, convolve

NEEDS_ONEDNN = pytest.mark.skipif(
  not onednn.is_available(), reason='this jaxlib is not known to hold oneDNN'
)


def example(space, size, channels, num=3, seed=0):
  keys = jax.random.split(jax.random.key(seed))
  x = jax.random.normal(keys[0], (num, *space, channels[0]))
  return x, jax.random.normal(keys[1], (*size, *channels))


def close(actual, expected, rtol=1e-5):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * scale)


@NEEDS_ONEDNN
@pytest.mark.parametrize('axes', [(0, None), (None, 0), (0, 0)])
def test_onednn_maps_over_examples_kernels_and_pairs(axes):
  x, kernel = example((3, 5, 4), (3, 3, 3), (3, 4), num=2)
  many = [
    a if axis is None else jnp.stack([a, 2 * a, a[::-1]])
    for a, axis in zip((x, kernel), axes, strict=True)
  ]
  actual, expected = (
    jax.vmap(functools.partial(convolve, lowering=name), axes)(*many)
    for name in ('onednn', 'planar')
  )
  close(actual, expected)


@NEEDS_ONEDNN
def test_a_weight_gradient_of_planes_is_a_convolution_itself():
  x, _ = example((6, 5), (3, 3), (32, 40), num=32)
  g = jax.random.normal(jax.random.key(2), (32, 6, 5, 40))
  arguments = ((3, 3), (1, 1), ((1, 1), (1, 1)))
  assert onednn.suits_weight_gradient(32, g.shape, *arguments[:2])
  expected, actual = (
    weight_gradients.batch_weight_gradient(x, g, *arguments, name)
    for name in ('shifted', 'onednn')
  )
  close(actual, expected)
  close(LinearMap(*arguments).weight_gradient(x, g), expected)


@NEEDS_ONEDNN
def test_bfloat16_rounds_the_factors_of_the_products_and_nothing_else():
  x, kernel = example((8, 5, 4), (3, 3, 3), (32, 33))
  coarse = functools.partial(jnp.asarray, dtype=jnp.bfloat16)

  def both(lowering, x, kernel):
    y, gradients = jax.vjp(functools.partial(convolve, lowering=lowering), x, kernel)
    return y, *gradients(y)

  x, kernel = (coarse(a).astype(jnp.float32) for a in (x, kernel))
  y, *gradients = both('onednn_bfloat16', x, kernel)
  expected, *exact = both('onednn', x, kernel)
  close(y, expected)
  for actual, wanted in zip(gradients, exact, strict=True):
    assert actual.dtype == jnp.float32
    close(actual, wanted, 2.0**-8)
    assert not np.array_equal(actual, wanted)


@NEEDS_ONEDNN
def test_the_gradient_that_a_norm_bounds_is_never_rounded_to_bfloat16(monkeypatch):
  monkeypatch.setattr(onednn, 'is_preferred', lambda: True)
  x, _ = example((6, 5), (3, 3), (32, 40), num=32)
  g = jax.random.normal(jax.random.key(2), (32, 6, 5, 40))
  layer = LinearMap((3, 3), (1, 1), ((1, 1), (1, 1)))
  monkeypatch.setattr(onednn, 'multiplies_bfloat16', lambda: False)
  exact = layer.weight_gradient(x, g)
  monkeypatch.setattr(onednn, 'multiplies_bfloat16', lambda: True)
  np.testing.assert_array_equal(layer.weight_gradient(x, g), exact)


def test_onednn_is_refused_where_it_is_not_known_to_run(monkeypatch):
  monkeypatch.setattr(onednn, 'is_available', lambda: False)
  x, kernel = example((5, 4), (3, 3), (3, 4))
  with pytest.raises(ValueError, match="'onednn', which needs"):
    convolve(x, kernel, lowering='onednn')
  assert choose_lowering('cpu', (8, 8, 8), (3, 3, 3)) == 'planar'


@NEEDS_ONEDNN
def test_where_onednn_runs_it_is_chosen_on_a_cpu(monkeypatch):
  monkeypatch.delenv('LDM_JAX_ONEDNN')
  monkeypatch.setattr(onednn, 'multiplies_bfloat16', lambda: False)
  assert choose_lowering('cpu', (8, 8, 2), (3, 3, 3)) == 'onednn'
  assert choose_lowering('gpu', (8, 8, 2), (3, 3, 3)) == 'lax'
  monkeypatch.setattr(onednn, 'multiplies_bfloat16', lambda: True)
  for precision, name in (('default', 'onednn_bfloat16'), ('float32', 'onednn')):
    with jax.default_matmul_precision(precision):
      assert choose_lowering('cpu', (8, 8, 2), (3, 3, 3)) == name
  monkeypatch.setenv('LDM_JAX_ONEDNN', '0')
  assert choose_lowering('cpu', (8, 8, 2), (3, 3, 3)) == 'shifted'
