"""Laws of upsampling: blocks that do not overlap, and lines between voxels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ldm_jax.models.autoencoders import upsampling

X = np.random.default_rng(0).normal(size=(2, 3, 4, 3)).astype(np.float32)


def test_a_transposed_convolution_is_xlas(drawn):
  module = upsampling.TransposedUpsample(5, (2, 3))
  params = drawn(module, X)
  kernel, bias = (params['params']['deconv'][name] for name in ('kernel', 'bias'))
  # XLA lays the taps down from the last to the first.
  expected = lax.conv_transpose(
    X, kernel[::-1, ::-1], (2, 3), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  y = module.apply(params, X)
  assert y.shape == (2, 6, 12, 5)
  np.testing.assert_allclose(y, expected + bias, rtol=1e-5, atol=1e-5)


def test_each_voxel_becomes_a_block_of_its_own():
  module = upsampling.Deconv(2, (2, 2))
  params = module.init(jax.random.key(0), X)
  moved = X.copy()
  moved[0, 1, 2] += 1
  changed = np.any(module.apply(params, X) != module.apply(params, moved), axis=-1)
  assert np.argwhere(changed).tolist() == [
    [0, row, column] for row in (2, 3) for column in (4, 5)
  ]


def test_linear_upsampling_lays_lines_between_voxel_centres():
  module = upsampling.LinearUpsample(1, (1, 1), (1, 2))
  ramp = jnp.arange(6.0).reshape(1, 1, 6, 1)
  params = {'conv': {'kernel': jnp.ones((1, 1, 1, 1)), 'bias': jnp.zeros(1)}}
  y = np.ravel(module.apply({'params': params}, ramp))
  np.testing.assert_allclose(y[1:-1], np.arange(10) / 2 + 0.25, atol=1e-6)
  assert y[0] == 0 and y[-1] == pytest.approx(5)
