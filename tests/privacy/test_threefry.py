"""Laws of the generator: it is threefry2x32 as jax and its authors have it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.privacy import noise, secret_key


@pytest.mark.parametrize('size', [1, 2, 3, 1000, 1001, 40_000])
def test_the_normals_are_those_of_jax_bit_for_bit(size):
  key = secret_key.new_noise_key(3)
  ours = jax.jit(noise.normals, static_argnums=2)(key, 5, size)
  with jax.threefry_partitionable(False):
    theirs = jax.random.normal(jax.random.fold_in(key, 5), (size,))
  np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('size', [7, 24, 15])
def test_the_words_are_those_of_jax(size):
  key = secret_key.new_noise_key(4)
  words = np.concatenate(noise._words(jax.random.key_data(key), size))
  with jax.threefry_partitionable(False):
    np.testing.assert_array_equal(words[:size], jax.random.bits(key, (size,)))


@pytest.mark.parametrize(
  ('key', 'counter', 'answer'),
  [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
  ],
)
def test_the_hash_gives_the_known_answers_of_its_authors(key, counter, answer):
  words = noise._hash(*map(jnp.uint32, (*key, *counter)))
  assert tuple(map(int, words)) == answer


def test_more_words_than_a_key_has_counters_are_refused():
  with pytest.raises(ValueError, match='2\\*\\*32'):
    noise.threefry_normals(secret_key.new_noise_key(0), 2**32)
