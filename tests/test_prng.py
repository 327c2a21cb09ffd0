"""Laws of the keys: one generator, and no key that depends on how many there are."""

import contextlib

import jax
import numpy as np
import pytest

from ldm_jax import prng

SETTINGS = {
  'default': contextlib.nullcontext,
  'rbg': lambda: jax.default_prng_impl('rbg'),
  'not partitionable': lambda: jax.threefry_partitionable(False),
}
words = lambda keys: np.asarray(jax.random.key_data(keys))


@pytest.mark.parametrize('setting', SETTINGS)
def test_keys_are_the_same_whatever_jax_is_set_to(setting):
  first = words(prng.numbered(prng.key(3), 5))
  with SETTINGS[setting]():
    np.testing.assert_array_equal(first, words(prng.numbered(prng.key(3), 5)))
    np.testing.assert_array_equal(first[:2], words(prng.numbered(prng.key(3), 2)))


def test_numbered_keys_are_those_of_a_split_as_jax_splits_by_default():
  with jax.threefry_partitionable(True):
    expected = words(jax.random.split(prng.key(3), 5))
  np.testing.assert_array_equal(words(prng.numbered(prng.key(3), 5)), expected)


def test_threefry_keys_stay_and_every_word_of_another_key_counts():
  for typed in (prng.key(1), prng.numbered(prng.key(1), 3)):
    np.testing.assert_array_equal(words(prng.threefry(typed)), words(typed))
    np.testing.assert_array_equal(words(prng.threefry(words(typed))), words(typed))
  raw = np.arange(8, dtype=np.uint32).reshape(2, 4)
  found = {tuple(row) for row in words(prng.threefry(raw))}
  for number in range(4):
    other = raw.copy()
    other[:, number] += 9
    found |= {tuple(row) for row in words(prng.threefry(other))}
  assert len(found) == 10
  rbg = jax.random.wrap_key_data(raw, impl='rbg')
  assert jax.random.key_impl(prng.threefry(rbg)) == prng.GENERATOR
