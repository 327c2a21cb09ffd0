"""Starting values are uniform, independent of position, and a function of the key."""

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.models.init import fan_in, uniform


def test_kernels_have_variance_one_over_fan_in():
  kernel = fan_in(jax.random.key(0), (3, 3, 8, 128))
  bound = np.sqrt(3 / 72)
  assert abs(kernel.mean()) < 5e-3 * bound * 3
  np.testing.assert_allclose(kernel.std(), np.sqrt(1 / 72), rtol=0.02)
  assert jnp.abs(kernel).max() <= bound
  counts = np.histogram(kernel, 16, (-bound, bound))[0]
  np.testing.assert_allclose(counts, kernel.size / 16, rtol=0.12)


def test_neighbours_and_keys_are_uncorrelated_and_repeats_are_equal():
  keys = jax.random.split(jax.random.key(0), 2)
  one, two = (np.asarray(uniform(key, (20000,), 1.0)) for key in keys)
  np.testing.assert_array_equal(one, uniform(keys[0], (20000,), 1.0))
  for other in (two, np.roll(one, 1), np.roll(one, 2), np.roll(one, 64)):
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
  assert len(np.unique(one)) > 19900


def test_old_and_new_style_keys_give_the_same_values():
  new, old = jax.random.key(3), jax.random.PRNGKey(3)
  np.testing.assert_array_equal(fan_in(new, (4, 5)), fan_in(old, (4, 5)))
