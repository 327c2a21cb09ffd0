"""Laws of the generator: it is threefry2x32 as its authors have it, and its words
become normals as the formula says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldm_jax.privacy import finite_precision, noise, secret_key


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


def exactly(a, b, c, d):
  """The normals of words in float64, by Python's integers."""
  whole = []
  for x, y, z, w in zip(a, b, c, d, strict=True):
    coins = int(x) << 48 | int(y) << 16 | (int(z) & 255) << 8 | int(w) & 255
    bits = finite_precision.GEOMETRIC_BITS
    whole.append(bits - coins.bit_length() if coins else 0)
  share = ((c >> 8) + 0.5) / 2**24
  energy = np.array(whole) * np.log(2) - np.log1p(-share / 2)
  turn = (d & ~np.uint32(255)).view(np.int32) / 2**31
  return np.sqrt(2 * energy) * np.cos(np.pi * turn)


def test_words_become_the_normals_of_the_formula_to_float_precision():
  words = np.random.default_rng(0).integers(0, 2**32, (4, 60_000), dtype=np.uint32)
  words[0, :20_000] = 0
  words[1, :10_000] = 0
  words[2:, :100] &= np.uint32(0xFFFFFF00)
  words[0, 30_000:40_000] >>= np.uint32(20)
  found = np.asarray(jax.jit(noise.normals_of_words)(*words), float)
  expected = exactly(*words)
  assert np.max(np.abs(found - expected) / np.abs(expected)) < 2.0**-21


@pytest.mark.parametrize('size', [1, 2, 1001])
def test_each_coordinate_has_words_of_its_own_whatever_the_size(size):
  key = secret_key.new_noise_key(3)
  found = jax.jit(noise.normals, static_argnums=2)(key, 5, size)
  more = noise.normals(key, 5, 1200)
  np.testing.assert_allclose(found, more[:size], rtol=1e-6)
  words = jax.random.key_data(jax.random.fold_in(key, 5))
  counters = [(place, half) for place in range(size) for half in (0, 1)]
  first, second = np.array(counters, np.uint32).T
  a, b = noise._hash(*words, jnp.asarray(first), jnp.asarray(second))
  expected = exactly(*map(np.asarray, (a[::2], b[::2], a[1::2], b[1::2])))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_they_are_standard_normal():
  found = np.asarray(noise.normals(secret_key.new_noise_key(3), 0, 500_000), float)
  assert stats.kstest(found, 'norm').pvalue > 1e-3
  assert np.mean(found**4) == pytest.approx(3, rel=0.02)
  assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 5 / np.sqrt(found.size)


def test_a_deviation_scales_them():
  key = secret_key.new_noise_key(3)
  found = noise.normals(key, 0, 100, 0.37)
  np.testing.assert_allclose(found, 0.37 * noise.normals(key, 0, 100), rtol=1e-6)


def test_more_words_than_a_key_has_counters_are_refused():
  with pytest.raises(ValueError, match='2\\*\\*32'):
    noise.threefry_normals(secret_key.new_noise_key(0), 2**32)
