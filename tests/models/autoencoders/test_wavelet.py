"""Wavelet coefficients as latents: orthonormal, lossless, and what few bands keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.autoencoders.wavelet import Wavelet, haar_bands

KEY = jax.random.key(0)
BLOCKS = [((2, 2, 2),), ((1, 2, 2), (2, 2, 2)), ((2, 2),)]


def volumes(strides, cells=3):
  block = np.prod(strides, axis=0)
  return jax.random.uniform(KEY, (2, *(int(cells * n) for n in block), 1))


def build(strides, latent_channels=None):
  num = latent_channels or int(np.prod(strides))
  module = Wavelet(latent_channels=num, strides=strides)
  return module, module.init(KEY, volumes(strides))


@pytest.mark.parametrize('strides', BLOCKS)
def test_all_bands_lose_nothing_and_keep_distances(strides):
  module, variables = build(strides)
  x = volumes(strides)
  x_hat, z, std = module.apply(variables, x, KEY)
  np.testing.assert_allclose(x_hat, x, atol=1e-6)
  np.testing.assert_allclose(jnp.sum(z**2), jnp.sum(x**2), rtol=1e-5)
  assert not std.any()


@pytest.mark.parametrize('block', [(2, 2, 2), (1, 4, 4), (8,), (1, 1)])
def test_bands_are_orthonormal_and_the_first_is_the_mean(block):
  bands = haar_bands(block)
  np.testing.assert_allclose(bands @ bands.T, np.eye(len(bands)), atol=1e-12)
  np.testing.assert_allclose(bands[0], bands[0][0])


def test_the_coarsest_band_alone_gives_the_mean_of_each_block():
  module, variables = build(((2, 2, 2),), latent_channels=1)
  x = volumes(((2, 2, 2),))
  x_hat = module.apply(variables, x)[0]
  means = x.reshape(2, 3, 2, 3, 2, 3, 2).mean((2, 4, 6))
  np.testing.assert_allclose(x_hat[:, ::2, ::2, ::2, 0], means, atol=1e-6)
  np.testing.assert_array_equal(x_hat[:, 1::2, ::2, 1::2], x_hat[:, ::2, ::2, ::2])


def test_more_bands_never_lose_more():
  x = volumes(((1, 2, 2), (2, 2, 2)))
  errors = []
  for num in (1, 2, 8, 32):
    module, variables = build(((1, 2, 2), (2, 2, 2)), num)
    errors.append(float(jnp.sum((module.apply(variables, x)[0] - x) ** 2)))
  assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-6


def test_blocks_do_not_know_each_other():
  module, variables = build(((2, 2, 2),))
  x = volumes(((2, 2, 2),))
  z = module.apply(variables, x, method='encode')[0]
  moved = module.apply(variables, x.at[:, :2, :2, :2].set(0), method='encode')[0]
  changed = jnp.abs(z - moved).max(-1) > 0
  assert changed[:, 0, 0, 0].all() and changed.sum() == 2


@pytest.mark.parametrize(
  ('strides', 'num', 'shape', 'words'),
  [
    (((2, 2, 2),), 9, (1, 4, 4, 4, 1), 'latent_channels'),
    (((2, 2, 2),), 8, (1, 4, 5, 4, 1), 'preprocess.shape'),
    (((3, 2, 2),), 8, (1, 6, 4, 4, 1), 'strides'),
    ((), 8, (1, 4, 4, 4, 1), 'strides'),
    (((2, 2),), 4, (1, 4, 4, 4, 1), r'\(b,\*space,c\)'),
  ],
)
def test_what_does_not_fit_is_told(strides, num, shape, words):
  module = Wavelet(latent_channels=num, strides=strides)
  with pytest.raises(ValueError, match=words):
    module.init(KEY, jnp.zeros(shape))
