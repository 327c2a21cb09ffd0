"""The measuring network: logits of any grid, features of what counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.critics.segmenter import Segmenter

KEY = jax.random.key(0)


@pytest.mark.parametrize(
  ('size', 'options'),
  [
    ((3, 9, 10), {'kernels': (1, 3, 3), 'strides': (1, 2, 2)}),
    ((9, 7), {'kernels': (3, 3)}),
  ],
)
def test_logits_have_the_grid_of_the_volume_and_examples_stay_apart(
  size, options, drawn
):
  module = Segmenter(3, channels=(4, 8, 8), **options)
  x = jax.random.normal(KEY, (3, *size, 1))
  variables = drawn(module, x)
  apply = jax.jit(module.apply)
  logits = apply(variables, x)
  assert logits.shape == (3, *size, 3)
  assert logits.dtype == jnp.float32
  np.testing.assert_array_equal(logits[::2], apply(variables, x.at[1].set(0.0))[::2])


def test_features_are_finite_pooled_and_ignore_masked_voxels(drawn):
  module = Segmenter(3, channels=(4, 4, 8), kernels=(1, 3, 3), strides=(1, 2, 2))
  x = jax.random.normal(KEY, (2, 4, 8, 8, 1))
  variables = drawn(module, x)
  measure = jax.jit(lambda *a: module.apply(variables, *a, method='features'))
  features = measure(x)
  assert features.shape == (2, 2 * (4 + 8))
  every = jnp.ones(x.shape[:-1], bool)
  masked = measure(x, every)
  np.testing.assert_allclose(masked, features, rtol=1e-4, atol=1e-5)
  half = every.at[:, 2:].set(False)
  assert jnp.abs(measure(x, half) - features).max() > 1e-3
  nothing = measure(x, ~every)
  assert jnp.isfinite(nothing).all()
