"""The convolution is XLA's function in every lowering, with its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from ldm_jax.models.conv import onednn
from ldm_jax.models.conv.conv import (
  Conv,
  choose_lowering,
  convolve,
  padding_pairs,
)

CASES = [
  # space, kernel, channels in and out, strides, padding
  ((9,), (3,), (4, 6), (1,), 'same'),
  ((10,), (4,), (3, 5), (2,), 'same'),
  ((7, 8), (3, 3), (5, 4), (1, 1), 'same'),
  ((8, 9), (3, 3), (40, 3), (2, 2), ((0, 1), (0, 1))),
  ((2, 2), (3, 3), (4, 4), (1, 1), 'same'),
  ((4, 6, 5), (3, 3, 3), (36, 5), (1, 1, 1), 'same'),
  ((5, 6, 8), (3, 3, 3), (4, 3), (2, 2, 2), ((0, 1), (0, 1), (0, 1))),
  ((3, 8, 7), (1, 3, 3), (4, 6), (1, 2, 2), ((0, 0), (0, 1), (0, 1))),
  ((4, 5, 6), (1, 3, 3), (1, 8), (1, 1, 1), 'same'),
  ((7, 7, 7), (2, 4, 3), (3, 2), (3, 2, 1), 'same'),
  ((6, 6, 6), (1, 1, 1), (3, 2), (1, 2, 2), 'valid'),
  # Planes large enough for a weight gradient plane by plane.
  ((3, 12, 11), (3, 3, 3), (4, 6), (1, 1, 1), 'same'),
  ((4, 14, 13), (2, 3, 2), (4, 3), (1, 1, 1), 'valid'),
  # Channels and planes enough for oneDNN's weight gradient.
  ((16, 5, 4), (3, 3, 3), (32, 33), (1, 1, 1), 'same'),
  ((17, 5, 6), (2, 3, 4), (34, 32), (1, 1, 1), 'valid'),
]

NEEDS_ONEDNN = pytest.mark.skipif(
  not onednn.is_available(), reason='this jaxlib is not known to hold oneDNN'
)


def reference(x, kernel, strides, padding):
  axes = 'DHW'[: kernel.ndim - 2]
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding_pairs(padding, kernel.shape[:-2]),
    dimension_numbers=(f'N{axes}C', f'{axes}IO', f'N{axes}C'),
  )


def example(space, size, channels, num=3, seed=0):
  keys = jax.random.split(jax.random.key(seed))
  x = jax.random.normal(keys[0], (num, *space, channels[0]))
  return x, jax.random.normal(keys[1], (*size, *channels))


def close(actual, expected, rtol=1e-5):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize(
  ('case', 'lowering'),
  [(case, 'shifted') for case in CASES[:11]]
  + [(CASES[i], 'planar') for i in (2, 3, 5, 6, 9, 11, 12)]
  + [
    pytest.param(CASES[i], 'onednn', marks=NEEDS_ONEDNN)
    for i in (0, 1, 3, 4, 6, 7, 9, 10, 13, 14)
  ]
  + [(CASES[i], 'lax') for i in (6, 7)],
  ids=str,
)
def test_every_lowering_is_xlas_convolution_with_both_gradients(case, lowering):
  space, size, channels, strides, padding = case
  x, kernel = example(space, size, channels)
  y = reference(x, kernel, strides, padding)
  g = jax.random.normal(jax.random.key(5), y.shape)

  @jax.jit
  def both(x, kernel):
    expected = jax.vjp(lambda *a: reference(*a, strides, padding), x, kernel)
    actual = jax.vjp(lambda *a: convolve(*a, strides, padding, lowering), x, kernel)
    return (expected[0], *expected[1](g)), (actual[0], *actual[1](g))

  for expected, actual in zip(*both(x, kernel), strict=True):
    close(actual, expected)


@pytest.mark.parametrize(
  'lowering', ['shifted', 'planar', 'lax', pytest.param('onednn', marks=NEEDS_ONEDNN)]
)
def test_vmapped_gradients_are_those_of_a_loop_and_never_grouped(lowering):
  x, kernel = example((6, 7), (3, 3), (4, 5), num=4)

  def loss(kernel, x):
    return jnp.sum(jnp.sin(convolve(x[None], kernel, 2, 'same', lowering)))

  per_example = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, 0)))
  actual, alone = per_example(kernel, x), jax.jit(jax.grad(loss, (0, 1)))
  for i in range(len(x)):
    expected = alone(kernel, x[i])
    jax.tree.map(lambda a, e, i=i: close(a[i], e), actual, expected)
  text = per_example.lower(kernel, x).as_text()
  assert 'feature_group_count = 4' not in text
  assert 'batch_group_count = 4' not in text


@pytest.mark.parametrize('size', [(1, 3, 3), (3, 3, 3)])
def test_it_works_inside_scan_checkpoint_and_nested_vmap(size):
  x, kernel = example((3, 6, 5), size, (4, 4), num=4)

  @jax.checkpoint
  def loss(kernel, x):
    return jnp.sum(convolve(x[None], kernel) ** 2)

  def add(total, pair):
    grads = jax.vmap(jax.grad(loss), (None, 0))(kernel, pair)
    return total + grads.sum(0), None

  pairs = x.reshape(2, 2, *x.shape[1:])
  total, _ = jax.jit(lambda: lax.scan(add, jnp.zeros_like(kernel), pairs))()
  expected = jax.grad(lambda k: jnp.sum(reference(x, k, (1, 1, 1), 'same') ** 2))(
    kernel
  )
  close(total, expected)


def test_it_works_inside_shard_map():
  mesh = Mesh(np.array(jax.devices()[:2]), ('data',))
  x, kernel = example((3, 6, 5), (3, 3, 3), (4, 4), num=4)

  def gradient(kernel, x):
    grad = jax.grad(lambda k: jnp.sum(convolve(x, k) ** 2))(kernel)
    return lax.psum(grad, 'data')

  specs = (PartitionSpec(), PartitionSpec('data'))
  mapped = jax.shard_map(
    gradient, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
  )
  expected = jax.grad(lambda k: jnp.sum(reference(x, k, (1, 1, 1), 'same') ** 2))(
    kernel
  )
  close(jax.jit(mapped)(kernel, x), expected)


@pytest.mark.parametrize('lowering', ['shifted', 'lax'])
def test_bfloat16_sums_are_accumulated_in_float32(lowering):
  x, kernel = example((4, 6, 5), (3, 3, 3), (8, 8))
  x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
  exact = reference(
    x.astype(jnp.float32), kernel.astype(jnp.float32), (1, 1, 1), 'same'
  )
  actual, pull = jax.vjp(lambda *a: convolve(*a, 1, 'same', lowering), x, kernel)
  assert actual.dtype == jnp.bfloat16
  assert [a.dtype for a in pull(actual)] == [jnp.bfloat16, jnp.bfloat16]
  close(actual.astype(jnp.float32), exact, rtol=2**-8)


def test_a_kernel_of_one_slice_leaves_depth_alone():
  x, kernel = example((4, 6, 5), (1, 3, 3), (2, 3))
  slices = [convolve(x[:, i], kernel[0]) for i in range(4)]
  close(convolve(x, kernel), np.stack(slices, 1))


def test_the_lowering_follows_platform_and_shape(monkeypatch):
  monkeypatch.setenv('LDM_JAX_ONEDNN', '0')
  assert choose_lowering('gpu', (8, 8, 8), (3, 3, 3)) == 'lax'
  assert choose_lowering('tpu', (8, 8), (3, 3)) == 'lax'
  assert choose_lowering('cpu', (8, 8), (3, 3)) == 'planar'
  assert choose_lowering('cpu', (8, 2), (3, 3)) == 'shifted'
  assert choose_lowering('cpu', (8, 8, 8), (3, 3, 3)) == 'planar'
  assert choose_lowering('cpu', (8, 8, 2), (3, 3, 3)) == 'shifted'


def test_switched_off_every_convolution_is_xlas(monkeypatch):
  monkeypatch.setenv('LDM_JAX_ONEDNN', '1')
  monkeypatch.setenv('LDM_JAX_FAST_CONV', '0')
  assert choose_lowering('cpu', (8, 8, 2), (3, 3, 3)) == 'lax'
  assert choose_lowering('cpu', (8, 8), (3, 3)) == 'lax'


def test_a_layer_keeps_float32_parameters_and_names():
  layer = Conv(5, (1, 3, 3), strides=(1, 2, 2), dtype=jnp.bfloat16)
  x = jnp.ones((2, 3, 4, 6, 2))
  y, variables = layer.init_with_output(jax.random.key(0), x)
  assert y.shape == (2, 3, 2, 3, 5)
  assert y.dtype == jnp.bfloat16
  params = variables['params']
  assert {k: (v.shape, v.dtype.name) for k, v in params.items()} == {
    'kernel': ((1, 3, 3, 2, 5), 'float32'),
    'bias': ((5,), 'float32'),
  }


@pytest.mark.parametrize(
  ('shape', 'size', 'options', 'message'),
  [
    ((2, 4, 4, 3), (3, 3, 3), {}, 'do not fit'),
    ((2, 4, 4, 4), (3, 3), {}, 'channels'),
    ((2, 4, 4, 3), (3, 3), {'strides': (2,)}, 'one entry per axis'),
    ((2, 4, 4, 3), (3, 3), {'lowering': 'fast'}, 'lowering'),
    ((2, 4, 4, 3), (3, 3), {'padding': 'full'}, 'padding'),
    ((2, 2, 2, 3), (3, 3), {'padding': 'valid'}, 'larger than'),
  ],
)
def test_what_does_not_fit_is_an_error_that_says_so(shape, size, options, message):
  with pytest.raises(ValueError, match=message):
    convolve(jnp.ones(shape), jnp.ones((*size, 3, 2)), **options)
